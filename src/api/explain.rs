//! Why a login would end as it would: core's explanation, and what the catalog says of the roles.

use super::{admit, admit_but, await_policy, must_be_preloaded};
use crate::board::{self, Staff};
use crate::pg::catalog::{self, Role};
use crate::pg::report;
use crate::pg::startup;
use crate::settings;
use pg_oidc_core::decision::{Replication, Request};
use pg_oidc_core::explanation::{self, Explanation, Given, Passed};
use pg_oidc_core::image::{ArchivedKeyringImage, ArchivedPolicyImage};
use pg_oidc_core::person::Person;
use pg_oidc_core::refusal::Refusal;
use pgrx::PgSqlErrorCode;
use std::net::IpAddr;

/// The login that is asked about. Null for the user: whatever the rules give; for the database: this one; for the
/// client: a Unix-domain socket.
struct Login<'a> {
    user: Option<&'a str>,
    database: Option<&'a str>,
    client: Option<IpAddr>,
    replication: bool,
    /// When, in microseconds since the Unix epoch; None: now.
    at: Option<i64>,
}

/// Explains on copies of what is published: an explanation looks at every rule, which no login should wait for.
fn explain<E>(
    login: &Login<'_>,
    explain: impl FnOnce(&ArchivedPolicyImage, &ArchivedKeyringImage, &Request<'_>) -> Result<Explanation, E>,
) -> Result<Explanation, E> {
    must_be_preloaded();
    // What was committed before counts here as it does in a login.
    let reached = await_policy();
    let Some(published) = board::copy() else {
        report::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "there is no published policy to explain logins with",
            None,
            Some("oidc.doctor() says why."),
        );
    };
    let here = catalog::current_database();
    let database = login.database.unwrap_or(&here);
    let role = login.user.and_then(|user| catalog::role(user, &settings::database()));
    let request = Request {
        user: login.user.unwrap_or_default(),
        database,
        role_oid: role.map_or(0, |role| role.oid),
        address: login.client,
        // Only a connection to a database can be told from one without.
        replication: match (login.replication, database.is_empty()) {
            (false, _) => Replication::None,
            (true, true) => Replication::Physical,
            (true, false) => Replication::Database,
        },
        now: login.at.unwrap_or_else(startup::now),
    };
    let mut explanation = explain(published.policy(), published.keyring(), &request)?;
    // What a login looks at before it looks at the token.
    let behind = if !board::hired(Staff::Registry) || !board::hired(Staff::Keyring) {
        Some(Refusal::WorkerMissing)
    } else if !catalog::database_exists(&settings::database()) {
        Some(Refusal::PolicyAbsent)
    } else {
        (!reached).then_some(Refusal::PolicyBehind)
    };
    if let Some(refusal) = behind {
        explanation.refusal = None;
        explanation.refuse("policy", refusal);
    }
    roles(&mut explanation, login.user.unwrap_or_default(), database);
    outcome(&mut explanation);
    Ok(explanation)
}

/// What keeps the roles from being logged in with, where it can be seen beforehand.
fn roles(explanation: &mut Explanation, user: &str, database: &str) {
    let asked_for_one = !user.is_empty();
    if let Some(person) = explanation.person.clone() {
        return of_person(explanation, &person, user, database);
    }
    let given: Vec<Given> = match explanation.decided.clone() {
        Some(decided) => vec![decided],
        None if asked_for_one => Vec::new(),
        None => explanation.given.clone(),
    };
    let mut some = false;
    for given in &given {
        let name = format!("role {:?}", given.role);
        match admits(given, database) {
            Ok(()) => {
                some = true;
                explanation.note(name, Passed::Yes, "It may log in here.");
            }
            Err(refusal) if asked_for_one => explanation.refuse(name, refusal),
            Err(refusal) => explanation.note(name, Passed::No, refusal.detail()),
        }
    }
    if !asked_for_one && !given.is_empty() && !some {
        explanation.refusal.get_or_insert(Refusal::UserNotMapped);
    }
}

/// What keeps a person from her own role, and each of the others from being hers.
fn of_person(explanation: &mut Explanation, person: &Person, user: &str, database: &str) {
    let mut refusal = None;
    let mut some = false;
    for given in &person.given {
        let name = format!("role {:?}", given.role);
        match mapped(given) {
            Ok(()) => {
                some = true;
                explanation.note(name, Passed::Yes, "The session may take it on.");
            }
            Err(why) => {
                explanation.note(name, Passed::No, why.detail());
                refusal.get_or_insert(why);
            }
        }
    }
    if let Some(refusal) = refusal.filter(|_| !some) {
        explanation.refuse("identity login", refusal);
    }
    let name = format!("role {user:?}");
    let allow_privileged = person.given.iter().any(|given| given.allow_privileged);
    let own = admit_but(user, None, allow_privileged, board::has_granted);
    match own.and_then(|own| lends_nothing(&own, person)).and_then(|own| connects(&own, database)) {
        Ok(()) => explanation.note(name, Passed::Yes, "It may log in here."),
        Err(Refusal::RoleMissing) if !person.bound => {
            explanation.note(name, Passed::NotChecked, "It would be made.");
        }
        Err(refusal) => explanation.refuse(name, refusal),
    }
}

