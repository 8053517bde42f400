//! The policy as one document: exported, reviewed, applied. One server, whose whole policy each test has to itself.
//!
//! 1. What the document says: [`form`]. At random: [`random`].
//! 2. The differences are rows: created, changed, deleted. What is the same is not touched.
//! 3. A dry run gives the rows and the errors of a real one, and changes nothing. Both count, or do not, at the next
//!    login.
//! 4. A provider may be renamed, two may change places; who is still referred to is not deleted.
//! 5. Bindings follow the document where they are a person's own, and are left alone where they are not.
//! 6. What is wrong is refused as a whole, and the place is named: [`wrong`].
//! 7. Who may, and who waits: [`others`] (n127, n128).

mod form;
mod others;
mod random;
mod wrong;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use pg_oidc_test::client::Session;
use serde_json::{Value, json};

use crate::scene::{Stage, good, issuer, rule_sql, text};

/// The server, with a policy that is empty and the roles `analyst` and `reader`.
fn stage() -> Result<MutexGuard<'static, Stage>> {
    static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(|| {
        let stage = Stage::with(|builder| builder.setting("lock_timeout", "60s"));
        let stage = stage.expect("the server of the document tests");
        stage.cluster.admin("CREATE ROLE analyst LOGIN; CREATE ROLE reader LOGIN").expect("roles");
        Mutex::new(stage)
    });
    let stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    stage.admin()?.rows("DELETE FROM oidc.role_mapping; DELETE FROM oidc.provider")?;
    Ok(stage)
}

/// One difference: action, object, before, after.
#[derive(Debug, Clone, PartialEq)]
struct Difference {
    action: String,
    object: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// The call that applies a document.
fn applying(document: &Value, dry_run: bool) -> String {
    format!("SELECT * FROM oidc.apply_policy({}, {dry_run})", text(document))
}

fn differences(session: &Session, call: &str) -> Result<Vec<Difference>> {
    let json = |text: Option<&String>| text.map(|text| serde_json::from_str(text)).transpose();
    let row = |row: Vec<Option<String>>| -> Result<Difference> {
        let [Some(action), Some(object), before, after] = row.as_slice() else {
            anyhow::bail!("{row:?}");
        };
        let (before, after) = (json(before.as_ref())?, json(after.as_ref())?);
        Ok(Difference { action: action.clone(), object: object.clone(), before, after })
    };
    session.rows(call)?.into_iter().map(row).collect()
}

fn apply(session: &Session, document: &Value) -> Result<Vec<Difference>> {
    differences(session, &applying(document, false))
}

/// As text, so that 1.50 is not 1.5.
fn exported(session: &Session) -> Result<String> {
    session.value("SELECT oidc.export_policy()")?.context("nothing exported")
}

fn document(providers: &[Value], rules: &[Value]) -> Value {
    json!({ "providers": providers, "rules": rules, "bindings": [] })
}

/// A provider with nothing but what it must have.
fn provider(name: &str) -> Value {
    json!({ "name": name, "issuer": issuer(name), "audiences": ["warehouse"] })
}

/// A rule for a subject of the provider's name.
fn rule(provider: &str, role: &str) -> Value {
    json!({ "provider": provider, "match": { "sub": provider }, "role": role })
}

/// The element with further members.
fn with(mut element: Value, members: &Value) -> Value {
    for (name, value) in members.as_object().into_iter().flatten() {
        element[name] = value.clone();
    }
    element
}

/// All that a text column must carry.
const AWKWARD: [&str; 8] = [
    "it's \"quoted\" and \\ and \\n",
    "$$ $body$ %s %I :x ?",
    "two\nlines\tand a tab\r",
    "{a,\"b\",NULL}",
    "null",
    "größe ⅞ \u{1f511} \u{202e}",
    "'; DROP TABLE oidc.provider; --",
    "",
];

#[test]
fn differences_are_rows_and_the_rest_is_not_touched() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    let (one, two) = (with(rule("a", "analyst"), &json!({ "comment": "one" })), rule("a", "analyst"));
    let reader = with(rule("b", "reader"), &json!({ "priority": 5 }));
    apply(
        &admin,
        &document(
            &[provider("a"), provider("b"), provider("c")],
            &[one.clone(), two.clone(), two.clone(), reader.clone()],
        ),
    )?;
    let rows = "SELECT 'provider', name, xmin, ctid FROM oidc.provider \
                UNION ALL SELECT 'rule', id::text, xmin, ctid FROM oidc.role_mapping ORDER BY 1, 2";
    let before = admin.rows(rows)?;

