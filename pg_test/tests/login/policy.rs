//! The rules: when a change counts, what matches, which role comes out, and who may change them. One server;
//! each test has its own provider, role and rules.
//!
//! 1. A rule that is committed counts at the very next login, one that is deleted likewise, 200 times in a row.
//! 2. What is not committed does not count: open, rolled back, rolled back to a savepoint. What is committed
//!    around a savepoint that was rolled back does.
//! 3. Each column counts at the next login when it is updated; so do changes of the provider.
//! 4. TRUNCATE counts, and so do changes under session_replication_role = replica.
//! 5. PREPARE TRANSACTION of a change is refused.
//! 6. What matches: [`matching`] (n070, n098 to n100), the operators: [`operators`] (n096).
//! 7. Where, when and for which connections a rule counts: [`confines`], [`replication`] (n123).
//! 8. Rules that deny: [`deny`] (n090, n137); rules that do not compile: [`broken`] (n097).
//! 9. Which roles are refused: [`target`] (n101 to n108); roles that a token names: [`derived`] (n101 to n106).
//! 10. Which rows are refused: [`rows`].
//! 11. Who may change them, where, and what of them is dumped: [`rights`] (n127, n128, n140, f027).
//! 12. What others than superusers may change: [`rule_rights`] (n108), [`detours`] (n137).
//! 13. Each change is an event: [`audit`].

mod audit;
mod broken;
mod confines;
mod deny;
mod derived;
mod detours;
mod lead;
mod matching;
mod operators;
mod replication;
mod rights;
mod rows;
mod rule_rights;
mod target;

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use pg_oidc_test::keys::keys;
use pg_oidc_test::token::Token;
use serde_json::json;

use crate::scene::{Stage, good, rule_sql, rule_with};

fn stage() -> &'static Stage {
    static STAGE: LazyLock<Stage> = LazyLock::new(|| {
        let stage = Stage::with(|builder| {
            // A change that could be prepared, against all that is tested, must not make the other tests wait for ever.
            let builder = builder.setting("max_prepared_transactions", "5").setting("lock_timeout", "20s");
            builder.guarded("hostssl replication all 127.0.0.1/32 trust").guarded("local all all trust")
        });
        stage.expect("the server of the policy tests")
    });
    &STAGE
}

fn signed(token: &Token) -> String {
    token.sign(&keys().ed25519)
}

/// A good token of the provider and for the subject of this name.
fn token(name: &str) -> String {
    signed(&good(name))
}

/// The reason why the next login is refused, None if it is admitted.
fn next_login(stage: &Stage, user: &str, token: &str) -> Result<Option<String>> {
    let login = stage.login(user, token);
    let mark = stage.cluster.log_mark();
    match login.connect()? {
        Ok(_) => Ok(None),
        Err(told) => {
            ensure!(crate::scene::is_constant(&told, user), "the client was told {told:?}");
            let pattern = format!(" user={user:?} database=");
            let line = stage.cluster.await_log_since(mark, &pattern, crate::scene::SOON)?;
            let (_, reason) = line.split_once("reason=").unwrap_or_default();
            Ok(Some(reason.split(' ').next().unwrap_or_default().to_owned()))
        }
    }
}

/// A provider and a role of this name, and no rule yet.
fn without_rule(name: &str) -> Result<&'static Stage> {
    let stage = stage();
    stage.provider(name)?;
    stage.admin()?.rows(&format!("CREATE ROLE \"{name}\" LOGIN"))?;
    Ok(stage)
}

fn reason(code: &str) -> Option<String> {
    Some(code.to_owned())
}

#[test]
fn committed_rule_counts_at_the_very_next_login_200_times() -> Result<()> {
    let stage = without_rule("next")?;
    let (admin, token) = (stage.admin()?, token("next"));
    let insert = rule_sql("next", &json!({ "sub": "next" }), "next");
    for number in 0..200 {
        admin.rows(&insert)?;
        assert_eq!(next_login(stage, "next", &token)?, None, "login {number} after INSERT");
        admin.rows("DELETE FROM oidc.role_mapping WHERE provider = 'next'")?;
        assert_eq!(next_login(stage, "next", &token)?, reason("no_rule"), "login {number} after DELETE");
    }
    Ok(())
}

