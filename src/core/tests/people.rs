//! Identity logins: the table at the top of `person.rs`, row by row, and what comes of it.
//!
//! 1. each row of the table, and its near misses
//! 2. which roles are given, in which order, and which would be elsewhere; never anybody's own; n098: none, no login
//! 3. the bounds of roles, bindings and memberships
//! 4. the session ends with the tightest of all limits
//! 5. what else reads the people: who is personal, which memberships are ours, what keeps a session
//! 6. explanations

use std::net::{IpAddr, Ipv4Addr};

use pg_oidc_core::decision::{Decision, Replication, Request};
use pg_oidc_core::explanation::{Explanation, Passed, explain_claims};
use pg_oidc_core::image::{ImageError, PolicyImage, check_policy, encode_policy};
use pg_oidc_core::limits::{self, SECOND};
use pg_oidc_core::people::{Binding, Granted};
use pg_oidc_core::provider::{ProviderRow, compile_provider};
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::rules::{RuleRow, compile_rule};
use pg_oidc_core::standing::{Cause, Ground, Standing};
use serde_json::{Value, json};

use crate::common::{NOW, ROLE_OID, World, claims_with, rule_row, token};

/// The provider of these tests: `x@corp.example` may have role `x` made.
fn provider() -> ProviderRow {
    ProviderRow {
        identity_claim: "upn".to_owned(),
        identity_pattern: Some(r"^(.*)@corp\.example$".to_owned()),
        identity_role: Some("\\1".to_owned()),
        auto_provision: true,
        ..crate::common::provider_row()
    }
}

/// A login as `user`, a role of this oid (0: there is none), with one rule that gives everybody `reader`.
pub(crate) fn world(user: &'static str, role_oid: u32) -> World {
    let mut world = World { user, role_oid, ..World::new() };
    world.providers[0].0 = provider();
    world
}

pub(crate) fn binding(subject: &str, role: &str, role_oid: u32) -> Binding {
    Binding { provider: "corp".to_owned(), subject: subject.to_owned(), role: role.to_owned(), role_oid }
}

/// The login of `u1`, `mate@corp.example`, with these bindings.
fn login(world: World, bindings: Vec<Binding>) -> Result<Decision, Refusal> {
    World { bindings, ..world }.login(&token(&claims_with(json!({"upn": "mate@corp.example"}))))
}

/// Why it is refused; `off`: the provider makes no roles.
pub(crate) fn refused(user: &'static str, role_oid: u32, bindings: Vec<Binding>, off: &[()]) -> Refusal {
    let mut world = world(user, role_oid);
    world.providers[0].0.auto_provision = off.is_empty();
    login(world, bindings).unwrap_err()
}