    let changed = with(provider("b"), &json!({ "clock_skew": "00:01:00", "comment": "slow clock" }));
    let renamed = with(one.clone(), &json!({ "comment": "uno" }));
    let denial = json!({ "provider": "a", "match": { "sub": "x" }, "effect": "deny" });
    let wanted = document(
        &[changed.clone(), provider("d"), provider("a")],
        &[two.clone(), denial.clone(), reader, renamed.clone()],
    );
    let difference = |action: &str, object: &str, before: Option<&Value>, after: Option<&Value>| Difference {
        action: action.to_owned(),
        object: object.to_owned(),
        before: before.cloned(),
        after: after.cloned(),
    };
    let expected = [
        difference("delete", "rule of a: sub is \"a\"", Some(&two), None),
        difference("delete", "provider c", Some(&provider("c")), None),
        difference("change", "provider b", Some(&provider("b")), Some(&changed)),
        difference("create", "provider d", None, Some(&provider("d"))),
        difference("change", "rule of a: sub is \"a\"", Some(&one), Some(&renamed)),
        difference("create", "rule of a: sub is \"x\"", None, Some(&denial)),
    ];
    assert_eq!(differences(&admin, &applying(&wanted, true))?, expected);
    assert_eq!(admin.rows(rows)?, before, "a dry run");
    assert_eq!(apply(&admin, &wanted)?, expected);
    let after = admin.rows(rows)?;
    let kept = before.iter().filter(|row| after.contains(row)).count();
    // Provider a, one rule of a, the rule of b.
    assert_eq!((kept, before.len(), after.len()), (3, 7, 7), "{before:?}\n{after:?}");
    assert_eq!(apply(&admin, &wanted)?, []);
    assert_eq!(admin.rows(rows)?, after, "nothing to do");
    Ok(())
}

#[test]
fn dry_run_changes_nothing_and_a_real_one_counts() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    stage.provider("counts")?;
    let token = good("counts").sign(&pg_oidc_test::keys::keys().ec);
    let mut without: Value = serde_json::from_str(&exported(&admin)?)?;
    let mut wanted = without.clone();
    wanted["rules"] = json!([rule("counts", "analyst")]);
    let (dry, real) = (applying(&wanted, true), applying(&wanted, false));
    let (dry_away, away) = (applying(&without, true), applying(&without, false));
    let refused = |about: &str| stage.refused("analyst", &token, "no_rule", about);
    let accepted = |about: &str| stage.accepted("analyst", &token, about);

    admin.rows(&dry)?;
    refused("a dry run")?;
    admin.rows(&real)?;
    accepted("a real one")?;
    admin.rows(&dry_away)?;
    accepted("a dry run that takes the rule away")?;
    admin.rows(&away)?;
    refused("a real one that takes the rule away")?;

    for (calls, counts) in [
        (vec![&dry, &real], true),
        (vec![&away, &dry], false),
        (vec![&real, &dry_away], true),
        (vec![&dry_away, &away, &dry_away], false),
    ] {
        admin.rows("BEGIN")?;
        for call in &calls {
            admin.rows(call)?;
        }
        admin.rows("COMMIT")?;
        if counts { accepted("in one transaction")? } else { refused("in one transaction")? }
    }
    admin.rows("BEGIN")?;
    admin.rows(&real)?;
    refused("not committed")?;
    admin.rows("ROLLBACK")?;
    refused("rolled back")?;
    // By hand after a dry run.
    admin.rows("BEGIN")?;
    admin.rows(&dry)?;
    admin.rows(&rule_sql("counts", &json!({ "sub": "counts" }), "analyst"))?;
    admin.rows("COMMIT")?;
    accepted("a rule written by hand after a dry run")?;
    // What a real run finds wrong, a dry run finds.
    without["rules"] = json!([rule("counts", "pg_monitor")]);
    let told = admin.error(&applying(&without, true))?;
    assert_eq!(told.message, "rules[0]: role name \"pg_monitor\" is reserved");
    assert_eq!(told, admin.error(&applying(&without, false))?);
    Ok(())
}

