//! Rules that others than superusers write, and all that does not get them further than their ADMIN option.
//!
//! 1. With ADMIN on the role, directly or by a membership: INSERT, UPDATE, DELETE, COPY, ON CONFLICT, MERGE.
//! 2. Not with a grant on the table alone, ADMIN alone, membership alone, CREATEROLE, or because it is one's own role.
//! 3. Not rules of others, in whatever statement, old row or new.
//! 4. Not rules that deny, with `\1`, with `allow_privileged`, or of a role that does not exist.
//! 5. Not rules whose role was dropped and made anew, or renamed.
//! 6. No other table at all.
//! 7. The statements of the README.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::lead::{Lead, NO_ADMIN, NO_ADMIN_ON, refused};
use super::{next_login, reason, stage, token};
use crate::scene::{rule_sql, rule_with};

#[test]
fn admin_of_the_role_writes_its_rules() -> Result<()> {
    let lead = Lead::new("lead")?;
    let login = || next_login(stage(), "lead_team", &token("lead"));
    assert_eq!(login()?, reason("user_not_mapped"));
    let id = lead.own_rule()?;
    assert_eq!(login()?, None, "inserted");
    lead.session
        .rows(&format!("UPDATE oidc.role_mapping SET databases = '{{elsewhere}}' WHERE id = {id}"))?;
    assert_eq!(login()?, reason("user_not_mapped"), "updated");
    lead.session.rows(&format!("UPDATE oidc.role_mapping SET databases = NULL WHERE id = {id}"))?;
    assert_eq!(login()?, None, "updated back");
    // To another provider: she could insert it there as well.
    stage().provider("lead2")?;
    lead.session
        .rows(&format!("UPDATE oidc.role_mapping SET provider = 'lead2', id = -{id} WHERE id = {id}"))?;
    lead.session.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = -{id}"))?;
    assert_eq!(login()?, reason("user_not_mapped"), "deleted");

    // An oid that is given is ignored.
    let insert = rule_with("lead", &json!({ "sub": "lead" }), "lead_team", &[("role_oid", "10")]);
    let id = lead.session.value(&insert)?.unwrap_or_default();
    assert_eq!(login()?, None);
    lead.session.rows(&format!("UPDATE oidc.role_mapping SET role_oid = 10 WHERE id = {id}"))?;
    assert_eq!(login()?, None);
    let upsert = format!(
        "INSERT INTO oidc.role_mapping (id, provider, match, role) VALUES ({id}, 'lead', '{{}}', 'lead_team') \
         ON CONFLICT (id) DO UPDATE SET match = excluded.match RETURNING match"
    );
    assert_eq!(lead.session.value(&upsert)?.as_deref(), Some("{}"));
    let merge = format!(
        "MERGE INTO oidc.role_mapping m USING (VALUES ({id}), (-7)) v(id) ON m.id = v.id \
         WHEN MATCHED THEN DELETE \
         WHEN NOT MATCHED THEN INSERT (provider, match, role) VALUES ('lead', '{{\"sub\": \"lead\"}}', 'lead_team')"
    );
    lead.session.rows(&merge)?;
    assert_eq!(login()?, None, "merged");
    let copy =
        "COPY oidc.role_mapping (provider, match, role) FROM STDIN;\nlead\t{\"n\": 1}\tlead_team\n\\.\n";
    let seen = stage().login("lead", &token("lead")).run(copy)?;
    ensure!(seen.ok(), "{seen:?}");
    let rows = lead.session.rows("DELETE FROM oidc.role_mapping WHERE role = 'lead_team' RETURNING 1")?;
    assert_eq!(rows.len(), 2);
    Ok(())
}

