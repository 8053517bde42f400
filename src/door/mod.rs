//! The front door: from a secret to a decision, the same for every way in.

mod fallback;
pub(crate) mod password;
mod person;
mod trail;
pub(crate) mod validator;

use crate::board::{self, Staff, State, Wish};
use crate::events;
use crate::fail_point::fail_point;
use crate::pg::port::Connection;
use crate::pg::role_setting::Bounds;
use crate::pg::{catalog, database, report, startup};
use crate::session::{self, Grant};
use crate::sessions;
use crate::settings::Login;
use pg_oidc_core::account::Account;
use pg_oidc_core::decision::{self, Decision, Replication, Request, Selected, Selection};
use pg_oidc_core::limits;
use pg_oidc_core::oauth_line::OauthLine;
use pg_oidc_core::refusal::Refusal;
use pg_oidc_core::token::{self, Untrusted};
use pg_oidc_core::verify;
use std::time::{Duration, Instant};

/// How often a login judges again because the provider changed while it verified.
const ATTEMPTS: u32 = 2;

/// Judges `secret` for this connection. Denied until core's `decide` grants, and the role may log in.
///
/// `line` asks more of the token, where it came on an `oauth` line. No I/O, no SQL; waits only for workers, at most `settings.wait` in all.
///
/// `account` gets what the audit may know of the token, as far as it was judged.
///
/// # Errors
/// The reason, for the server log; the client never learns it.
pub(crate) fn decide(
    secret: &[u8],
    line: Option<&OauthLine>,
    connection: &Connection,
    settings: &Login,
    account: &mut Account,
) -> Result<Grant, Refusal> {
    // Whatever was committed before the token came must count: this number is read first.
    let asked = board::asked();
    let end = Instant::now() + settings.wait;
    let mut untrusted = token::parse(secret, settings.max_token_bytes)?;
    line.map_or(Ok(()), |line| line.check_issuer(&untrusted))?;
    fail_point("login_parsed");
    await_policy(asked, end, settings)?;
    fail_point("login_policy_awaited");
    for attempt in 1..=ATTEMPTS {
        let selected = select(&untrusted, end)?;
        fail_point("login_key_selected");
        if let Some(decision) = judge(untrusted, &selected, line, connection, account)? {
            return admit(decision, connection, settings, end);
        }
        if attempt == ATTEMPTS {
            break;
        }
        untrusted = token::parse(secret, settings.max_token_bytes)?;
    }
    Err(Refusal::PolicyBehind)
}

/// Waits until the policy is published under the number that was asked for on arrival, never a newer one.
fn await_policy(asked: u64, end: Instant, settings: &Login) -> Result<(), Refusal> {
    if !board::hired(Staff::Registry) || !board::hired(Staff::Keyring) {
        return Err(Refusal::WorkerMissing);
    }
    // The registry worker cannot even connect then, and what it published before is the policy of no database.
    if !catalog::database_exists(&settings.database) {
        return Err(Refusal::PolicyAbsent);
    }
    if board::policy_generation() < asked {
        events::note_wait();
    }
    let reached = board::wait_until(left(end), || board::policy_generation() >= asked);
    match board::state() {
        State::Absent if reached => Err(Refusal::PolicyAbsent),
        State::Overflow if reached => Err(Refusal::PolicyOverflow),
        State::Present if reached => Ok(()),
        State::Starting => Err(Refusal::NotReady),
        _ => Err(Refusal::PolicyBehind),
    }
}

/// Finds the provider and the key that may judge the token. Waits for keys that are being fetched for the first time,
/// and once for newer ones, if the provider's pause since the last attempt is over.
fn select(untrusted: &Untrusted, end: Instant) -> Result<Selected, Refusal> {
    let mut found = look(untrusted)?;
    if matches!(found, Selection::KeysPending { .. }) {
        found = look_until(untrusted, found, end, |found| !matches!(found, Selection::KeysPending { .. }))?;
    }
    if let Selection::KeysLacking { key_source, attempted_at, .. } = found
        && startup::now().abs_diff(attempted_at) >= limits::FETCH_PAUSE.unsigned_abs()
    {
        board::request_keys(key_source, Wish::Login);
        // Any attempt since counts, whoever asked for it: one that fails ends the wait too.
        found = look_until(
            untrusted,
            found,
            end,
            |found| !matches!(found, Selection::KeysLacking { attempted_at: last, .. } if *last == attempted_at),
        )?;
    }
    match found {
        Selection::Ready(selected) => Ok(selected),
        Selection::KeysPending { .. } => Err(Refusal::KeysPending),
        Selection::KeysLacking { why, .. } => Err(why),
    }
}

