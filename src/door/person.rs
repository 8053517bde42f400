//! A person comes as herself: her role must be there and be a member of what the decision gives, and nothing else bounds
//! her session than that decision.
//!
//! 1. The roles that the rules give are looked up: those that are missing, or privileged without leave, give nothing.
//! 2. Her own role is made, if it is not there, by the registry worker.
//! 3. The session's slot says what she was given: from now on no sweep takes it away.
//! 4. What her role is not a member of yet is granted, by the registry worker.
//! 5. What it is a member of only because an earlier login gave it is mentioned to the registry worker.
//!
//! Where nothing changed there is only looking: no worker is asked and nothing is written.

use super::left;
use crate::board;
use crate::pg::catalog::{self, Role, Roles};
use crate::pg::database;
use crate::pg::port::Connection;
use crate::pg::role_setting::Bounds;
use crate::pg::startup;
use crate::requests::{self, Answer, Request, What};
use crate::session::Grant;
use crate::sessions;
use crate::settings::Login;
use pg_oidc_core::decision::{Decision, Given};
use pg_oidc_core::person::Person;
use pg_oidc_core::refusal::Refusal;
use std::cell::Cell;
use std::time::Instant;

/// A role that she is given, as the catalog has it.
struct Mapped {
    name: String,
    oid: u32,
    rule_id: i64,
    allow_privileged: bool,
}

/// Admits the person of `decision`, waiting at most until `end`.
pub(super) fn admit(
    mut decision: Decision,
    person: &Person,
    connection: &Connection,
    settings: &Login,
    end: Instant,
) -> Result<Grant, Refusal> {
    let roles = Roles::of(&settings.database);
    let mapped = mapped(person, &roles)?;
    let first = mapped.first().ok_or(Refusal::NoRule)?;
    decision.rule_id = first.rule_id;
    decision.allow_privileged = mapped.iter().any(|role| role.allow_privileged);
    let base = base(person, &roles)?;
    let given: Vec<u32> = mapped.iter().map(|role| role.oid).collect();
    let rules: Vec<i64> = mapped.iter().map(|role| role.rule_id).collect();
    let ledger = Ledger { end, unsure: Cell::new(false) };
    let coming = Coming { decision: &decision, roles: &roles, given: &given, base, end, ledger: &ledger };
    let own = match coming.own() {
        Some(own) if person.bound => own,
        _ => coming.make()?,
    };
    own.admits(decision.allow_privileged, startup::now())?;
    sessions::settle(own.oid, &given, &rules);
    if !board::wait_until(left(end), || !requests::is_sweeping(own.oid)) {
        return Err(Refusal::ProvisioningBehind);
    }
    coming.join(&own)?;
    let memberships = catalog::roles_of(own.oid);
    if own.inherits && memberships.iter().any(|role| Some(*role) != base && ledger.is_ours(own.oid, *role)) {
        return Err(Refusal::RoleInherits);
    }
    let here = database::find(&connection.database);
    if !here.is_some_and(|database| database.admits(own.oid, own.superuser)) {
        return Err(Refusal::ConnectDenied);
    }
    coming.mention_surplus(person, &own, &memberships);
    let by_others =
        memberships.into_iter().filter(|role| !given.contains(role) && !ledger.is_ours(own.oid, *role));
    let bounds = Bounds { roles: given.iter().copied().chain(by_others).collect(), is_ours };
    if ledger.unsure.get() {
        return Err(Refusal::ProvisioningBehind);
    }
    Ok(Grant { start: Some(first.name.clone()), bounds, decision })
}

/// The roles that the decision gives, as far as they are to be had; at least one.
fn mapped(person: &Person, roles: &Roles) -> Result<Vec<Mapped>, Refusal> {
    let mut mapped: Vec<Mapped> = Vec::with_capacity(person.given.len());
    let mut why = None;
    for given in &person.given {
        match usable(given, roles) {
            Ok(role) if mapped.iter().any(|known| known.oid == role.oid) => {}
            Ok(role) => mapped.push(role),
            Err(refusal) => {
                why.get_or_insert(refusal);
            }
        }
    }
    match why {
        Some(refusal) if mapped.is_empty() => Err(refusal),
        _ => Ok(mapped),
    }
}

fn usable(given: &Given, roles: &Roles) -> Result<Mapped, Refusal> {
    let role = roles.find(&given.role, |_, _| false).ok_or(Refusal::RoleMissing)?;
    if given.role_oid.is_some_and(|oid| oid != role.oid) {
        return Err(Refusal::RoleReplaced);
    }
    // By its oid: it may have been renamed since it was bound.
    if board::read(|policy, _| policy.is_personal(role.oid)).unwrap_or(true) {
        return Err(Refusal::UserNotMapped);
    }
    let allow_privileged = given.allow_privileged;
    match role.privilege {
        Some(why) if !allow_privileged => Err(Refusal::RolePrivileged { why }),
        _ => Ok(Mapped { name: given.role.clone(), oid: role.oid, rule_id: given.rule_id, allow_privileged }),
    }
}

