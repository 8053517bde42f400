//! Rows, and the logins that they decide, survive ALTER EXTENSION UPDATE from every older version; the new library goes on
//! with the old script until then.

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::extension::Server;
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::program;
use pg_oidc_test::token::Token;
use serde_json::json;

use super::{SAME, client, outcome};
use crate::scene::{issuer, provider_sql, rule_with, text};
use crate::stage::calm;

#[test]
fn update_keeps_rows_and_logins() -> Result<()> {
    let server = Server::shared()?;
    let older = "SELECT v.version FROM pg_available_extension_versions v JOIN pg_available_extensions e USING (name) \
                 WHERE name = 'pg_oidc' AND v.version <> e.default_version";
    let cluster = Cluster::builder(server).start()?;
    let versions = cluster.admin(older)?;
    ensure!(!versions.is_empty(), "no older version");
    cluster.admin(
        "CREATE ROLE ada LOGIN; CREATE ROLE \"team-red\" LOGIN; CREATE ROLE gone; CREATE ROLE other LOGIN",
    )?;
    for version in versions.into_iter().flatten() {
        let admin = cluster.admin_session()?;
        admin.rows(&format!("CREATE EXTENSION pg_oidc VERSION '{version}'"))?;
        let keys_text = text(&jwks(&[&keys().ed25519]));
        let columns =
            [("jwks", keys_text.as_str()), ("required_claims", "'{\"tier\": 1.50}'"), ("comment", "'kept'")];
        admin.rows(&provider_sql("main", &issuer("main"), &columns))?;
        admin.rows(&provider_sql("off", &issuer("off"), &[("jwks", &keys_text), ("enabled", "false")]))?;
        for (claims, role, columns) in [
            (json!({ "sub": "ada" }), "ada", vec![("comment", "'kept'"), ("databases", "'{postgres}'")]),
            (json!({ "sub": "ada" }), "other", vec![("enabled", "false")]),
            (json!({ "sub": "ada" }), "gone", vec![("priority", "7")]),
            (json!({}), "ada", vec![]),
        ] {
            admin.rows(&rule_with("main", &claims, role, &columns))?;
        }
        admin.rows(
            "DELETE FROM oidc.role_mapping WHERE match = '{}'; DROP ROLE gone; CREATE ROLE gone LOGIN",
        )?;
        let signed = |group: &str| {
            let token =
                Token::for_user("ada").issuer(&issuer("main")).claim("tier", json!(1.5)).groups(&[group]);
            token.sign(&keys().ed25519)
        };
        let old_logins = |about: &str| -> Result<()> {
            for (user, expected) in
                [("ada", None), ("other", Some("user_not_mapped")), ("gone", Some("role_replaced"))]
            {
                let found = outcome(&cluster, "postgres", user, &signed("x"))?;
                ensure!(found.as_deref() == expected, "{about}, {user}: {found:?} instead of {expected:?}");
            }
            Ok(())
        };
        // The new library goes on with the old script until it is updated.
        old_logins(&format!("{version}, not yet updated"))?;
        let rows = |admin: &Session| -> Result<Vec<Vec<Vec<Option<String>>>>> {
            SAME[..3].iter().map(|query| admin.rows(&query.replace(" - 'role_oid'", ""))).collect()
        };
        let before = rows(&admin)?;
        admin.rows("ALTER EXTENSION pg_oidc UPDATE")?;
        assert_eq!(rows(&admin)?, before, "from {version}");
        let current = "SELECT extversion = default_version FROM pg_extension, pg_available_extensions e \
                       WHERE extname = 'pg_oidc' AND e.name = 'pg_oidc'";
        assert_eq!(admin.value(current)?.as_deref(), Some("t"));
        old_logins(&format!("updated from {version}"))?;

        // What this version brings.
        let team = json!({ "groups": { "regex": "team-(.+)" } });
        let id = admin.value(&rule_with("main", &team, "team-\\1", &[("addresses", "'{127.0.0.1/32}'")]))?;
        assert_eq!(id.as_deref(), Some("5"), "the sequence goes on");
        assert_eq!(outcome(&cluster, "postgres", "team-red", &signed("team-red"))?, None);
        let deny =
            [("effect", "'deny'"), ("role", "NULL"), ("replication", "NULL"), ("valid_until", "'infinity'")];
        admin.rows(&rule_with("main", &json!({ "groups": "team-red" }), "", &deny))?;
        let found = outcome(&cluster, "postgres", "team-red", &signed("team-red"))?;
        assert_eq!(found.as_deref(), Some("denied_by_rule"));
        old_logins("with the denial of others")?;
        let worst = "SELECT string_agg(name || ': ' || detail, '; ') FROM oidc.doctor() WHERE status = 'fail' \
                     AND name IN ('table_triggers', 'table_owners', 'public_rights', 'provider_rows', 'rule_rows', 'library_version')";
        assert_eq!(admin.value(worst)?, None);
        // And it can be dumped, with what was there before.
        let dump = program::output(&mut client(&cluster, "pg_dump", &["-d", "postgres"])?)?;
        ensure!(dump.contains("COPY oidc.role_mapping") && dump.contains("team-(.+)"), "{dump}");
        admin.rows("DROP EXTENSION pg_oidc")?;
    }
    calm(&cluster, &[])
}