#[test]
fn uncommitted_change_does_not_count() -> Result<()> {
    let stage = without_rule("open")?;
    let (admin, token) = (stage.admin()?, token("open"));
    let insert = rule_sql("open", &json!({ "sub": "open" }), "open");
    let delete = "DELETE FROM oidc.role_mapping WHERE provider = 'open'";
    let seen = |what: &str, expected: Option<&str>| -> Result<()> {
        let found = next_login(stage, "open", &token)?;
        ensure!(found.as_deref() == expected, "{what}: {found:?} instead of {expected:?}");
        Ok(())
    };
    admin.rows("BEGIN")?;
    admin.rows(&insert)?;
    seen("INSERT not yet committed", Some("no_rule"))?;
    admin.rows("ROLLBACK")?;
    seen("INSERT rolled back", Some("no_rule"))?;

    admin.rows("BEGIN")?;
    admin.rows(&insert)?;
    admin.rows("COMMIT")?;
    seen("INSERT committed", None)?;

    admin.rows("BEGIN")?;
    admin.rows(delete)?;
    seen("DELETE not yet committed", None)?;
    admin.rows("ROLLBACK")?;
    seen("DELETE rolled back", None)?;
    admin.rows(delete)?;
    seen("DELETE committed", Some("no_rule"))?;

    admin.rows("BEGIN; SAVEPOINT s")?;
    admin.rows(&insert)?;
    admin.rows("ROLLBACK TO s; COMMIT")?;
    seen("INSERT rolled back to a savepoint", Some("no_rule"))?;

    admin.rows("BEGIN; SAVEPOINT s")?;
    admin.rows(&insert)?;
    admin.rows("ROLLBACK TO s")?;
    admin.rows(&insert)?;
    admin.rows("COMMIT")?;
    seen("INSERT after a rollback to a savepoint", None)?;

    admin.rows("BEGIN")?;
    admin.rows(delete)?;
    admin.rows("SAVEPOINT s")?;
    admin.rows(&insert)?;
    admin.rows("ROLLBACK TO s; COMMIT")?;
    seen("DELETE before a savepoint, what came after it rolled back", Some("no_rule"))?;

    admin.rows("BEGIN; SAVEPOINT s")?;
    admin.rows(&insert)?;
    admin.rows("RELEASE s; COMMIT")?;
    seen("INSERT in a savepoint that was released", None)
}

#[test]
fn each_updated_column_counts_at_the_next_login() -> Result<()> {
    let stage = without_rule("updated")?;
    let (admin, token) = (stage.admin()?, token("updated"));
    admin.rows("CREATE ROLE updated_other LOGIN")?;
    admin.rows(&rule_sql("updated", &json!({ "sub": "updated" }), "updated"))?;
    assert_eq!(next_login(stage, "updated", &token)?, None);
    let changes = [
        ("role = 'updated_other'", "user_not_mapped", "role = 'updated'"),
        ("databases = '{elsewhere}'", "no_rule", "databases = NULL"),
        ("enabled = false", "no_rule", "enabled = true"),
        ("match = '{\"sub\": \"other\"}'", "no_rule", "match = '{\"sub\": \"updated\"}'"),
    ];
    for (there, refused, back) in changes {
        admin.rows(&format!("UPDATE oidc.role_mapping SET {there} WHERE provider = 'updated'"))?;
        assert_eq!(next_login(stage, "updated", &token)?, reason(refused), "{there}");
        admin.rows(&format!("UPDATE oidc.role_mapping SET {back} WHERE provider = 'updated'"))?;
        assert_eq!(next_login(stage, "updated", &token)?, None, "{back}");
    }
    let changes = [
        ("enabled = false", "provider_disabled", "enabled = true"),
        ("audiences = '{other}'", "audience_mismatch", "audiences = '{warehouse}'"),
        ("issuer = 'https://moved.example'", "issuer_unknown", "issuer = 'https://updated.example'"),
        ("required_claims = '{\"tier\": 1}'", "required_claim_failed", "required_claims = NULL"),
        ("algorithms = '{ES256}'", "algorithm_not_allowed", "algorithms = '{ES256,EdDSA}'"),
        ("accepted_typ = '{at+jwt}'", "typ_refused", "accepted_typ = NULL"),
        ("groups_claim = 'groups'", "groups_missing", "groups_claim = NULL"),
        ("identity_claim = 'upn'", "identity_invalid", "identity_claim = 'sub'"),
        ("max_token_age = '1 minute'", "lifetime_too_long", "max_token_age = '1 hour'"),
    ];
    for (there, refused, back) in changes {
        admin.rows(&format!("UPDATE oidc.provider SET {there} WHERE name = 'updated'"))?;
        assert_eq!(next_login(stage, "updated", &token)?, reason(refused), "{there}");
        admin.rows(&format!("UPDATE oidc.provider SET {back} WHERE name = 'updated'"))?;
        assert_eq!(next_login(stage, "updated", &token)?, None, "{back}");
    }
    admin.rows("DELETE FROM oidc.role_mapping WHERE provider = 'updated'")?;
    assert_eq!(next_login(stage, "updated", &token)?, reason("no_rule"));
    admin.rows("DELETE FROM oidc.provider WHERE name = 'updated'")?;
    assert_eq!(next_login(stage, "updated", &token)?, reason("issuer_unknown"));
    Ok(())
}

