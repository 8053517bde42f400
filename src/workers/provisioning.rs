//! People's own roles and their memberships, as logins ask for them: the only place that makes, grants and revokes roles.
//!
//! | asked for | done |
//! |---|---|
//! | a role for a new person | made without any attribute but LOGIN, and bound to her; an existing one is never taken |
//! | memberships | granted without inheritance, where they are not there yet; those that we grant are noted in the ledger |
//! | fewer memberships | taken away if they are in the ledger, not to be kept, and no live session was given them |
//!
//! Each request is one transaction, as the bootstrap superuser. Names go through `quote_identifier`.

use crate::board;
use crate::pg::{report, startup, worker};
use crate::requests::{self, Answer, Request, Taken, What};
use crate::sessions;
use pgrx::prelude::*;
use pgrx::spi::{self, SpiClient, quote_identifier};
use std::time::{Duration, Instant};

/// How often memberships that could not be taken away yet are looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// How full the room for the policy may be before nobody new is made, in percent: a policy that does not fit lets nobody
/// in. What is left is for all requests that are served at once.
const FULL: usize = 90;
/// People whose memberships wait to be taken away; the next login of another asks again.
const WAITING: usize = 1024;

/// Memberships that a person does not need any more.
struct Surplus {
    provider: String,
    subject: String,
    person: u32,
    roles: Vec<u32>,
}

/// Where the worker stands with what was asked for.
#[derive(Default)]
pub(super) struct Provisioner {
    begun: bool,
    surplus: Vec<Surplus>,
    swept_at: Option<Instant>,
}

/// Requests that were served, to be answered once what came of them is published.
#[derive(Default)]
pub(super) struct Served(Vec<(Taken, Answer)>);

impl Served {
    /// Takes these too.
    pub(super) fn add(&mut self, more: Served) {
        self.0.extend(more.0);
    }

    /// Answers them.
    pub(super) fn answer(&mut self) {
        for (taken, answer) in self.0.drain(..) {
            requests::answer(&taken, answer);
        }
    }
}

impl Provisioner {
    /// Does what was asked for. True: bindings or memberships changed.
    pub(super) fn serve(&mut self) -> (bool, Served) {
        let first = !std::mem::replace(&mut self.begun, true);
        if first {
            // The worker before may have died in the middle of one.
            requests::begin_sweep(0);
        }
        let taken = requests::take(first);
        let mut changed = false;
        let mut served = Vec::with_capacity(taken.len());
        for taken in taken {
            let answer = match &taken.request.what {
                What::Sweep { person, roles } => {
                    self.expect(&taken.request, *person, roles);
                    Answer::Done
                }
                What::Admit { .. } => self.admit(&taken.request, &mut changed),
            };
            served.push((taken, answer));
        }
        changed |= self.sweep();
        (changed, Served(served))
    }

    fn admit(&mut self, request: &Request, changed: &mut bool) -> Answer {
        if startup::is_standby() {
            return Answer::Failed;
        }
        // What she is given now she does not lose for an earlier login.
        if let What::Admit { roles, .. } = &request.what {
            for surplus in &mut self.surplus {
                if surplus.provider == request.provider && surplus.subject == request.subject {
                    surplus.roles.retain(|role| !roles.contains(role));
                }
            }
        }
        if is_full() {
            report::warning(
                &format!("could not provision role {:?}", request.role),
                Some("The shared memory for the policy is nearly full."),
                Some("Raise \"pg_oidc.shared_memory\" and restart the server, or remove rules."),
            );
            return Answer::Failed;
        }
        requests::begin_granting();
        match worker::transaction(std::panic::AssertUnwindSafe(|| admit(request))) {
            Ok(Ok(answer)) => {
                *changed |= answer == Answer::Done;
                answer
            }
            Ok(Err(error)) | Err(error) => {
                report::warning(
                    &format!("could not provision role {:?}", request.role),
                    Some(&format!("{error}. The login was told to try again.")),
                    None,
                );
                Answer::Failed
            }
        }
    }

    fn expect(&mut self, request: &Request, person: u32, roles: &[u32]) {
        self.surplus.retain(|surplus| surplus.person != person);
        if self.surplus.len() < WAITING {
            self.surplus.push(Surplus {
                provider: request.provider.clone(),
                subject: request.subject.clone(),
                person,
                roles: roles.to_vec(),
            });
            self.swept_at = None;
        }
    }

