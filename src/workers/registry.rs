//! The registry worker: the only place with SQL. Reads the policy tables and publishes the policy.

use super::auditing::Auditor;
use super::ending::Ender;
use super::keeping::Keeper;
use super::provisioning::{Provisioner, Served};
use super::reading::{self, Complaint, Found, Reading, read};
use super::revoking::Unlocker;
use crate::board::{self, Staff};
use crate::fail_point::fail_point;
use crate::pg::worker::Wake;
use crate::pg::{catalog, report, startup, worker};
use crate::{requests, rows, settings};
use pg_oidc_core::image::PolicyImage;
use pgrx::prelude::*;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the generation is looked at: what fires no trigger here (replay on a standby, a drop from outside)
/// counts within a second.
const POLL: Duration = Duration::from_millis(500);
/// How often everything is read again whatever the generation says: what was changed with the triggers disabled in a
/// way that no hook reports counts by then.
const AGAIN: Duration = Duration::from_secs(60);
/// A table that somebody has locked must not hold this worker for ever; and below deadlock_timeout, so that in a deadlock
/// it is the worker that gives way.
pub(super) const LOCK_TIMEOUT: &CStr = c"500ms";
/// How long to wait after a failed reading.
const PAUSE: Duration = Duration::from_secs(1);

static CONNECTED: AtomicBool = AtomicBool::new(false);

#[pg_guard]
#[allow(unsafe_code, reason = "core finds a worker's function by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_oidc_registry_main(_argument: pg_sys::Datum) {
    worker::start();
    board::sign_in(Staff::Registry);
    worker::at_exit(leave);
    let database = settings::database();
    if board::database_missed() {
        await_database(&database);
    }
    // Where there is no such database this ends the worker, and the next one comes to the line above.
    worker::connect(Some(&database));
    worker::be_registry();
    CONNECTED.store(true, Ordering::Relaxed);
    fail_point("registry_connected");
    worker::set(c"lock_timeout", LOCK_TIMEOUT);
    worker::set(c"statement_timeout", c"0");
    // What the owner of the database has set for all its sessions must not reach this one.
    worker::set(c"role", c"none");
    worker::set(c"search_path", c"pg_catalog, pg_temp");
    worker::set(c"default_transaction_read_only", c"off");
    worker::set(c"session_replication_role", c"origin");
    // What another server has not confirmed yet must not hold it either.
    worker::set(c"synchronous_commit", c"local");
    let mut keeper = Keeper::default();
    let mut auditor = Auditor::default();
    let mut provisioner = Provisioner::default();
    let mut unlocker = Unlocker::default();
    let mut desk = Desk::default();
    let mut read_at = Instant::now();
    loop {
        if read_at.elapsed() >= AGAIN {
            desk.published = None;
        }
        if desk.published.is_none() {
            read_at = Instant::now();
        }
        let before = desk.published;
        let pause = if desk.publish() { POLL } else { PAUSE };
        if desk.published != before {
            unlocker.learn();
        }
        desk.serve(&mut provisioner);
        if desk.published.is_some() {
            unlocker.unlock();
        }
        let pause = pause.min(desk.ender.end());
        keeper.keep();
        let pause = if auditor.audit() { Duration::ZERO } else { pause };
        if worker::wait(pause, None) == Wake::Stop {
            auditor.last();
            worker::end();
        }
    }
}

fn leave() {
    board::sign_out(Staff::Registry);
    if !CONNECTED.load(Ordering::Relaxed) {
        board::miss_database(true);
    }
}

/// The last worker could not connect. Instead of a FATAL every few seconds: looks for the database until it is there,
/// then ends, so that the next worker connects to it. A process can connect only once.
fn await_database(name: &str) -> ! {
    worker::connect(None);
    CONNECTED.store(true, Ordering::Relaxed);
    // What the policy was is not known here: while it may still be there, sessions end by time alone.
    let mut ender = Ender::default();
    loop {
        match worker::transaction(|| catalog::database_exists(name)) {
            Ok(true) => break,
            // Its policy has gone with it, and what that gave too.
            Ok(false) => ender.learn(None),
            Err(_) => {}
        }
        if worker::wait(PAUSE.min(ender.end()), None) == Wake::Stop {
            worker::end();
        }
    }
    board::miss_database(false);
    worker::end();
}

