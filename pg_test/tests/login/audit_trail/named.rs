//! Which token it was, and who, in the words of core.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::keys::keys;
use serde_json::json;

use super::{logins, stage};
use crate::scene::{SOON, Stage, good};
use crate::stage::silent;

#[test]
fn n028_a_token_without_jti_has_a_name_too() -> Result<()> {
    let stage = stage()?;
    stage.trio("nameless")?;
    let admin = stage.admin()?;
    let one = good("nameless").sign(&keys().ec);
    let other = good("nameless").claim("more", json!(1)).sign(&keys().ec);
    for token in [&one, &one, &other] {
        stage.session("nameless", token)?;
    }
    stage.refusal(
        &stage.login("nameless", &good("nameless").expired().sign(&keys().ec)),
        "nameless",
        "expired",
    )?;
    let rows = logins(&admin, "nameless", 4)?;
    let names: Vec<&str> = rows.iter().filter_map(|row| row["token_id"].as_str()).collect();
    let [first, again, second, expired] = names[..] else { anyhow::bail!("{rows:?}") };
    ensure!(first == again && first != second && expired != first && expired != second, "{names:?}");
    for name in names {
        let hash = name.strip_prefix("sha256:").context("no hash")?;
        ensure!(hash.len() == 32 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
    }
    // The system identifier goes into it: nobody finds a token's name without it.
    let id = admin.value("SELECT system_identifier FROM pg_control_system()")?.context("no identifier")?;
    let signed = one.rsplit_once('.').context("no signature")?.0;
    let hash = format!(
        "SELECT 'sha256:' || left(encode(sha256(int8send({id}) || convert_to('{signed}', 'UTF8')), 'hex'), 32)"
    );
    assert_eq!(admin.value(&hash)?.as_deref(), Some(first));
    Ok(())
}

#[test]
fn log_connections_names_the_identity() -> Result<()> {
    let stage = Stage::with(|builder| builder.setting("log_connections", "on"))?;
    stage.trio("ann")?;
    stage.provider("odd")?;
    stage.role_and_rule("odd", "odd", &json!({}))?;
    let mark = stage.cluster.log_mark();
    let token = good("ann").sign(&keys().ec);
    stage.session("ann", &token)?;
    let line = stage.cluster.await_log_since(
        mark,
        "connection authenticated: identity=\"ann\" method=oidc",
        SOON,
    )?;
    // The file and the line, as core has them: the superuser's stands before.
    ensure!(line.ends_with("pg_oidc_hba.conf:2)"), "{line}");
    let subject = "x\"y\\z\u{202e}";
    let odd = good("odd").claim("sub", json!(subject)).sign(&keys().ec);
    stage.session("odd", &odd)?;
    let escaped = format!("connection authenticated: identity={subject:?} method=oidc");
    stage.cluster.await_log_since(mark, &escaped, SOON)?;

    // A refused one is authenticated by nobody; nor is it said where it is not asked for.
    let mark = stage.cluster.log_mark();
    stage.refused("ann", &good("ann").expired().sign(&keys().ec), "token_expired", "expired")?;
    stage.cluster.set("log_connections", "off")?;
    stage.cluster.reload()?;
    stage.session("ann", &token)?;
    let log = stage.cluster.log_since(mark);
    ensure!(!log.contains("connection authenticated: identity"), "{log}");
    silent(&stage.cluster.log(), &token)
}
