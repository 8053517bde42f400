//! n136: what gave the right to be there is taken away.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{GRACE, gone, pid, session, signed, some, stage, told_of_its_end};
use crate::scene::{good, rule_with};

const RULE: &str =
    "The OIDC token session was ended: the rule that gave its role is gone, disabled or past its time.";
const PROVIDER: &str = "The OIDC token session was ended: its provider is gone or disabled.";
/// The policy has to be published first.
const SOON_ENOUGH: Duration = Duration::from_secs(2);

#[test]
fn n136_rule_that_goes_takes_its_sessions_along() -> Result<()> {
    stage().trio("stays")?;
    let stays = session("stays")?;
    let changes = [
        ("deleted", "DELETE FROM oidc.role_mapping WHERE"),
        ("disabled", "UPDATE oidc.role_mapping SET enabled = false WHERE"),
        ("shortened", "UPDATE oidc.role_mapping SET valid_until = now() WHERE"),
        ("denying", "UPDATE oidc.role_mapping SET effect = 'deny', role = NULL WHERE"),
    ];
    let admin = stage().admin()?;
    for (name, change) in changes {
        let name = &format!("rule_{name}");
        stage().trio(name)?;
        // Another rule, for a session that must go on.
        let other = rule_with(name, &json!({ "sub": format!("{name}_other") }), name, &[]);
        admin.rows(&other)?;
        let other =
            stage().session(name, &signed(&good(name).claim("sub", json!(format!("{name}_other")))))?;
        let session = session(name)?;
        let own = pid(&session)?;
        admin.rows(&format!("{change} provider = '{name}' AND match->>'sub' = '{name}'"))?;
        gone(&admin, &own, SOON_ENOUGH)?;
        told_of_its_end(&session, RULE)?;
        assert_eq!(other.value("SELECT 1")?, some("1"), "{name}");
    }
    assert_eq!(stays.value("SELECT 1")?, some("1"));
    Ok(())
}

#[test]
fn n136_rule_whose_time_comes_ends_its_sessions() -> Result<()> {
    stage().trio("timed")?;
    let admin = stage().admin()?;
    admin.rows("UPDATE oidc.role_mapping SET valid_until = now() + '2 s' WHERE provider = 'timed'")?;
    let session = session("timed")?;
    gone(&admin, &pid(&session)?, Duration::from_secs(2) + GRACE)?;
    told_of_its_end(&session, RULE)
}

#[test]
fn rule_that_is_changed_keeps_its_sessions() -> Result<()> {
    stage().trio("changed")?;
    let admin = stage().admin()?;
    let session = session("changed")?;
    admin.rows(
        "UPDATE oidc.role_mapping SET match = '{\"sub\": \"somebody\"}', comment = 'x' WHERE provider = 'changed'",
    )?;
    // The change counts, and the session is still there.
    stage().refused("changed", &signed(&good("changed")), "no_rule", "after the change")?;
    assert_eq!(session.value("SELECT 1")?, some("1"));
    Ok(())
}

#[test]
fn n136_provider_that_goes_takes_its_sessions_along() -> Result<()> {
    let admin = stage().admin()?;
    for (name, change) in [
        ("off", "UPDATE oidc.provider SET enabled = false WHERE name = 'provider_off'"),
        (
            "gone",
            "DELETE FROM oidc.role_mapping WHERE provider = 'provider_gone'; \
             DELETE FROM oidc.provider WHERE name = 'provider_gone'",
        ),
    ] {
        let name = &format!("provider_{name}");
        stage().trio(name)?;
        let session = session(name)?;
        let own = pid(&session)?;
        admin.rows(&format!("BEGIN; {change}; COMMIT"))?;
        gone(&admin, &own, SOON_ENOUGH)?;
        told_of_its_end(&session, PROVIDER)?;
    }
    Ok(())
}