#[test]
fn admin_counts_as_core_counts_it() -> Result<()> {
    let lead = Lead::new("counted")?;
    let admin = stage().admin()?;
    admin.rows(
        "CREATE ROLE counted_group; CREATE ROLE counted_far LOGIN; CREATE ROLE counted_mid NOINHERIT",
    )?;
    let insert = rule_sql("counted", &json!({ "far": true }), "counted_far");
    lead.refused(&insert, NO_ADMIN_ON)?;
    // A plain member is no admin.
    admin.rows("GRANT counted_far TO counted")?;
    lead.refused(&insert, NO_ADMIN_ON)?;
    admin.rows("REVOKE counted_far FROM counted")?;
    // By two memberships, one of a role that does not inherit.
    admin.rows("GRANT counted_far TO counted_group WITH ADMIN OPTION; GRANT counted_group TO counted_mid")?;
    lead.refused(&insert, NO_ADMIN_ON)?;
    admin.rows("GRANT counted_mid TO counted")?;
    lead.session.rows(&insert)?;
    admin.rows("REVOKE ADMIN OPTION FOR counted_far FROM counted_group")?;
    lead.refused("DELETE FROM oidc.role_mapping WHERE role = 'counted_far'", NO_ADMIN)
}

#[test]
fn grant_or_admin_alone_is_not_enough() -> Result<()> {
    let lead = Lead::new("alone")?;
    let admin = stage().admin()?;
    // Her own role: on 15 core calls the session user its own admin.
    lead.refused(&rule_sql("alone", &json!({}), "alone"), NO_ADMIN_ON)?;
    lead.refused("UPDATE oidc.role_mapping SET match = '{}' WHERE role = 'alone'", NO_ADMIN)?;
    lead.refused(&rule_sql("alone", &json!({}), "postgres"), NO_ADMIN_ON)?;
    // CREATEROLE may grant the role to anybody, but has not.
    admin.rows("ALTER ROLE alone CREATEROLE")?;
    lead.refused(&rule_sql("alone", &json!({}), "alone_other"), NO_ADMIN_ON)?;
    admin.rows("ALTER ROLE alone NOCREATEROLE; GRANT pg_write_all_data TO alone")?;
    lead.refused(&rule_sql("alone", &json!({}), "alone_other"), NO_ADMIN_ON)?;
    lead.own_rule()?;
    // ADMIN without the grant, or with a grant of other columns.
    admin
        .rows("REVOKE pg_write_all_data FROM alone; REVOKE INSERT, UPDATE ON oidc.role_mapping FROM alone")?;
    let insert = rule_sql("alone", &json!({}), "alone_team");
    assert_eq!(lead.session.error(&insert)?.code, "42501");
    admin.rows("GRANT INSERT (provider, match, role), UPDATE (comment) ON oidc.role_mapping TO alone")?;
    lead.session.rows(&insert)?;
    lead.session.rows("UPDATE oidc.role_mapping SET comment = 'x' WHERE role = 'alone_team'")?;
    lead.refused("UPDATE oidc.role_mapping SET comment = 'x' WHERE role = 'alone_other'", NO_ADMIN)?;
    let told = lead.session.error("UPDATE oidc.role_mapping SET role = 'alone' WHERE role = 'alone_team'")?;
    assert_eq!(told.message, "permission denied for table role_mapping");
    Ok(())
}