fn code(user: &'static str, role_oid: u32, bindings: Vec<Binding>) -> &'static str {
    refused(user, role_oid, bindings, &[]).code()
}

#[test]
fn bound_person_has_her_role() {
    let bound =
        |role_oid| vec![binding("u0", "a", 5), binding("u1", "mate", role_oid), binding("u2", "z", 6)];
    let decision = login(world("mate", 7), bound(7)).unwrap();
    assert_eq!((decision.role.as_str(), decision.role_oid, decision.rule_id), ("mate", 7, 1));
    let person = decision.person.unwrap();
    assert!(person.bound);
    assert_eq!((person.given.len(), person.given[0].role.as_str()), (1, "reader"));
    assert_eq!(code("mate", 0, bound(7)), "role_missing");
    assert_eq!(code("mate", 8, bound(7)), "role_replaced");
    assert_eq!(code("mate", 8, bound(0)), "role_replaced");
    // Hers is one, whatever the provider would make of her identity now.
    let other = |user, oid| login(world(user, oid), vec![binding("u1", "other", 9)]);
    assert_eq!(other("mate", 0).unwrap_err().code(), "user_not_mapped");
    assert_eq!(other("mate", 7).unwrap_err().code(), "user_not_mapped");
    assert!(other("other", 9).unwrap().person.unwrap().bound);
    // By hand, for a provider that makes no names at all.
    let mut by_hand = world("mate", 7);
    let row = &mut by_hand.providers[0].0;
    (row.identity_pattern, row.identity_role, row.auto_provision) = (None, None, false);
    assert!(login(by_hand.clone(), bound(7)).unwrap().person.unwrap().bound);
    assert_eq!(login(by_hand, vec![]).unwrap_err().code(), "user_not_mapped");
    // With a claim that has changed since.
    let changed = World { bindings: bound(7), ..world("mate", 7) };
    assert_eq!(changed.outcome(&token(&claims_with(json!({"upn": "wife@corp.example"})))), "accepted");
    let changed = World { bindings: bound(7), ..world("wife", 0) };
    assert_eq!(changed.outcome(&token(&claims_with(json!({"upn": "wife@corp.example"})))), "user_not_mapped");
}

#[test]
fn n114_role_that_is_somebody_elses() {
    assert_eq!(code("mate", 7, vec![binding("u2", "mate", 7)]), "identity_mismatch");
    assert_eq!(code("mate", 0, vec![binding("u2", "mate", 7)]), "identity_mismatch", "dropped meanwhile");
    assert_eq!(code("mate", 7, vec![binding("u2", "before", 7)]), "identity_mismatch", "renamed meanwhile");
    assert_eq!(code("mate", 0, vec![binding("U1", "mate", 0)]), "identity_mismatch");
    // The same subject of another issuer is another person.
    let other = Binding { provider: "other".to_owned(), ..binding("u1", "mate", 7) };
    assert_eq!(code("mate", 7, vec![other]), "identity_mismatch");
}

#[test]
fn n110_existing_role_is_never_hers() {
    assert_eq!(code("mate", 7, vec![]), "role_not_bound");
    assert_eq!(code("mate", 7, vec![binding("u2", "mat", 8)]), "role_not_bound");
    let off = refused("mate", 7, vec![], &[()]);
    assert_eq!(off.code(), "role_not_bound");
}

#[test]
fn new_person_has_her_role_made() {
    let decision = login(world("mate", 0), vec![binding("u2", "z", 7)]).unwrap();
    assert_eq!((decision.role.as_str(), decision.role_oid), ("mate", 0));
    assert!(!decision.person.unwrap().bound);
    assert_eq!(refused("mate", 0, vec![], &[()]).code(), "role_missing");
    for user in ["Mate", "mat", "mate2", "mate@corp.example", "MATE", "u1"] {
        assert_eq!(code(user, 0, vec![]), "user_not_mapped", "{user}");
    }
    // No role of hers replicates.
    for replication in [Replication::Physical, Replication::Database] {
        let world = World { replication, ..world("mate", 0) };
        assert_eq!(login(world, vec![]).unwrap_err().code(), "replication_refused");
        let world = World { replication, ..self::world("mate", 7) };
        assert_eq!(login(world, vec![binding("u1", "mate", 7)]).unwrap_err().code(), "replication_refused");
    }
}

#[test]
fn n098_without_a_rule_nothing_is_made() {
    for (role_oid, bindings) in [(0, vec![]), (7, vec![binding("u1", "mate", 7)])] {
        let none = World { rules: vec![], ..world("mate", role_oid) };
        assert_eq!(login(none, bindings.clone()).unwrap_err().code(), "no_rule");
        let mut elsewhere = world("mate", role_oid);
        elsewhere.rules[0].databases = Some(vec![Some("other".to_owned())]);
        assert_eq!(login(elsewhere, bindings.clone()).unwrap_err().code(), "no_rule");
        // A rule that gives her nothing but her own role, or somebody's.
        let mut own = world("mate", role_oid);
        own.rules = vec![RuleRow { role_oid: 0, ..rule_row(1, &json!({}), "mate") }];
        let code = login(own, bindings.clone()).unwrap_err().code();
        assert!(["no_rule", "role_missing", "role_replaced"].contains(&code), "{code}");
        let deny = RuleRow { effect: "deny".to_owned(), role: None, ..rule_row(2, &json!({}), "") };
        let mut denied = world("mate", role_oid);
        denied.rules.push(deny);
        assert_eq!(login(denied, bindings).unwrap_err().code(), "denied_by_rule");
    }
}

#[test]
fn no_rule_gives_what_is_somebodys_own() {
    let rules = vec![rule_row(1, &json!({}), "mate"), at(2, 100, "reader", 20)];
    // As a role login: whoever it belongs to.
    let by_rule = |user, bindings| {
        let world = World { rules: rules.clone(), bindings, ..World { user, ..World::new() } };
        world.login(&token(&claims_with(json!({}))))
    };
    assert!(by_rule("mate", vec![]).unwrap().person.is_none());
    assert_eq!(by_rule("mate", vec![binding("u2", "mate", 0)]).unwrap_err().code(), "user_not_mapped");
    assert_eq!(by_rule("mate", vec![binding("u2", "x", ROLE_OID)]).unwrap_err().code(), "user_not_mapped");
    assert!(by_rule("mate", vec![binding("u1", "mate", ROLE_OID)]).unwrap().person.is_some(), "her own");
    // In an identity login: by name, by oid, and by a name made of the token.
    let derived = RuleRow { role_oid: 0, ..rule_row(3, &json!({"groups": {"regex": "(.*)"}}), "\\1") };
    let rules = vec![rule_row(1, &json!({}), "boss"), derived];
    let given = |bindings: Vec<Binding>| {
        let world = World { rules: rules.clone(), bindings, ..world("mate", 0) };
        let claims = json!({"upn": "mate@corp.example", "groups": ["boss2", "mate", "readers"]});
        let person = world.login(&token(&claims_with(claims))).unwrap().person.unwrap();
        person.given.into_iter().map(|given| given.role).collect::<Vec<_>>()
    };
    assert_eq!(given(vec![]), ["boss", "boss2", "readers"]);
    assert_eq!(given(vec![binding("u2", "boss", 9)]), ["boss2", "readers"]);
    assert_eq!(given(vec![binding("u2", "renamed", ROLE_OID)]), ["boss2", "readers"]);
    assert_eq!(given(vec![binding("u2", "boss2", 9), binding("u3", "readers", 0)]), ["boss"]);
}

fn at(id: i64, priority: i32, role: &str, oid: u32) -> RuleRow {
    RuleRow { priority, role_oid: oid, ..rule_row(id, &json!({}), role) }
}

#[test]
fn roles_are_given_by_rank() {
    let elsewhere = RuleRow { databases: Some(vec![Some("other".to_owned())]), ..at(7, 0, "away", 20) };
    let network = RuleRow { addresses: Some(vec![Some("10.0.0.0/8".to_owned())]), ..at(8, 0, "net", 21) };
    let over = RuleRow { valid_until: Some(NOW * SECOND), ..at(9, 0, "over", 22) };
    let soon = RuleRow { valid_from: Some(NOW * SECOND + 1), ..at(10, 0, "soon", 23) };
    let off = RuleRow { enabled: false, ..at(11, 0, "off", 24) };
    let stranger = RuleRow { matches: json!({"groups": "others"}).to_string(), ..elsewhere.clone() };
    let stranger = RuleRow { id: 12, role: Some("theirs".to_owned()), ..stranger };
    let rules = vec![
        at(5, 100, "b", 11),
        at(4, 100, "a", 10),
        at(3, 200, "c", 12),
        at(6, 1, "d", 13),
        at(2, 300, "a", 10),
        elsewhere,
        network,
        over,
        soon,
        off,
        stranger,
    ];
    let mut of = World { rules, ..world("mate", 0) };
    let person = |world: &World| login(world.clone(), vec![]).unwrap().person.unwrap();
    let names = |given: &[pg_oidc_core::decision::Given]| {
        given.iter().map(|given| (given.role.clone(), given.rule_id)).collect::<Vec<_>>()
    };
    let named =
        |pairs: &[(&str, i64)]| pairs.iter().map(|(role, id)| ((*role).to_owned(), *id)).collect::<Vec<_>>();
    let seen = person(&of);
    assert_eq!(names(&seen.given), named(&[("d", 6), ("a", 4), ("b", 5), ("c", 3)]));
    assert_eq!(names(&seen.elsewhere.unwrap()), named(&[("away", 7), ("net", 8)]));
    assert_eq!(login(of.clone(), vec![]).unwrap().rule_id, 6);
    of.address = Some(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)));
    of.database = "other";
    let seen = person(&of);
    assert_eq!(names(&seen.given)[..2], named(&[("away", 7), ("net", 8)]));
    assert_eq!(seen.elsewhere, Some(vec![]));
    assert_eq!(seen.base_role, None);
    of.providers[0].0.base_role = Some("base".to_owned());
    assert_eq!(person(&of).base_role.as_deref(), Some("base"));
}

