//! The checks of the tables, the providers and their keys, and of sizes against limits.

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{DISCOVERY, Issuer};
use pg_oidc_test::keys::{jwks, keys};
use serde_json::json;

use super::{findings, finds, provoked, well};
use crate::scene::{SOON, provider_sql, rule_with, text};

#[test]
fn triggers() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let always = "ALTER TABLE oidc.role_mapping ENABLE ALWAYS TRIGGER check_row";
    for state in ["DISABLE", "ENABLE", "ENABLE REPLICA"] {
        provoked(
            &admin,
            &format!("ALTER TABLE oidc.role_mapping {state} TRIGGER check_row"),
            always,
            &["table_triggers fail: Trigger \"check_row\" of table oidc.role_mapping is not enabled ALWAYS."],
        )?;
    }
    provoked(
        &admin,
        "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         CREATE TRIGGER mine BEFORE INSERT ON oidc.provider FOR EACH ROW EXECUTE FUNCTION mine()",
        "DROP TRIGGER mine ON oidc.provider",
        &["table_triggers fail: Trigger \"mine\" of table oidc.provider is not of the extension."],
    )?;
    // One of the same name does not do.
    provoked(
        &admin,
        "DROP TRIGGER policy_changed ON oidc.provider",
        "CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON oidc.provider \
             FOR EACH ROW EXECUTE FUNCTION oidc.policy_changed(); \
         ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER policy_changed",
        &["table_triggers fail: Table oidc.provider has no trigger \"policy_changed\" of the extension."],
    )
}

#[test]
fn every_trigger_is_missed() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let triggers = admin.rows(
        "SELECT tgrelid::regclass, tgname FROM pg_trigger \
          WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'oidc.%'",
    )?;
    ensure!(triggers.len() > 20, "{triggers:?}");
    for trigger in triggers {
        let [Some(table), Some(name)] = trigger.as_slice() else { anyhow::bail!("{trigger:?}") };
        admin.rows(&format!("BEGIN; DROP TRIGGER {name} ON {table}"))?;
        let found = admin.rows("SELECT detail FROM oidc.doctor_tables() WHERE status <> 'ok'")?;
        let missed = format!("Table {table} has no trigger \"{name}\" of the extension.");
        assert_eq!(found, [[Some(missed)]]);
        admin.rows("ROLLBACK")?;
    }
    finds(&admin, &[])
}

#[test]
fn owners_and_what_is_attached() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    provoked(
        &admin,
        "ALTER TABLE oidc.provider OWNER TO main",
        "ALTER TABLE oidc.provider OWNER TO postgres",
        &[
            "table_owners fail: oidc.provider belongs to role \"main\", not to the owner of the extension, \"postgres\".",
        ],
    )?;
    provoked(
        &admin,
        "CREATE TABLE child () INHERITS (oidc.role_mapping)",
        "DROP TABLE child",
        &[
            "table_owners fail: oidc.role_mapping has the child table public.child, whose rows count as rules of the policy.",
        ],
    )?;
    provoked(
        &admin,
        "CREATE RULE nothing AS ON DELETE TO oidc.revocation DO INSTEAD NOTHING",
        "DROP RULE nothing ON oidc.revocation",
        &["table_owners fail: oidc.revocation has the rewrite rule \"nothing\"."],
    )
}

#[test]
fn rights_of_public() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let cases = [
        ("SELECT ON oidc.role_mapping", "PUBLIC has SELECT on oidc.role_mapping."),
        ("USAGE ON SEQUENCE oidc.role_mapping_id_seq", "PUBLIC has USAGE on oidc.role_mapping_id_seq."),
        (
            "SELECT (match) ON oidc.role_mapping",
            "PUBLIC has SELECT on column \"match\" of oidc.role_mapping.",
        ),
        ("CREATE ON SCHEMA oidc", "PUBLIC has CREATE on schema oidc."),
        ("EXECUTE ON FUNCTION oidc.refresh_keys(text)", "PUBLIC has EXECUTE on oidc.refresh_keys(text)."),
    ];
    for (right, found) in cases {
        let (give, take) = (format!("GRANT {right} TO PUBLIC"), format!("REVOKE {right} FROM PUBLIC"));
        provoked(&admin, &give, &take, &[&format!("public_rights fail: {found}")])?;
    }
    // What is granted to a role is the administrator's decision.
    admin.rows("GRANT SELECT ON oidc.role_mapping TO main")?;
    finds(&admin, &[])
}