#[test]
fn rules_of_others_stay_as_they_are() -> Result<()> {
    let lead = Lead::new("theirs")?;
    let (own, theirs) = (lead.own_rule()?, lead.others.clone());
    stage().provider("theirs2")?;
    for change in [
        "comment = 'x'",
        "enabled = false",
        "role = 'theirs_team'",
        "id = -5",
        "provider = 'theirs2'",
        "match = '{}'",
        "priority = priority",
        "effect = 'deny', role = NULL",
    ] {
        lead.refused(&format!("UPDATE oidc.role_mapping SET {change} WHERE id = {theirs}"), NO_ADMIN)?;
    }
    for sql in [
        format!("DELETE FROM oidc.role_mapping WHERE id = {theirs}"),
        "DELETE FROM oidc.role_mapping WHERE provider = 'theirs'".to_owned(),
        format!(
            "INSERT INTO oidc.role_mapping (id, provider, match, role) VALUES ({theirs}, 'theirs', '{{}}', 'theirs_team') \
             ON CONFLICT (id) DO UPDATE SET match = excluded.match"
        ),
        format!(
            "MERGE INTO oidc.role_mapping m USING (SELECT 1) one ON m.id = {theirs} WHEN MATCHED THEN DELETE"
        ),
        format!(
            "MERGE INTO oidc.role_mapping m USING (SELECT 1) one ON m.id = {theirs} \
             WHEN MATCHED THEN UPDATE SET role = 'theirs_team'"
        ),
        format!(
            "DO $$DECLARE c CURSOR FOR SELECT * FROM oidc.role_mapping WHERE id = {theirs} FOR UPDATE; r record; \
             BEGIN OPEN c; FETCH c INTO r; DELETE FROM oidc.role_mapping WHERE CURRENT OF c; END$$"
        ),
        format!(
            "WITH gone AS (DELETE FROM oidc.role_mapping WHERE id = {theirs} RETURNING 1) SELECT * FROM gone"
        ),
    ] {
        lead.refused(&sql, NO_ADMIN)?;
    }
    // One's own row does not become one for a role of others.
    lead.refused(
        &format!("UPDATE oidc.role_mapping SET role = 'theirs_other' WHERE id = {own}"),
        NO_ADMIN_ON,
    )?;
    let copy = "COPY oidc.role_mapping (provider, match, role) FROM STDIN;\ntheirs\t{}\ttheirs_other\n\\.\n";
    let seen = stage().login("theirs", &token("theirs")).run(copy)?;
    ensure!(seen.stderr.contains("permission denied to change the OIDC policy"), "{seen:?}");
    // A function of somebody who may, called by somebody who may not, writes with its owner's rights; and the other way.
    let admin = stage().admin()?;
    admin.rows(
        "CREATE FUNCTION theirs_touch(rule bigint) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog \
         AS 'UPDATE oidc.role_mapping SET comment = session_user WHERE id = rule'; \
         ALTER FUNCTION theirs_touch(bigint) OWNER TO theirs; \
         CREATE ROLE theirs_guest; GRANT theirs_guest TO theirs; GRANT USAGE ON SCHEMA oidc TO theirs_guest; \
         GRANT ALL ON oidc.role_mapping TO theirs_guest"
    )?;
    let called = |rule: &str| format!("SELECT theirs_touch({rule})");
    refused(&admin, "theirs", &called(&theirs), NO_ADMIN)?;
    lead.session.rows("SET ROLE theirs_guest")?;
    lead.refused(&format!("DELETE FROM oidc.role_mapping WHERE id = {own}"), NO_ADMIN)?;
    lead.session.rows(&called(&own))?;
    lead.session.rows("RESET ROLE")?;
    // A superuser who took the role on has only its rights.
    admin.rows("SET ROLE theirs")?;
    refused(&admin, "theirs", &format!("DELETE FROM oidc.role_mapping WHERE id = {theirs}"), NO_ADMIN)?;
    admin.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {own}")).map(drop)
}

