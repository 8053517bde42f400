//! n135: a server that has the files of the extension and does not preload the library.
//!
//! 1. CREATE EXTENSION works, rows and rights are checked, rows stored and recorded, as pg_restore needs it.
//! 2. The session functions raise an error, so that no policy is ever decided by a setting that anybody can set.
//! 3. The connection survives all of it.

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use serde_json::json;

use crate::scene::{issuer, provider_sql, rule_sql, text};

#[test]
fn n135_not_preloaded() -> Result<()> {
    let cluster = Cluster::builder(Server::shared()?).plain().start()?;
    let admin = cluster.admin_session()?;
    let pid = admin.value("SELECT pg_backend_pid()")?;
    admin.rows("CREATE EXTENSION pg_oidc")?;

    let calls =
        ["oidc.identity()", "oidc.provider()", "oidc.claims()", "oidc.claim('sub')", "oidc.claim('/a~')"];
    let raises = |session: &pg_oidc_test::client::Session| -> Result<()> {
        for call in calls {
            let told = session.error(&format!("SELECT {call}"))?;
            assert_eq!(told.message, "pg_oidc must be loaded via shared_preload_libraries", "{call}");
            assert_eq!(told.code, "55000", "{call}");
            ensure!(told.hint.is_some_and(|hint| hint.contains("shared_preload_libraries")), "{call}");
        }
        Ok(())
    };
    raises(&admin)?;
    // In a fresh session anybody can set what only looks like ours; it decides nothing.
    let forger = cluster.admin_session()?;
    let _ = forger.try_rows("SET pg_oidc.identity = 'boss'; SET pg_oidc.claims = '{\"sub\": \"boss\"}'")?;
    raises(&forger)?;
    let options =
        cluster.login("postgres").way(pg_oidc_test::psql::Way::Socket).options("-c pg_oidc.identity=boss");
    if let Ok(session) = options.connect()? {
        raises(&session)?;
    }

    let keys = text(&jwks(&[&keys().ec]));
    admin.rows("CREATE ROLE somebody LOGIN")?;
    admin.rows(&provider_sql("main", &issuer("main"), &[("jwks", &keys)]))?;
    admin.rows(&rule_sql("main", &json!({ "team": "red" }), "somebody"))?;
    admin.rows("BEGIN; UPDATE oidc.provider SET comment = 'x'; COMMIT; DELETE FROM oidc.role_mapping")?;
    // Rights are checked and changes recorded all the same.
    admin.rows("GRANT ALL ON oidc.role_mapping TO somebody; SET ROLE somebody")?;
    let told = admin.error(&rule_sql("main", &json!({}), "somebody"))?;
    assert_eq!(told.message, "permission denied to change the OIDC policy");
    admin.rows("RESET ROLE")?;
    let events = "SELECT string_agg(event, ' ' ORDER BY id), bool_and(facts IS NULL) FROM oidc.audit_log";
    let all = "provider_created rule_created provider_changed rule_deleted";
    assert_eq!(admin.rows(events)?, [[Some(all.to_owned()), Some("t".to_owned())]]);
    let told = admin.error(&rule_sql("main", &json!(["no object"]), "somebody"))?;
    assert_eq!(told.message, "\"match\" must be a JSON object");
    let told = admin.error(&provider_sql("other", "http://plain.example", &[]))?;
    ensure!(told.message.contains("issuer"), "{told:?}");
    assert_eq!(admin.value("SELECT count(*) FROM oidc.provider")?.as_deref(), Some("1"));
    admin.rows("DROP EXTENSION pg_oidc; CREATE EXTENSION pg_oidc")?;
    assert_eq!(admin.value("SELECT pg_backend_pid()")?, pid, "the connection is another");
    ensure!(!cluster.log().contains("terminated by signal"), "{}", cluster.log());
    Ok(())
}