#[test]
fn given_roles_have_a_bound() {
    let most = i64::try_from(limits::GIVEN_ROLES).unwrap();
    let rules = |count: i64, away: i64| {
        let one = |id: i64| at(id, 100, &format!("r{id}"), 20);
        let elsewhere =
            |id: i64| RuleRow { databases: Some(vec![Some("other".to_owned())]), ..one(id + 10_000) };
        World { rules: (0..count).map(one).chain((0..away).map(elsewhere)).collect(), ..world("mate", 0) }
    };
    let person = login(rules(most, most), vec![]).unwrap().person.unwrap();
    assert_eq!(
        (person.given.len(), person.elsewhere.unwrap().len()),
        (limits::GIVEN_ROLES, limits::GIVEN_ROLES)
    );
    assert_eq!(login(rules(most + 1, 0), vec![]).unwrap_err().code(), "too_many_roles");
    // Elsewhere they only say what need not be swept.
    assert_eq!(login(rules(1, most + 1), vec![]).unwrap().person.unwrap().elsewhere, None);
    // One role by many rules is one.
    let many = (0..=most).map(|id| at(id, 100, "r", 20)).collect();
    assert_eq!(login(World { rules: many, ..world("mate", 0) }, vec![]).unwrap().rule_id, 0);
}