#[test]
fn rules_that_only_superusers_write() -> Result<()> {
    let lead = Lead::new("kinds")?;
    let own = lead.own_rule()?;
    let derived: [(&str, &str); 2] = [("role", "'kinds_\\1'"), ("match", "'{\"g\": {\"regex\": \"(.+)\"}}'")];
    let kinds: [(&[(&str, &str)], &str); 3] = [
        (&derived, "takes its role from the token (\"\\1\")"),
        (&[("effect", "'deny'"), ("role", "NULL")], "does not allow but denies"),
        (&[("allow_privileged", "true")], "sets \"allow_privileged\""),
    ];
    let admin = stage().admin()?;
    for (columns, detail) in kinds {
        // The admin of the role `kinds_\1` is not the admin of the roles that it stands for.
        lead.refused(&rule_with("kinds", &json!({}), "kinds_team", columns), detail)?;
        let set: Vec<String> = columns.iter().map(|(column, value)| format!("{column} = {value}")).collect();
        lead.refused(&format!("UPDATE oidc.role_mapping SET {} WHERE id = {own}", set.join(", ")), detail)?;
        let insert = rule_with("kinds", &json!({ "never": 1 }), "kinds_team", columns);
        let id = admin.value(&insert)?.unwrap_or_default();
        lead.refused(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"), detail)?;
        lead.refused(&format!("UPDATE oidc.role_mapping SET comment = 'x' WHERE id = {id}"), detail)?;
        let tame = format!(
            "UPDATE oidc.role_mapping SET effect = 'allow', role = 'kinds_team', allow_privileged = false WHERE id = {id}"
        );
        lead.refused(&tame, detail)?;
        let kept = format!(
            "SELECT role_oid IS NULL OR role_oid = 'kinds_team'::regrole FROM oidc.role_mapping WHERE id = {id}"
        );
        assert_eq!(admin.value(&kept)?.as_deref(), Some("t"), "{detail}");
    }
    // What a deny rule and `\1` keep beside the role is nothing.
    let none = "SELECT count(*) FROM oidc.role_mapping WHERE provider = 'kinds' AND role_oid IS NULL";
    assert_eq!(admin.value(none)?.as_deref(), Some("2"));

    // A role that does not exist: a warning for a superuser, an error for others.
    let missing = rule_sql("kinds", &json!({ "m": 1 }), "kinds_missing");
    let told = lead.session.error(&missing)?;
    assert_eq!(
        (told.code.as_str(), told.message.as_str()),
        ("42704", "role \"kinds_missing\" does not exist")
    );
    let id = admin.value(&missing)?.unwrap_or_default();
    let gone = "does not exist by that name any more";
    lead.refused(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"), gone)?;
    let warned = stage().cluster.login("postgres").way(pg_oidc_test::psql::Way::Socket).run(&missing)?;
    ensure!(
        warned.ok() && warned.stderr.contains("WARNING:  role \"kinds_missing\" does not exist"),
        "{warned:?}"
    );
    let quiet = rule_with("kinds", &json!({ "m": 2 }), "x", &derived);
    let quiet = stage().cluster.login("postgres").way(pg_oidc_test::psql::Way::Socket).run(&quiet)?;
    ensure!(quiet.ok() && quiet.stderr.is_empty(), "{quiet:?}");
    Ok(())
}

#[test]
fn n108_rules_of_roles_made_anew_or_renamed() -> Result<()> {
    let lead = Lead::new("anew")?;
    let login = |role: &str| next_login(stage(), role, &token("anew"));
    let id = lead.own_rule()?;
    assert_eq!(login("anew_team")?, None);
    let admin = stage().admin()?;
    admin.rows(
        "DROP ROLE anew_team; CREATE ROLE anew_team LOGIN; GRANT anew_team TO anew WITH ADMIN OPTION",
    )?;
    assert_eq!(login("anew_team")?, reason("role_replaced"));
    let gone = "does not exist by that name any more";
    lead.refused(&format!("UPDATE oidc.role_mapping SET comment = 'mine' WHERE id = {id}"), gone)?;
    lead.refused(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}"), gone)?;
    assert_eq!(login("anew_team")?, reason("role_replaced"));
    lead.own_rule()?;
    assert_eq!(login("anew_team")?, None, "a rule for the role of today");
    lead.session.rows(&format!("DELETE FROM oidc.role_mapping WHERE role = 'anew_team' AND id <> {id}"))?;
    // Another role gets the name; the one that the rule was written for goes on under another.
    admin.rows("ALTER ROLE anew_team RENAME TO anew_first")?;
    lead.own_rule().map_or(Ok(()), |_| anyhow::bail!("there is no role of that name"))?;
    admin.rows("ALTER ROLE anew_other RENAME TO anew_team; GRANT anew_team TO anew WITH ADMIN OPTION")?;
    lead.refused(&format!("UPDATE oidc.role_mapping SET comment = 'mine' WHERE id = {}", lead.others), gone)?;
    assert_eq!(login("anew_team")?, reason("role_replaced"));
    // A superuser's word brings it back.
    admin.rows(&format!("UPDATE oidc.role_mapping SET comment = 'checked' WHERE id = {id}"))?;
    assert_eq!(login("anew_team")?, None);
    lead.session.rows(&format!("DELETE FROM oidc.role_mapping WHERE id = {id}")).map(drop)
}

#[test]
fn other_tables_are_for_superusers() -> Result<()> {
    let lead = Lead::new("tables")?;
    let own = lead.own_rule()?;
    let admin = stage().admin()?;
    let list = "SELECT relname FROM pg_class WHERE relnamespace = 'oidc'::regnamespace AND relkind = 'r'";
    let tables: Vec<String> = admin.rows(list)?.into_iter().flatten().flatten().collect();
    ensure!(tables.len() >= 8, "{tables:?}");
    for grant in ["GRANT ALL ON ALL TABLES IN SCHEMA oidc TO tables", "GRANT pg_write_all_data TO tables"] {
        admin.rows("REVOKE ALL ON ALL TABLES IN SCHEMA oidc FROM tables")?;
        admin.rows(grant)?;
        let inserts = [
            ("provider", "(name, issuer, audiences) VALUES ('tables2', 'https://tables2.example', '{a}')"),
            ("revocation", "(provider, subject) VALUES ('tables', 'x')"),
            ("identity_role", "(provider, subject, role) VALUES ('tables', 'x', 'tables_team')"),
            ("granted_membership", "(role, member) VALUES ('tables_team', 'tables')"),
            (
                "jwks_cache",
                "(provider, body, fetched_at, fresh_until) VALUES ('tables', '{}', now(), 'infinity')",
            ),
            ("policy_state", "(generation) VALUES (1)"),
            ("audit_log", "(event, outcome) VALUES ('rule_deleted', 'done')"),
        ];
        for (table, row) in inserts {
            let detail = format!("Only superusers may change \"oidc.{table}\".");
            lead.refused(&format!("INSERT INTO oidc.{table} {row}"), &detail)?;
        }
        for table in ["provider", "policy_state", "audit_log"] {
            let detail = format!("Only superusers may change \"oidc.{table}\".");
            lead.refused(&format!("DELETE FROM oidc.{table}"), &detail)?;
        }
        lead.refused(
            "UPDATE oidc.provider SET enabled = false",
            "Only superusers may change \"oidc.provider\".",
        )?;
        lead.refused("UPDATE oidc.policy_state SET generation = 0", "Only superusers")?;
        lead.refused("UPDATE oidc.audit_log SET \"current_user\" = 'x'", "Only superusers")?;
    }
    admin.rows("GRANT ALL ON ALL TABLES IN SCHEMA oidc TO tables")?;
    for table in tables {
        lead.refused(&format!("TRUNCATE oidc.{table} CASCADE"), "Only superusers may truncate")?;
    }
    admin
        .rows("REVOKE ALL ON ALL TABLES IN SCHEMA oidc FROM tables; REVOKE pg_write_all_data FROM tables")?;
    assert_eq!(next_login(stage(), "tables_team", &token("tables"))?, None, "rule {own} is as it was");
    Ok(())
}

#[test]
fn what_the_readme_grants() -> Result<()> {
    let readme = std::fs::read_to_string(pg_oidc_test::workspace().join("README.md"))?;
    let marker = "<!-- run by pg_test/tests/login/policy/rule_rights.rs -->";
    let section = readme.split_once(marker).context("no blocks to run")?.1;
    let mut blocks = section.split("```sql\n").skip(1).filter_map(|block| block.split("```").next());
    let (grants, review) = (blocks.next().context("no grants")?, blocks.next().context("no review")?);
    stage().trio("analytics_read")?;
    let admin = stage().admin()?;
    admin.rows(grants)?;
    admin.rows(&rule_sql("analytics_read", &json!({ "sub": "boss" }), "finance_lead"))?;
    let boss = crate::scene::good("analytics_read").claim("sub", json!("boss"));
    let session = stage().session("finance_lead", &super::signed(&boss))?;
    session.rows(&rule_sql("analytics_read", &json!({ "sub": "new" }), "analytics_read"))?;
    refused(
        &session,
        "analytics_read",
        &rule_sql("analytics_read", &json!({}), "finance_lead"),
        NO_ADMIN_ON,
    )?;
    let rows = admin.rows(review)?;
    let last = rows.last().context("no event")?;
    ensure!(last.iter().flatten().any(|value| value == "finance_lead"), "{last:?}");
    ensure!(last.iter().flatten().any(|value| value == "rule_created"), "{last:?}");
    ensure!(last.iter().flatten().any(|value| value == "{\"sub\": \"new\"}"), "{last:?}");
    Ok(())
}