    /// Takes away what no live session needs. True: something was.
    fn sweep(&mut self) -> bool {
        let due = self.swept_at.is_none_or(|at| at.elapsed() >= AGAIN);
        if self.surplus.is_empty() || !due || startup::is_standby() {
            return false;
        }
        self.swept_at = Some(Instant::now());
        let mut changed = false;
        self.surplus.retain_mut(|surplus| {
            changed |= surplus.take_away();
            !surplus.roles.is_empty()
        });
        changed
    }
}

fn is_full() -> bool {
    let full = |[policy, _]: [board::Fill; 2]| policy.bytes > policy.capacity / 100 * FULL;
    board::fills().is_some_and(full)
}

impl Surplus {
    fn can_lose(&self, role: u32) -> bool {
        sessions::can_lose(self.person, role, &self.provider, &self.subject)
    }

    /// Takes away those that no live session needs, and gives what became of them; the others are tried again.
    ///
    /// A login that is given one of them meanwhile keeps it: either its slot is seen here, or it finds a sweep going on
    /// once its slot is written, waits for the end of it, and has granted what is gone.
    fn take_away(&mut self) -> bool {
        requests::begin_sweep(self.person);
        let (free, kept): (Vec<u32>, Vec<u32>) =
            std::mem::take(&mut self.roles).into_iter().partition(|role| self.can_lose(*role));
        self.roles = kept;
        let person = self.person;
        let taken = if free.is_empty() {
            Ok(false)
        } else {
            worker::transaction(std::panic::AssertUnwindSafe(|| revoke_all(person, &free)))
                .and_then(|taken| taken)
        };
        requests::begin_sweep(0);
        if let Err(error) = &taken {
            report::warning(
                "could not take away memberships that no rule gives any more",
                Some(&format!("{error}. It is tried again.")),
                None,
            );
            self.roles.extend(&free);
        }
        taken.unwrap_or(false)
    }
}

/// Makes what is asked for true, in this transaction.
fn admit(request: &Request) -> Result<Answer, String> {
    let What::Admit { make, roles, base } = &request.what else { return Ok(Answer::Failed) };
    Spi::connect_mut(|client| {
        let provider = client.select(
            "SELECT p.auto_provision FROM oidc.provider p WHERE p.name = $1 AND p.enabled",
            Some(1),
            &[request.provider.as_str().into()],
        )?;
        if provider.is_empty() {
            return Ok(Answer::Unwanted);
        }
        let makes = provider.first().get_one::<bool>()?.unwrap_or(false);
        let own = match binding(client, request)? {
            Some(Some(own)) => own,
            Some(None) => return Ok(Answer::Mismatch),
            None if !*make || !makes => return Ok(Answer::Unwanted),
            None => match create(client, request)? {
                Ok(own) => own,
                Err(answer) => return Ok(answer),
            },
        };
        for role in roles {
            grant(client, own, *role, Options::Mapped)?;
        }
        if let Some(base) = base {
            grant(client, own, *base, Options::Base)?;
        }
        Ok(Answer::Done)
    })
    .map_err(|error: spi::Error| error.to_string())
}

/// The oid of the role that the identity is bound to; the inner None: it is another one, or gone. The outer None: the
/// identity is not bound.
fn binding(client: &SpiClient<'_>, request: &Request) -> Result<Option<Option<u32>>, spi::Error> {
    let found = client.select(
        "SELECT CASE WHEN i.role = $3 AND a.rolname = $3 THEN a.oid END \
           FROM oidc.identity_role i LEFT JOIN pg_authid a ON a.oid = i.role_oid \
          WHERE i.provider = $1 AND i.subject = $2",
        Some(1),
        &[request.provider.as_str().into(), request.subject.as_str().into(), request.role.as_str().into()],
    )?;
    if found.is_empty() {
        return Ok(None);
    }
    Ok(Some(found.first().get_one::<pg_sys::Oid>()?.map(pg_sys::Oid::to_u32)))
}