/// As the door looks at a role that inherits: its memberships are all of somebody else's granting.
fn lends_nothing(own: &Role, person: &Person) -> Result<Role, Refusal> {
    let memberships = catalog::roles_of(own.oid);
    let base = person.base_role.as_ref().and_then(|role| catalog::role_oid(role));
    let ours = |role: &u32| Some(*role) != base && board::has_granted(own.oid, *role);
    let given = person.given.iter().filter(|given| mapped(given).is_ok());
    let mut given = given.filter_map(|given| catalog::role_oid(&given.role));
    if own.inherits && (memberships.iter().any(ours) || given.any(|role| !memberships.contains(&role))) {
        return Err(Refusal::RoleInherits);
    }
    Ok(own.clone())
}

/// Whether a person may have the role, which need not be one to log in with.
fn mapped(given: &Given) -> Result<(), Refusal> {
    let role = catalog::role(&given.role, &settings::database()).ok_or(Refusal::RoleMissing)?;
    if given.role_oid.is_some_and(|oid| oid != role.oid) {
        return Err(Refusal::RoleReplaced);
    }
    match role.privilege {
        Some(why) if !given.allow_privileged => Err(Refusal::RolePrivileged { why }),
        _ => Ok(()),
    }
}

fn connects(role: &Role, database: &str) -> Result<(), Refusal> {
    let may = database.is_empty() || catalog::may_connect(role.oid, database);
    if may { Ok(()) } else { Err(Refusal::ConnectDenied) }
}

fn admits(given: &Given, database: &str) -> Result<(), Refusal> {
    let role = admit(&given.role, given.role_oid, given.allow_privileged)?;
    connects(&role, database)
}

fn outcome(explanation: &mut Explanation) {
    match explanation.refusal.clone() {
        None => explanation.note("login", Passed::Yes, "It would be accepted."),
        Some(refusal) => {
            explanation.note("login", Passed::No, format!("It would be refused: {}.", refusal.code()));
        }
    }
}

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::datum::{Inet, TimestampWithTimeZone};
    use pgrx::prelude::*;

    type Steps = TableIterator<
        'static,
        (name!(step, i32), name!(name, String), name!(passed, &'static str), name!(detail, String)),
    >;

    /// Each step of the decision about a token whose signature was cut off, or that has expired.
    #[pg_extern(volatile)]
    fn explain(
        token: &str,
        login_user: default!(Option<&str>, "NULL"),
        database: default!(Option<&str>, "NULL"),
        client: default!(Option<Inet>, "NULL"),
        replication: default!(bool, "false"),
    ) -> TableIterator<
        'static,
        (name!(step, i32), name!(name, String), name!(passed, &'static str), name!(detail, String)),
    > {
        let client = address(client);
        let login = Login { user: login_user, database, client, replication, at: None };
        let bytes = settings::login().max_token_bytes;
        let explained = super::explain(&login, |policy, keyring, request| {
            explanation::explain_token(policy, keyring, token, bytes, request)
        });
        rows(explained.unwrap_or_else(|explanation::Live| {
            report::raise(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "the token may still be valid",
                Some("Statements are logged and shown, and whoever reads a token can use it."),
                Some("Cut off its signature, the part after the second dot, and keep the rest."),
            )
        }))
    }

    /// As `oidc.explain_claims`, with the claims as text, exact to the last digit.
    #[pg_extern(volatile)]
    fn explain_claims_text(
        provider: &str,
        claims: &str,
        login_user: Option<&str>,
        database: Option<&str>,
        client: Option<Inet>,
        replication: bool,
    ) -> TableIterator<
        'static,
        (name!(step, i32), name!(name, String), name!(passed, &'static str), name!(detail, String)),
    > {
        let client = address(client);
        let login = Login { user: login_user, database, client, replication, at: None };
        of_claims(&login, provider, claims)
    }

    /// As `oidc.explain_claims_text`, of a login at another time.
    #[pg_extern(volatile)]
    #[allow(clippy::too_many_arguments, reason = "what a login is")]
    fn explain_facts(
        provider: &str,
        claims: &str,
        login_user: &str,
        database: &str,
        client: Option<Inet>,
        replication: bool,
        at: TimestampWithTimeZone,
    ) -> TableIterator<
        'static,
        (name!(step, i32), name!(name, String), name!(passed, &'static str), name!(detail, String)),
    > {
        let (client, at) = (address(client), Some(startup::micros(at)));
        let login = Login { user: Some(login_user), database: Some(database), client, replication, at };
        of_claims(&login, provider, claims)
    }

    fn of_claims(login: &Login<'_>, provider: &str, claims: &str) -> Steps {
        let explained = super::explain(login, |policy, _, request| {
            explanation::explain_claims(policy, provider, claims, request)
        });
        rows(explained.unwrap_or_else(|error| {
            crate::api::raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, &error)
        }))
    }

    fn rows(explanation: Explanation) -> Steps {
        TableIterator::new(explanation.rows.into_iter().zip(1..).map(|(row, step)| {
            let passed = match row.passed {
                Passed::Yes => "yes",
                Passed::No => "no",
                Passed::NotChecked => "not checked",
            };
            (step, row.name, passed, row.detail)
        }))
    }

    /// The address alone; a network with host bits cut off is not a client's.
    fn address(client: Option<Inet>) -> Option<IpAddr> {
        let Inet(text) = client?;
        let address = text.split('/').next().unwrap_or_default().parse();
        Some(address.unwrap_or_else(|_| {
            report::raise(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "\"client\" must be the address of one client",
                None,
                None,
            )
        }))
    }
}