#[test]
fn numbers_against_limits() -> Result<()> {
    let stage = well(|builder| {
        // Publishing this many takes its time on a busy machine.
        builder.setting("pg_oidc.shared_memory", "128MB").setting("pg_oidc.wait_timeout", "30s")
    })?;
    let admin = stage.admin()?;
    let patterns = |from: u32, to: u32| {
        admin.rows(&format!(
            "INSERT INTO oidc.role_mapping (provider, match, role) \
             SELECT 'main', jsonb_build_object('groups', jsonb_build_object('glob', 'team-' || n || '-*')), 'main' \
               FROM generate_series({from}, {to}) n"
        ))
    };
    // A claim or a value of that name is no pattern.
    admin.rows(&rule_with("main", &json!({ "regex": "a", "glob": "b", "x": "\"regex\": " }), "main", &[]))?;
    patterns(1, 799)?;
    finds(&admin, &[])?;
    patterns(800, 800)?;
    let found = "There are 800 enabled rules with a regex or glob, and at most 1000 are possible.";
    finds(&admin, &[&format!("pattern_rules warn: {found}")])?;
    patterns(801, 1001)?;
    let over =
        "policy_published fail: The policy is over a limit and is not published: every token is refused.";
    let found = "There are 1001 enabled rules with a regex or glob, and at most 1000 are possible: every token is refused.";
    finds(&admin, &[over, &format!("pattern_rules fail: {found}")])?;
    // Disabled ones do not count.
    admin.rows("UPDATE oidc.role_mapping SET enabled = false WHERE match::text LIKE '%glob%team%'")?;
    finds(&admin, &[])?;

    let set = text(&jwks(&[&keys().ed25519]));
    let providers = |from: u32, to: u32| {
        admin.rows(&format!(
            "INSERT INTO oidc.provider (name, issuer, audiences, jwks, enabled) \
             SELECT 'p' || n, 'https://p' || n || '.example', '{{x}}', {set}, false FROM generate_series({from}, {to}) n"
        ))
    };
    providers(1, 798)?;
    finds(&admin, &[])?;
    providers(799, 799)?;
    finds(&admin, &["provider_count warn: There are 800 providers, and at most 1000 are possible."])?;
    providers(800, 1000)?;
    let many = "provider_count fail: There are 1001 providers, and at most 1000 are possible: every token is refused.";
    finds(&admin, &[over, many])?;
    admin.rows(
        "DELETE FROM oidc.provider WHERE name <> 'main'; DELETE FROM oidc.role_mapping WHERE id <> 1",
    )?;
    finds(&admin, &[])?;

    let rules = |from: u32, to: u32| {
        admin.rows(&format!(
            "INSERT INTO oidc.role_mapping (provider, match, role) \
             SELECT 'main', jsonb_build_object('groups', 'group-' || n), 'main' FROM generate_series({from}, {to}) n"
        ))
    };
    rules(1, 79_998)?;
    finds(&admin, &[])?;
    rules(79_999, 79_999)?;
    finds(&admin, &["rule_count warn: There are 80000 enabled rules, and at most 100000 are possible."])?;
    rules(80_000, 100_000)?;
    let many = "rule_count fail: There are 100001 enabled rules, and at most 100000 are possible: every token is refused.";
    finds(&admin, &[over, many])
}

#[test]
fn a_provider_that_does_not_compile() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let found = "provider_rows fail: Provider \"main\" does not compile, its tokens are refused: ";
    admin.rows(
        "ALTER TABLE oidc.provider DISABLE TRIGGER check_row, DISABLE TRIGGER check_stored_row; \
         UPDATE oidc.provider SET audiences = '{}'; \
         ALTER TABLE oidc.provider ENABLE ALWAYS TRIGGER check_row, ENABLE ALWAYS TRIGGER check_stored_row",
    )?;
    let said = findings(&admin)?;
    ensure!(said.iter().any(|said| said.starts_with(found)), "{said:?}");
    admin.rows("UPDATE oidc.provider SET audiences = '{x}'")?;
    until("its keys are back", SOON, || Ok(findings(&admin)?.is_empty()))
}

#[test]
fn providers_and_rules_that_do_nothing() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let none =
        "provider_use warn: Provider \"main\" has no enabled rule that allows: its tokens are all refused.";
    provoked(
        &admin,
        "UPDATE oidc.role_mapping SET enabled = false",
        "UPDATE oidc.role_mapping SET enabled = true",
        &[none],
    )?;
    provoked(
        &admin,
        "UPDATE oidc.provider SET enabled = false",
        "UPDATE oidc.provider SET enabled = true",
        &["provider_use warn: Provider \"main\" is disabled: its 1 enabled rules do nothing."],
    )?;
    // Off with all that belongs to it: that is meant so.
    admin.rows("UPDATE oidc.provider SET enabled = false; UPDATE oidc.role_mapping SET enabled = false")?;
    finds(&admin, &[])
}