/// The role that everybody of the provider is a member of; one that is missing gives nothing.
fn base(person: &Person, roles: &Roles) -> Result<Option<u32>, Refusal> {
    let Some(base) = person.base_role.as_ref().and_then(|role| roles.find(role, |_, _| false)) else {
        return Ok(None);
    };
    match base.privilege {
        Some(why) => Err(Refusal::RolePrivileged { why }),
        None => Ok(Some(base.oid)),
    }
}

/// Whether a membership that a session comes upon is ours. What is being granted at this moment may not be published yet:
/// until it is, all memberships of people's own roles count as ours. So does, on a standby, what the primary has granted.
pub(super) fn is_ours(member: u32, role: u32) -> bool {
    // In this order: what was granted before is published by then.
    let behind = requests::is_granting() || startup::is_standby();
    (behind && board::read(|policy, _| policy.is_personal(member)).unwrap_or(true))
        || board::has_granted(member, role)
}

/// Which memberships are ours: those that the published policy knows, once it knows all that are committed.
struct Ledger {
    end: Instant,
    /// That was not reached in time.
    unsure: Cell<bool>,
}

impl Ledger {
    /// To be asked after the membership was looked at. Waits where it may be one that is not published yet.
    fn is_ours(&self, member: u32, role: u32) -> bool {
        if board::has_granted(member, role) {
            return true;
        }
        let known = if startup::is_standby() {
            requests::follow(left(self.end))
        } else {
            board::wait_until(left(self.end), || !requests::is_granting())
        };
        if !known {
            self.unsure.set(true);
        }
        board::has_granted(member, role)
    }
}

/// A person on her way in.
struct Coming<'a> {
    decision: &'a Decision,
    roles: &'a Roles,
    given: &'a [u32],
    base: Option<u32>,
    end: Instant,
    ledger: &'a Ledger,
}

impl Coming<'_> {
    /// Her role, if it is there. What is ours of its memberships makes it no more privileged than the decision.
    fn own(&self) -> Option<Role> {
        self.roles.find(&self.decision.role, |member, role| self.ledger.is_ours(member, role))
    }

    /// Has her role made.
    fn make(&self) -> Result<Role, Refusal> {
        self.ask(What::Admit { make: true, roles: self.given.to_vec(), base: self.base })?;
        self.own().ok_or(Refusal::ProvisioningBehind)
    }

    /// Has her role made a member of what it is not a member of yet.
    fn join(&self, own: &Role) -> Result<(), Refusal> {
        let lacking = self.lacking(own);
        if lacking.is_empty() {
            return Ok(());
        }
        if own.inherits && lacking.iter().any(|role| Some(*role) != self.base) {
            return Err(Refusal::RoleInherits);
        }
        self.ask(What::Admit { make: false, roles: lacking.clone(), base: self.base })?;
        if !self.lacking(own).is_empty() {
            return Err(Refusal::ProvisioningBehind);
        }
        // Where an HBA line has a "+role", core has looked at her memberships before they changed.
        if self
            .given
            .iter()
            .filter(|role| lacking.contains(role))
            .all(|role| catalog::core_sees(own.oid, *role))
        {
            Ok(())
        } else {
            Err(Refusal::MembershipUnseen)
        }
    }

    fn lacking(&self, own: &Role) -> Vec<u32> {
        let memberships = catalog::roles_of_now(own.oid);
        self.given.iter().copied().chain(self.base).filter(|role| !memberships.contains(role)).collect()
    }

    fn ask(&self, what: What) -> Result<(), Refusal> {
        if startup::is_standby() {
            return Err(Refusal::ProvisioningOnStandby);
        }
        match requests::ask(&self.request(what), left(self.end)) {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Mismatch) => Err(Refusal::IdentityMismatch),
            Some(Answer::NotBound) => Err(Refusal::RoleNotBound),
            Some(Answer::NamedByRule) => Err(Refusal::NamedByRule),
            Some(Answer::Unwanted) => Err(Refusal::PolicyChanged),
            Some(Answer::Failed) | None => Err(Refusal::ProvisioningBehind),
        }
    }

    fn request(&self, what: What) -> Request {
        Request {
            provider: self.decision.provider.clone(),
            subject: self.decision.subject.clone(),
            role: self.decision.role.clone(),
            what,
        }
    }

    /// Mentions what an earlier login gave and no rule gives her any more, here or elsewhere.
    fn mention_surplus(&self, person: &Person, own: &Role, memberships: &[u32]) {
        let Some(elsewhere) = &person.elsewhere else { return };
        if startup::is_standby() {
            return;
        }
        let needed = |role: &u32| self.given.contains(role) || self.base == Some(*role);
        let mut surplus: Vec<u32> = memberships
            .iter()
            .copied()
            .filter(|role| !needed(role) && board::has_granted(own.oid, *role))
            .collect();
        if !surplus.is_empty() {
            let elsewhere: Vec<u32> = elsewhere
                .iter()
                .filter_map(|given| given.role_oid.or_else(|| catalog::role_oid(&given.role)))
                .collect();
            surplus.retain(|role| !elsewhere.contains(role));
        }
        if !surplus.is_empty() {
            requests::mention(&self.request(What::Sweep { person: own.oid, roles: surplus }));
        }
    }
}