#[test]
fn people_have_bounds() {
    let policy = || PolicyImage::build(vec![compile_provider(&provider(), false).unwrap()], vec![]).unwrap();
    let many = |count: usize| (0..count).map(|n| binding(&n.to_string(), &n.to_string(), 1)).collect();
    assert!(policy().set_people(many(limits::BINDINGS), vec![]).is_ok());
    assert_eq!(policy().set_people(many(limits::BINDINGS + 1), vec![]), Err(ImageError::TooManyPeople));
    let granted = |count: usize| vec![Granted { member: 1, role: 2 }; count];
    assert!(policy().set_people(vec![], granted(limits::GRANTED)).is_ok());
    assert_eq!(policy().set_people(vec![], granted(limits::GRANTED + 1)), Err(ImageError::TooManyPeople));
    let twice = vec![binding("u1", "a", 1), binding("u2", "c", 3), binding("u1", "b", 2)];
    assert_eq!(policy().set_people(twice, vec![]), Err(ImageError::Repeated("u1".to_owned())));
    let other = Binding { provider: "other".to_owned(), ..binding("u1", "b", 2) };
    assert!(policy().set_people(vec![binding("u1", "a", 1), other], vec![]).is_ok());
    assert!(ImageError::TooManyPeople.to_string().contains("100000 bindings"));
}

#[test]
fn image_knows_people_and_what_was_granted() {
    let mut policy = PolicyImage::build(vec![compile_provider(&provider(), false).unwrap()], vec![]).unwrap();
    let stranger = Binding { provider: "gone".to_owned(), ..binding("u9", "left", 40) };
    let bindings = vec![binding("u3", "c", 30), binding("u1", "a", 10), binding("u2", "b", 0), stranger];
    let granted = [(30, 7), (10, 9), (10, 8), (0, 0)].map(|(member, role)| Granted { member, role });
    policy.set_people(vec![binding("old", "old", 99)], vec![Granted { member: 99, role: 1 }]).unwrap();
    policy.set_people(bindings, granted.to_vec()).unwrap();
    let bytes = encode_policy(&policy).unwrap();
    let image = check_policy(&bytes).unwrap();
    for (oid, personal) in [(10, true), (30, true), (40, true), (0, false), (20, false), (99, false)] {
        assert_eq!(image.is_personal(oid), personal, "{oid}");
    }
    for (member, role, ours) in [
        (10, 8, true),
        (10, 9, true),
        (30, 7, true),
        (8, 10, false),
        (10, 7, false),
        (30, 8, false),
        (99, 1, false),
    ] {
        assert_eq!(image.has_granted(Granted { member, role }), ours, "{member} {role}");
    }
}

#[test]
fn tightest_limit_of_all_rules_holds() {
    let limited = |id: i64, text: &str, seconds: Option<i64>| RuleRow {
        session_limit: Some(text.to_owned()),
        session_limit_us: seconds.map(|seconds| seconds * SECOND),
        ..at(id, 100, &format!("r{id}"), 20)
    };
    let ends = |rules: Vec<RuleRow>| {
        let world = World { rules, ..world("mate", 0) };
        let end = login(world.clone(), vec![]).unwrap().end;
        end.map(|end| ((end.at - world.now) / SECOND, end.by_token))
    };
    let none = || limited(1, "none", None);
    assert_eq!(ends(vec![none(), at(2, 100, "r2", 20)]), None);
    assert_eq!(ends(vec![none(), limited(2, "1 hour", Some(3600))]), Some((3600, false)));
    let hour_minute = vec![limited(2, "1 hour", Some(3600)), limited(3, "1 minute", Some(60)), none()];
    assert_eq!(ends(hour_minute), Some((60, false)));
    assert_eq!(ends(vec![limited(2, "1 hour", Some(3600)), limited(3, "token", None)]), Some((300, true)));
    // What would be given elsewhere has no say.
    let away = RuleRow { databases: Some(vec![Some("other".to_owned())]), ..limited(4, "1 s", Some(1)) };
    assert_eq!(ends(vec![none(), away]), None);
}