#[test]
fn n113_identity_claims_that_change() -> Result<()> {
    let stage = well(|builder| builder)?;
    let admin = stage.admin()?;
    let set = |claim: &str| format!("UPDATE oidc.provider SET identity_claim = '{claim}'");
    for claim in ["name", "preferred_username", "email", "upn", "unique_name", "nickname", "/email"] {
        let found = format!(
            "identity_claims warn: Provider \"main\" takes the identity from \"{claim}\", which can change, or \
             pass to somebody else."
        );
        provoked(&admin, &set(claim), &set("sub"), &[&found])?;
    }
    for claim in ["oid", "/kubernetes.io/serviceaccount/uid", "employee_name", "/act/sub"] {
        admin.rows(&set(claim))?;
        finds(&admin, &[])?;
    }
    Ok(())
}

#[test]
fn keys_that_are_not_to_be_had() -> Result<()> {
    let stage = well(|builder| builder.setting("pg_oidc.allow_http", "on"))?;
    let http = "allow_http warn: Keys of issuers on the loopback interface may be fetched without TLS.";
    let admin = stage.admin()?;
    let issuer = Issuer::start()?;
    issuer.set_jwks(jwks(&[&keys().ec]));
    issuer.refuse();
    let url = issuer.url();
    admin.rows(&provider_sql("down", &url, &[]))?;
    admin.rows(&rule_with("down", &json!({ "sub": "x" }), "main", &[]))?;
    let plain = format!("plain_http warn: The keys of provider \"down\" are fetched without TLS from {url}.");
    until("the first attempt has failed", SOON, || {
        let found = findings(&admin)?;
        let keys = "provider_keys fail: Provider \"down\" has no usable key: ";
        Ok(matches!(&found[..], [one, two, three] if one == http && *two == plain && three.starts_with(keys)))
    })?;
    issuer.accept()?;
    admin.rows("SELECT oidc.refresh_keys('down')")?;
    until("keys are there", SOON, || Ok(findings(&admin)? == [http, &plain]))?;

    // Down again: the keys of before serve, and the doctor says until when.
    issuer.refuse();
    admin.rows("SELECT oidc.refresh_keys('down')")?;
    let failed = "key_fetches warn: The last fetch for provider \"down\" failed; its keys serve until ";
    until("the next fetch has failed", SOON, || {
        let found = findings(&admin)?;
        Ok(
            matches!(&found[..], [one, two, three] if one == http && *two == plain && three.starts_with(failed)),
        )
    })?;
    // A set without a usable key.
    issuer.accept()?;
    issuer.set_jwks(json!({ "keys": [] }));
    admin.rows("UPDATE oidc.provider SET jwks_uri = issuer || '/elsewhere' WHERE name = 'down'")?;
    issuer.set("/elsewhere", json!({ "keys": [] }));
    until("there is no key", SOON, || {
        admin.rows("SELECT oidc.refresh_keys('down')")?;
        Ok(findings(&admin)?.iter().any(|found| found.starts_with("provider_keys fail: Provider \"down\"")))
    })?;
    ensure!(issuer.count(DISCOVERY) > 0, "it was asked");
    Ok(())
}

#[test]
fn keys_that_grow_old() -> Result<()> {
    let stage = well(|builder| builder.setting("pg_oidc.allow_http", "on"))?;
    let http = "allow_http warn: Keys of issuers on the loopback interface may be fetched without TLS.";
    let issuer = Issuer::start()?;
    issuer.set_jwks(jwks(&[&keys().ec]));
    let admin = stage.admin()?;
    admin.rows(&provider_sql("old", &issuer.url(), &[]))?;
    admin.rows(&rule_with("old", &json!({ "sub": "x" }), "main", &[]))?;
    let kept = "SELECT count(*) FROM oidc.jwks_cache WHERE provider = 'old'";
    until("its keys are kept", SOON, || Ok(admin.value(kept)?.as_deref() == Some("1")))?;
    let plain = format!(
        "plain_http warn: The keys of provider \"old\" are fetched without TLS from {}.",
        issuer.url()
    );
    finds(&admin, &[http, &plain])?;

    // Keys are fetched every five minutes where the issuer does not say how long they live.
    admin.rows("UPDATE oidc.provider SET max_stale = '61 s' WHERE name = 'old'")?;
    let early = "key_fetches warn: The keys of provider \"old\" serve until ";
    until("it is said", SOON, || Ok(findings(&admin)?.iter().any(|found| found.starts_with(early))))?;

    issuer.refuse();
    admin.rows(
        "UPDATE oidc.jwks_cache SET fetched_at = fetched_at - interval '2 h'; \
         UPDATE oidc.provider SET max_stale = '1 h' WHERE name = 'old'",
    )?;
    drop(admin);
    stage.cluster.restart()?;
    let admin = stage.admin()?;
    let old = "provider_keys fail: The keys of provider \"old\" were last fetched at ";
    until("it is said", SOON, || Ok(findings(&admin)?.iter().any(|found| found.starts_with(old))))?;
    issuer.accept()?;
    admin.rows("SELECT oidc.refresh_keys('old')")?;
    until("keys are fresh", SOON, || Ok(findings(&admin)? == [http, &plain]))
}
