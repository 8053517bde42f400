//! Where and when a rule counts.
//!
//! 1. `addresses`: the networks of the client's address; never a Unix-domain socket.
//! 2. `valid_from` and `valid_until`: a rule begins and ends by itself, between two logins, with no change of the policy.

use anyhow::{Result, ensure};
use pg_oidc_test::client::Session;
use pg_oidc_test::cluster::until;
use pg_oidc_test::psql::Way;

use super::{next_login, reason, stage, token};
use crate::scene::SOON;

#[test]
fn addresses_of_a_rule() -> Result<()> {
    let stage = stage();
    stage.trio("addressed")?;
    let (admin, token) = (stage.admin()?, token("addressed"));
    let socket = stage.login("addressed", &token).way(Way::Socket);
    assert_eq!(socket.run("SELECT session_user")?.rows(), [["addressed"]], "without addresses");
    for (addresses, counts) in [
        ("127.0.0.1", true),
        ("127.0.0.1/32", true),
        ("127.0.0.0/8", true),
        ("126.0.0.0/7", true),
        ("0.0.0.0/0", true),
        ("10.0.0.0/8,127.0.0.1/32,::1/128", true),
        ("10.0.0.0/8", false),
        ("127.0.0.2/32", false),
        ("127.0.0.0/32", false),
        ("128.0.0.0/1", false),
        ("::1/128", false),
        ("::/0", false),
        // The same number in IPv6 clothes is another address.
        ("::ffff:127.0.0.1/128", false),
        ("7f00:1::/32", false),
    ] {
        let change = format!(
            "UPDATE oidc.role_mapping SET addresses = '{{{addresses}}}' WHERE provider = 'addressed'"
        );
        admin.rows(&change)?;
        let outcome = if counts { None } else { reason("no_rule") };
        assert_eq!(next_login(stage, "addressed", &token)?, outcome, "{addresses}");
        assert_eq!(
            stage.refusal(&socket, "addressed", addresses)?.reason,
            "no_rule",
            "{addresses}, the socket"
        );
    }
    admin.rows("UPDATE oidc.role_mapping SET addresses = '{0.0.0.0/0,::/0}' WHERE provider = 'addressed'")?;
    assert_eq!(stage.refusal(&socket, "addressed", "every network")?.reason, "no_rule");
    admin.rows("UPDATE oidc.role_mapping SET addresses = NULL WHERE provider = 'addressed'")?;
    assert_eq!(socket.run("SELECT session_user")?.rows(), [["addressed"]], "without addresses again");
    assert_eq!(next_login(stage, "addressed", &token)?, None);
    Ok(())
}

/// The server's clock against a time that is stored in the rule: before it or not.
fn before(admin: &Session, column: &str) -> Result<bool> {
    let sql = format!("SELECT clock_timestamp() < {column} FROM oidc.role_mapping WHERE provider = 'timed'");
    Ok(admin.value(&sql)?.as_deref() == Some("t"))
}

#[test]
fn validity_of_a_rule() -> Result<()> {
    let stage = stage();
    stage.trio("timed")?;
    let (admin, token) = (stage.admin()?, token("timed"));
    let change = |columns: &str| {
        admin.rows(&format!("UPDATE oidc.role_mapping SET {columns} WHERE provider = 'timed'")).map(drop)
    };
    for (columns, counts) in [
        ("valid_from = now() - interval '1 hour'", true),
        ("valid_until = now() + interval '1 hour'", true),
        ("valid_from = now() + interval '1 hour', valid_until = NULL", false),
        ("valid_from = NULL, valid_until = now() - interval '1 second'", false),
        ("valid_from = '2001-01-01', valid_until = '2002-01-01'", false),
        ("valid_from = '-infinity', valid_until = 'infinity'", true),
        ("valid_from = '4713-01-01 BC', valid_until = '294276-12-31'", true),
        ("valid_from = '290000-01-01', valid_until = NULL", false),
        ("valid_from = NULL, valid_until = '4713-01-01 BC'", false),
        ("valid_from = NULL, valid_until = NULL", true),
    ] {
        change(columns)?;
        let outcome = if counts { None } else { reason("no_rule") };
        assert_eq!(next_login(stage, "timed", &token)?, outcome, "{columns}");
    }

    // It begins: refused before its time, admitted after it, and nothing is written in between.
    change("valid_from = clock_timestamp() + interval '1 second'")?;
    until("the rule has begun", SOON, || {
        let early = before(&admin, "valid_from")?;
        let admitted = next_login(stage, "timed", &token)?.is_none();
        let still_early = before(&admin, "valid_from")?;
        ensure!(!(admitted && still_early), "admitted before the rule has begun");
        ensure!(admitted || early, "refused after the rule has begun");
        Ok(admitted)
    })?;
    // It ends: no login that begins at or after its end is admitted.
    change("valid_until = clock_timestamp() + interval '1 second'")?;
    until("the rule has ended", SOON, || {
        let in_time = before(&admin, "valid_until")?;
        let admitted = next_login(stage, "timed", &token)?.is_none();
        let still_in_time = before(&admin, "valid_until")?;
        ensure!(!admitted || in_time, "admitted after the rule has ended");
        ensure!(admitted || !still_in_time, "refused before the rule has ended");
        Ok(!admitted)
    })?;
    for _ in 0..5 {
        assert_eq!(next_login(stage, "timed", &token)?, reason("no_rule"), "after its end");
    }
    Ok(())
}