/// Looks again, now and at each publication, until `enough`, or until `end`.
fn look_until(
    untrusted: &Untrusted,
    found: Selection,
    end: Instant,
    enough: impl Fn(&Selection) -> bool,
) -> Result<Selection, Refusal> {
    let mut latest = Ok(found);
    events::note_wait();
    board::wait_until(left(end), || {
        latest = look(untrusted);
        latest.as_ref().map_or(true, &enough)
    });
    latest
}

fn look(untrusted: &Untrusted) -> Result<Selection, Refusal> {
    let now = startup::now();
    board::read(|policy, keyring| decision::select(policy, keyring, untrusted, now))
        .unwrap_or(Err(Refusal::PolicyAbsent))
}

/// Verifies outside of the lock, then decides on the policy of now; None if the provider changed meanwhile.
fn judge(
    untrusted: Untrusted,
    selected: &Selected,
    line: Option<&OauthLine>,
    connection: &Connection,
    account: &mut Account,
) -> Result<Option<Decision>, Refusal> {
    let verified = verify::verify_for(account, untrusted, selected, startup::now())?;
    line.map_or(Ok(()), |line| line.check_scope(&verified))?;
    fail_point("login_verified");
    let request = Request {
        user: &connection.user,
        database: &connection.database,
        role_oid: catalog::role_oid_now(&connection.user).unwrap_or(0),
        address: connection.address,
        replication: connection.replication,
        now: startup::now(),
    };
    sessions::prepare();
    fail_point("login_deciding");
    board::read(|policy, _| {
        if !decision::is_current(policy, selected) {
            return Ok(None);
        }
        let decision = decision::decide(policy, &verified, &request)?;
        // Still under the lock: whoever publishes another policy finds this session.
        if !sessions::enter(&decision, connection, request.now) {
            return Err(Refusal::InternalError);
        }
        Ok(Some(decision))
    })
    .unwrap_or(Err(Refusal::PolicyAbsent))
}

/// Admits who was decided upon, if the catalog does not stand in the way.
fn admit(
    decision: Decision,
    connection: &Connection,
    settings: &Login,
    end: Instant,
) -> Result<Grant, Refusal> {
    fail_point("login_decided");
    if let Some(person) = decision.person.clone() {
        return person::admit(decision, &person, connection, settings, end);
    }
    let role = catalog::role(&decision.role, &settings.database).ok_or(Refusal::RoleMissing)?;
    if role.oid != decision.role_oid {
        return Err(Refusal::RoleReplaced);
    }
    role.admits(decision.allow_privileged, startup::now())?;
    let here = || database::find(&connection.database);
    if connection.replication != Replication::Physical
        && !here().is_some_and(|database| database.admits(role.oid, role.superuser))
    {
        return Err(Refusal::ConnectDenied);
    }
    Ok(Grant { bounds: Bounds { roles: vec![role.oid], is_ours: person::is_ours }, start: None, decision })
}

/// What has to hold of a connection whatever its token says.
fn welcome(connection: &Connection, settings: &Login) -> Result<(), Refusal> {
    if settings.require_tls && !connection.tls && !connection.local {
        return Err(Refusal::TlsRequired);
    }
    fail_point("login_asking");
    if connection.readable { Ok(()) } else { Err(Refusal::NameInvalid) }
}

/// Begins the session in its process.
fn begin(grant: Grant) -> Result<Grant, Refusal> {
    session::begin(&grant).map_err(|_| Refusal::SettingsFailed)?;
    Ok(grant)
}

/// Notes a login that is let in. Names that came from a client or a token are written with escapes (`{:?}`): no newline
/// reaches the log.
fn accepted(connection: &Connection, account: &Account, grant: &Grant) {
    let decision = &grant.decision;
    report::log(&format!(
        "OIDC login accepted: role={:?} user={:?} identity={:?} provider={:?} subject={:?} rule={} database={:?} client={:?}",
        grant.role(),
        decision.role,
        decision.identity,
        decision.provider,
        decision.subject,
        decision.rule_id,
        connection.database,
        connection.host,
    ));
    trail::accepted(connection, account, grant);
}

/// Notes a login that is refused.
fn refused(connection: &Connection, account: &Account, refusal: &Refusal) {
    report::log_refusal(connection, refusal);
    trail::refused(connection, account, refusal);
}

/// Notes a login in which something failed that must not fail: its reason is in the log already.
pub(crate) fn failed(connection: &Connection) {
    trail::refused(connection, &Account::default(), &Refusal::InternalError);
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}