/// Makes the role and binds it.
fn create(client: &mut SpiClient<'_>, request: &Request) -> Result<Result<u32, Answer>, spi::Error> {
    let role = request.role.as_str();
    let stands_in_the_way = [
        (Answer::Mismatch, "SELECT 1 FROM oidc.identity_role WHERE role = $1"),
        (Answer::NotBound, "SELECT 1 FROM pg_authid WHERE rolname = $1"),
        (Answer::NamedByRule, "SELECT 1 FROM oidc.role_mapping WHERE role = $1"),
        (Answer::NamedByRule, "SELECT 1 FROM oidc.provider WHERE base_role = $1"),
    ];
    for (answer, query) in stands_in_the_way {
        if !client.select(query, Some(1), &[role.into()])?.is_empty() {
            return Ok(Err(answer));
        }
    }
    let name = quote_identifier(role);
    client.update(
        &format!(
            "CREATE ROLE {name} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
        ),
        None,
        &[],
    )?;
    client.update(
        "INSERT INTO oidc.identity_role (provider, subject, role, made_by_us, last_login) \
         VALUES ($1, $2, $3, true, now())",
        None,
        &[request.provider.as_str().into(), request.subject.as_str().into(), role.into()],
    )?;
    let own = client.select("SELECT oid FROM pg_authid WHERE rolname = $1", Some(1), &[role.into()])?;
    Ok(own.first().get_one::<pg_sys::Oid>()?.map(pg_sys::Oid::to_u32).ok_or(Answer::Failed))
}

/// How a person's role is a member of another.
#[derive(Clone, Copy)]
enum Options {
    /// She may take it on, and has none of its rights before.
    Mapped,
    /// She has its rights, and does not take it on. In 15 a role that inherits nothing has no rights of it.
    Base,
}

impl Options {
    fn clause(self) -> &'static str {
        match self {
            _ if cfg!(feature = "pg15") => "",
            Options::Mapped => " WITH INHERIT FALSE, SET TRUE",
            Options::Base => " WITH INHERIT TRUE, SET FALSE",
        }
    }
}

/// Makes `person` a member of `role`, if both exist and it is none yet, and notes it in the ledger.
fn grant(client: &mut SpiClient<'_>, person: u32, role: u32, options: Options) -> Result<(), spi::Error> {
    let there = client.select(
        "SELECT 1 FROM pg_auth_members WHERE member = $1 AND roleid = $2",
        Some(1),
        &[oid(person), oid(role)],
    )?;
    let Some((member, granted)) = names(client, person, role)? else { return Ok(()) };
    if !there.is_empty() {
        return Ok(());
    }
    let (to, of) = (quote_identifier(&member), quote_identifier(&granted));
    client.update(&format!("GRANT {of} TO {to}{}", options.clause()), None, &[])?;
    client.update(
        "INSERT INTO oidc.granted_membership (role, member) VALUES ($1, $2) \
         ON CONFLICT (role, member) DO UPDATE SET role = EXCLUDED.role, granted_at = EXCLUDED.granted_at",
        None,
        &[granted.into(), member.into()],
    )?;
    Ok(())
}

/// True: there was something to take away.
fn revoke_all(person: u32, roles: &[u32]) -> Result<bool, String> {
    let all = |client: &mut SpiClient<'_>| {
        roles.iter().try_fold(false, |any, role| Ok(revoke(client, person, *role)? || any))
    };
    Spi::connect_mut(all).map_err(|error: spi::Error| error.to_string())
}

/// Takes a membership away that the ledger knows, unless it is to be kept; false: there is none.
fn revoke(client: &mut SpiClient<'_>, person: u32, role: u32) -> Result<bool, spi::Error> {
    let gone = client.update(
        "DELETE FROM oidc.granted_membership WHERE member_oid = $1 AND role_oid = $2 AND NOT keep RETURNING 1",
        None,
        &[oid(person), oid(role)],
    )?;
    if gone.is_empty() {
        return Ok(false);
    }
    if let Some((member, revoked)) = names(client, person, role)? {
        let (from, of) = (quote_identifier(&member), quote_identifier(&revoked));
        client.update(&format!("REVOKE {of} FROM {from}"), None, &[])?;
    }
    Ok(true)
}

/// The names of both, as long as both exist.
fn names(client: &SpiClient<'_>, one: u32, other: u32) -> Result<Option<(String, String)>, spi::Error> {
    let found = client.select(
        "SELECT one.rolname::text, other.rolname::text FROM pg_authid one, pg_authid other \
          WHERE one.oid = $1 AND other.oid = $2",
        Some(1),
        &[oid(one), oid(other)],
    )?;
    if found.is_empty() {
        return Ok(None);
    }
    let (one, other) = found.first().get_two::<String, String>()?;
    Ok(one.zip(other))
}

fn oid(oid: u32) -> pgrx::datum::DatumWithOid<'static> {
    pg_sys::Oid::from(oid).into()
}