#[test]
fn providers_are_renamed_and_change_places() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    let named = |name: &str, issuer: &str| {
        with(provider(name), &json!({ "issuer": format!("https://{issuer}.example") }))
    };
    let actions = |made: &[Difference]| -> Vec<String> {
        made.iter().map(|made| format!("{} {}", made.action, made.object)).collect()
    };
    apply(
        &admin,
        &document(&[named("a", "one"), named("b", "two"), named("c", "three")], &[rule("a", "analyst")]),
    )?;
    let wanted =
        document(&[named("a", "two"), named("b", "three"), named("c", "one")], &[rule("a", "analyst")]);
    let made = apply(&admin, &wanted)?;
    assert_eq!(actions(&made), ["change provider a", "change provider b", "change provider c"]);
    assert_eq!(serde_json::from_str::<Value>(&exported(&admin)?)?, wanted);
    let wanted =
        document(&[named("b", "three"), named("c", "one"), named("new", "two")], &[rule("new", "analyst")]);
    let made = apply(&admin, &wanted)?;
    assert_eq!(
        actions(&made),
        [
            "delete rule of a: sub is \"a\"",
            "delete provider a",
            "create provider new",
            "create rule of new: sub is \"new\""
        ]
    );
    assert_eq!(serde_json::from_str::<Value>(&exported(&admin)?)?, wanted);

    admin.rows("INSERT INTO oidc.jwks_cache VALUES ('b', '{}', NULL, now(), now())")?;
    admin.rows(
        "BEGIN; INSERT INTO oidc.revocation (provider, subject) VALUES ('c', 'mallory'); SAVEPOINT revoked",
    )?;
    let told = admin.error(&applying(&document(&[], &[]), false))?;
    assert_eq!((told.code.as_str(), told.message.starts_with("provider c: ")), ("23503", true), "{told:?}");
    let detail = "Key (name)=(c) is still referenced from table \"revocation\". Nothing was changed.";
    assert_eq!(told.detail.as_deref(), Some(detail));
    admin.rows("ROLLBACK")?;
    apply(&admin, &document(&[], &[]))?;
    assert_eq!(admin.value("SELECT count(*) FROM oidc.jwks_cache")?.as_deref(), Some("0"));
    Ok(())
}

#[test]
fn bindings_of_a_person_follow_the_document() -> Result<()> {
    let stage = stage()?;
    let admin = stage.admin()?;
    let mut wanted = document(&[provider("bound")], &[]);
    apply(&admin, &wanted)?;
    let binding =
        |subject: &str, role: &str| json!({ "provider": "bound", "subject": subject, "role": role });
    wanted["bindings"] = json!([binding("ada", "ada"), binding("it's \"\\\" $$", "x")]);
    admin.rows("BEGIN; INSERT INTO oidc.identity_role VALUES ('bound', 'eve', 'eve', true, now())")?;
    assert_eq!(apply(&admin, &wanted)?.len(), 2);
    assert_eq!(serde_json::from_str::<Value>(&exported(&admin)?)?, wanted);
    wanted["bindings"] = json!([binding("bob", "ada"), binding("ada", "x")]);
    let made: Vec<String> =
        apply(&admin, &wanted)?.iter().map(|made| format!("{} {}", made.action, made.object)).collect();
    let object = "delete binding of bound: it's \"\\\" $$";
    assert_eq!(
        made,
        [
            "delete binding of bound: ada",
            object,
            "create binding of bound: bob",
            "create binding of bound: ada"
        ]
    );
    assert_eq!(apply(&admin, &wanted)?, []);
    wanted["bindings"] = json!([]);
    apply(&admin, &wanted)?;
    assert_eq!(admin.rows("SELECT subject FROM oidc.identity_role")?, [[Some("eve".to_owned())]]);
    wanted["bindings"] = json!([binding("eve", "mine")]);
    let told = admin.error(&applying(&wanted, false))?;
    assert!(told.code == "23505" && told.message.starts_with("bindings[0]: "), "{told:?}");
    admin.rows("ROLLBACK").map(drop)
}