/// What is published, and what it was made of.
#[derive(Default)]
struct Desk {
    /// The generation of the policy; None: it is to be read again.
    published: Option<i64>,
    policy: Option<PolicyImage>,
    /// What [`reading::people_mark`] gave last, on a standby.
    people: String,
    /// Requests to be answered once what came of them is published.
    served: Served,
    ender: Ender,
}

impl Desk {
    /// Reads and publishes what changed; false if it must be tried again.
    fn publish(&mut self) -> bool {
        // The number first, the snapshot after it: whoever bumped the number had committed before.
        let asked = board::asked();
        let followers = requests::asked_to_follow();
        let known = self.published.filter(|_| board::policy_generation() >= asked);
        fail_point("registry_reading");
        let read = move || {
            let found = read(known);
            fail_point("registry_read");
            found
        };
        let found = match worker::transaction(read) {
            Ok(Ok(found)) => found,
            Ok(Err(error)) | Err(error) => {
                report::warning("could not read the OIDC policy", Some(&format!("{error}.")), None);
                return false;
            }
        };
        fail_point("registry_publishing");
        match found {
            Found::Same => self.follow(),
            Found::Nothing => {
                (self.published, self.policy) = (None, None);
                if board::state() != board::State::Absent || board::policy_generation() != asked {
                    board::publish_absence(asked);
                }
                self.ender.learn(None);
            }
            Found::Policy(reading) => {
                complain(&reading.complaints);
                self.published = Some(reading.generation);
                let fits = put_up(&reading, asked);
                // After the flip: whoever was let in by the old policy has a slot by now.
                if let Ok(image) = &reading.image {
                    self.ender.learn(Some(image));
                }
                // Kept only where people may come: it takes some hundred bytes a rule.
                self.policy = reading.image.ok().filter(|image| fits && image.has_people());
            }
        }
        if self.published.is_some() {
            requests::note_followed(followers);
        }
        true
    }

    /// Does what logins ask for, publishes it, and answers.
    fn serve(&mut self, provisioner: &mut Provisioner) {
        if self.policy.is_none() {
            return;
        }
        let (changed, served) = provisioner.serve();
        self.served.add(served);
        if changed {
            self.publish_people();
        }
        // Else it is read and published again first: whoever is answered must find herself in it, and no login may
        // take a membership of ours for somebody else's.
        if self.published.is_some() {
            requests::end_granting();
            self.served.answer();
        }
    }

    /// Publishes bindings and memberships as they are now, with the rest as it was: nobody waits for another number.
    fn publish_people(&mut self) {
        let Some(policy) = &mut self.policy else { return };
        let published =
            worker::transaction(reading::people).and_then(|people| people).and_then(|(bindings, granted)| {
                policy.set_people(bindings, granted).map_err(|error| error.to_string())?;
                let bytes = board::encode_policy(policy)?;
                board::publish_policy(&bytes, board::policy_generation()).map_err(|error| error.to_string())
            });
        match published {
            Ok(()) => self.ender.learn(Some(policy)),
            // All of it is read again, which says what is the matter.
            Err(_) => self.published = None,
        }
    }

    /// On a standby: follows what the primary did to people by itself.
    fn follow(&mut self) {
        if !startup::is_standby() {
            return;
        }
        match worker::transaction(reading::people_mark).and_then(|mark| mark) {
            Ok(mark) if mark == self.people => {}
            Ok(mark) => {
                self.people = mark;
                self.publish_people();
            }
            Err(_) => self.published = None,
        }
    }
}

/// Publishes a policy; false: it cannot be, and tokens are refused.
fn put_up(reading: &Reading, asked: u64) -> bool {
    let encoded = match &reading.image {
        Ok(image) => board::encode_policy(image),
        Err(error) => Err(error.clone()),
    };
    let (message, detail, hint) = match encoded.map(|bytes| board::publish_policy(&bytes, asked)) {
        Ok(Ok(())) => return true,
        Ok(Err(too_large)) => (
            "the OIDC policy does not fit into shared memory, token logins are refused",
            too_large.to_string(),
            Some("Raise \"pg_oidc.shared_memory\" and restart the server, or remove rules."),
        ),
        Err(error) => {
            ("the OIDC policy cannot be published, token logins are refused", format!("{error}."), None)
        }
    };
    report::warning(message, Some(&detail), hint);
    board::publish_overflow(asked);
    false
}

fn complain(complaints: &[Complaint]) {
    for Complaint { row, consequence, error } in complaints {
        let detail = rows::sentence(error);
        report::warning(&format!("{row} {consequence}"), Some(&detail), error.hint.as_deref());
    }
}