#[test]
fn n136_binding_and_every_rule_keep_the_session() {
    let standing = |ids: &[i64], bindings: Vec<Binding>| {
        let rules = ids.iter().map(|id| compile_rule(&at(*id, 100, "r", 20)).unwrap()).collect();
        let mut policy =
            PolicyImage::build(vec![compile_provider(&provider(), false).unwrap()], rules).unwrap();
        policy.set_people(bindings, vec![]).unwrap();
        Standing::of(&policy)
    };
    let ground =
        Ground { provider: "corp", subject: "u1", rules: &[1, 2, 3], person: Some(7), issued_at: None };
    let now = NOW * SECOND;
    let bound = |oid| vec![binding("u1", "mate", oid), binding("u2", "z", 9)];
    assert_eq!(standing(&[1, 2, 3], bound(7)).lost(&ground, now), None);
    for left in [[1, 2], [1, 3], [2, 3]] {
        assert_eq!(standing(&left, bound(7)).lost(&ground, now), Some(Cause::Rule), "{left:?}");
    }
    for bindings in [vec![], bound(8), bound(0), vec![binding("u2", "mate", 7)]] {
        assert_eq!(standing(&[1, 2, 3], bindings.clone()).lost(&ground, now), Some(Cause::Binding));
        // Whose role is not known yet has no binding to lose.
        let coming = Ground { person: None, ..ground };
        assert_eq!(standing(&[1, 2, 3], bindings).lost(&coming, now), None);
    }
}

fn explained(world: &World, claims: Value) -> Explanation {
    let providers = vec![compile_provider(&world.providers[0].0, false).unwrap()];
    let rules = world.rules.iter().map(|row| compile_rule(row).unwrap()).collect();
    let mut policy = PolicyImage::build(providers, rules).unwrap();
    policy.set_people(world.bindings.clone(), vec![]).unwrap();
    let bytes = encode_policy(&policy).unwrap();
    let request: Request<'_> = world.request();
    explain_claims(check_policy(&bytes).unwrap(), "corp", &claims.to_string(), &request).unwrap()
}

#[test]
fn identity_logins_are_explained() {
    let claims = || json!({"sub": "u1", "upn": "mate@corp.example", "groups": ["readers"]});
    let step = |explanation: &Explanation| {
        let row = explanation.rows.iter().find(|row| row.name == "identity login").unwrap().clone();
        (row.passed, row.detail)
    };
    let made = explained(&world("mate", 0), claims());
    assert_eq!((made.refusal.clone(), made.person.as_ref().map(|person| person.bound)), (None, Some(false)));
    assert_eq!(
        step(&made),
        (
            Passed::Yes,
            "Session user would be \"mate\", which would be made, and current user the first of \"reader\"."
                .to_owned()
        )
    );
    let bound = World { bindings: vec![binding("u1", "mate", 7)], ..world("mate", 7) };
    assert!(step(&explained(&bound, claims())).1.starts_with("Session user would be \"mate\", and current"));
    // As it is decided.
    for (user, role_oid, bindings) in [
        ("mate", 7, vec![]),
        ("mate", 8, vec![binding("u1", "mate", 7)]),
        ("mate", 0, vec![binding("u1", "mate", 7)]),
        ("mate", 7, vec![binding("u2", "mate", 7)]),
        ("mat", 0, vec![]),
        ("other", 7, vec![binding("u1", "mate", 7)]),
    ] {
        let world = World { bindings: bindings.clone(), ..world(user, role_oid) };
        let told = explained(&world, claims()).refusal.map(|refusal| refusal.code());
        assert_eq!(told, Some(code(user, role_oid, bindings)), "{user} {role_oid}");
    }
    // Nobody in particular is asked for.
    let (passed, detail) = step(&explained(&world("", 0), claims()));
    assert_eq!((passed, detail.as_str()), (Passed::NotChecked, "The role of this identity is \"mate\"."));
    let stranger = json!({"sub": "u1", "upn": "mate@other.example", "groups": ["readers"]});
    assert!(step(&explained(&world("", 0), stranger)).1.contains("has no role of its own"));
}