#[test]
fn lower_priority_then_lower_id_decides() -> Result<()> {
    let stage = without_rule("prior")?;
    let (admin, token) = (stage.admin()?, token("prior"));
    let rule = |priority: &str| -> Result<String> {
        let sql = rule_with("prior", &json!({ "sub": "prior" }), "prior", &[("priority", priority)]);
        Ok(admin.value(&sql)?.unwrap_or_default())
    };
    let decided = || -> Result<String> {
        let mark = stage.cluster.log_mark();
        stage.session("prior", &token)?;
        let line = stage.cluster.await_log_since(
            mark,
            "OIDC login accepted: role=\"prior\" ",
            crate::scene::SOON,
        )?;
        let (_, rule) = line.split_once(" rule=").unwrap_or_default();
        Ok(rule.split(' ').next().unwrap_or_default().to_owned())
    };
    let (first, second, third) = (rule("100")?, rule("100")?, rule("99")?);
    assert_eq!(decided()?, third, "the lowest priority");
    admin.rows(&format!("UPDATE oidc.role_mapping SET priority = 101 WHERE id = {third}"))?;
    assert_eq!(decided()?, first, "the lowest id of the same priority");
    admin.rows(&format!("UPDATE oidc.role_mapping SET priority = -1 WHERE id = {second}"))?;
    assert_eq!(decided()?, second, "a negative priority");
    admin.rows(&format!("UPDATE oidc.role_mapping SET databases = '{{elsewhere}}' WHERE id = {second}"))?;
    assert_eq!(decided()?, first, "the first that matches");
    Ok(())
}

#[test]
fn n137_truncate_counts() -> Result<()> {
    // Its own server: TRUNCATE takes the rules of all other tests with it.
    let stage = Stage::start()?;
    stage.trio("truncated")?;
    let (admin, token) = (stage.admin()?, token("truncated"));
    assert_eq!(next_login(&stage, "truncated", &token)?, None);
    admin.rows("BEGIN; TRUNCATE oidc.role_mapping; ROLLBACK")?;
    assert_eq!(next_login(&stage, "truncated", &token)?, None);
    admin.rows("TRUNCATE oidc.role_mapping")?;
    assert_eq!(next_login(&stage, "truncated", &token)?, reason("no_rule"));
    admin.rows("TRUNCATE oidc.provider CASCADE")?;
    assert_eq!(next_login(&stage, "truncated", &token)?, reason("issuer_unknown"));
    // DROP fires no trigger, and counts too.
    admin.rows("DROP EXTENSION pg_oidc")?;
    assert_eq!(next_login(&stage, "truncated", &token)?, reason("policy_absent"));
    admin.rows("CREATE EXTENSION pg_oidc")?;
    assert_eq!(next_login(&stage, "truncated", &token)?, reason("issuer_unknown"));
    stage.provider("truncated")?;
    admin.rows(&rule_sql("truncated", &json!({ "sub": "truncated" }), "truncated"))?;
    assert_eq!(next_login(&stage, "truncated", &token)?, None);
    Ok(())
}

#[test]
fn n137_change_as_a_replica_counts() -> Result<()> {
    let stage = without_rule("replica")?;
    let (admin, token) = (stage.admin()?, token("replica"));
    admin.rows("SET session_replication_role = replica")?;
    for number in 0..20 {
        admin.rows(&rule_sql("replica", &json!({ "sub": "replica" }), "replica"))?;
        assert_eq!(next_login(stage, "replica", &token)?, None, "login {number} after INSERT");
        admin.rows("DELETE FROM oidc.role_mapping WHERE provider = 'replica'")?;
        assert_eq!(next_login(stage, "replica", &token)?, reason("no_rule"), "login {number} after DELETE");
    }
    // The checks hold there too.
    let told = admin.error(&rule_sql("replica", &json!("no object"), "replica"))?;
    assert_eq!(told.message, "\"match\" must be a JSON object");
    Ok(())
}

#[test]
fn n137_change_cannot_be_prepared() -> Result<()> {
    let stage = without_rule("prepared")?;
    let (admin, token) = (stage.admin()?, token("prepared"));
    let insert = rule_sql("prepared", &json!({ "sub": "prepared" }), "prepared");
    let update = "UPDATE oidc.provider SET comment = 'x' WHERE name = 'prepared'";
    for change in [insert.as_str(), update, "TRUNCATE oidc.role_mapping"] {
        admin.rows("BEGIN")?;
        admin.rows(change)?;
        let told = admin.error("PREPARE TRANSACTION 'policy'")?;
        assert_eq!(told.message, "cannot prepare a transaction that changed the OIDC policy");
        assert_eq!(
            (told.code.as_str(), told.hint.as_deref()),
            ("0A000", Some("Commit it with COMMIT instead."))
        );
        admin.rows("ROLLBACK")?;
        assert_eq!(admin.value("SELECT count(*) FROM pg_prepared_xacts")?.as_deref(), Some("0"), "{change}");
    }
    assert_eq!(next_login(stage, "prepared", &token)?, reason("no_rule"));
    // Other transactions can be prepared, also in the same session.
    for statement in
        ["BEGIN", "CREATE TABLE other ()", "PREPARE TRANSACTION 'other'", "ROLLBACK PREPARED 'other'"]
    {
        admin.rows(statement)?;
    }
    admin.rows(&insert)?;
    assert_eq!(next_login(stage, "prepared", &token)?, None);
    Ok(())
}
