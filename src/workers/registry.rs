//! The registry worker: the only place with SQL. Reads the policy tables and publishes the policy.

use super::keeping::{self, Keeper};
use crate::board::{self, Staff};
use crate::pg::worker::Wake;
use crate::pg::{catalog, report, worker};
use crate::{rows, settings};
use pg_oidc_core::image::PolicyImage;
use pg_oidc_core::provider::Provider;
use pg_oidc_core::row::RowError;
use pg_oidc_core::rules::Rule;
use pgrx::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the generation is looked at: what fires no trigger here (replay on a standby, a drop from outside)
/// counts within a second.
const POLL: Duration = Duration::from_millis(500);
/// How often everything is read again whatever the generation says: what was changed with the triggers disabled in a
/// way that no hook reports counts by then.
const AGAIN: Duration = Duration::from_secs(60);
/// How long to wait after a failed reading.
const PAUSE: Duration = Duration::from_secs(1);

static CONNECTED: AtomicBool = AtomicBool::new(false);

/// What the tables hold, compiled.
struct Reading {
    generation: i64,
    image: Result<PolicyImage, String>,
    /// What is wrong with single rows; each gives nothing until it is mended.
    complaints: Vec<Complaint>,
}

struct Complaint {
    row: String,
    error: RowError,
}

/// What the database holds.
enum Found {
    /// No extension.
    Nothing,
    /// The generation that is published already.
    Same,
    Policy(Reading),
}

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
    CONNECTED.store(true, Ordering::Relaxed);
    // A table that somebody has locked must not hold this worker for ever.
    worker::set(c"lock_timeout", c"2s");
    worker::set(c"statement_timeout", c"0");
    // What the owner of the database has set for all its sessions must not reach this one.
    worker::set(c"role", c"none");
    worker::set(c"search_path", c"pg_catalog, pg_temp");
    let mut keeper = Keeper::default();
    let mut published = None;
    let mut read_at = Instant::now();
    loop {
        if read_at.elapsed() >= AGAIN {
            published = None;
        }
        if published.is_none() {
            read_at = Instant::now();
        }
        let pause = if publish(&mut published) { POLL } else { PAUSE };
        keeper.keep();
        if worker::wait(pause, None) == Wake::Stop {
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
    while !worker::transaction(|| catalog::database_exists(name)).unwrap_or(false) {
        if worker::wait(PAUSE, None) == Wake::Stop {
            worker::end();
        }
    }
    board::miss_database(false);
    worker::end();
}

/// Reads and publishes what changed; false if it must be tried again.
fn publish(published: &mut Option<i64>) -> bool {
    // The number first, the snapshot after it: whoever bumped the number had committed before.
    let asked = board::asked();
    let known = published.filter(|_| board::policy_generation() >= asked);
    let found = match worker::transaction(move || read(known)) {
        Ok(Ok(found)) => found,
        Ok(Err(error)) | Err(error) => {
            report::warning("could not read the OIDC policy", Some(&format!("{error}.")), None);
            return false;
        }
    };
    match found {
        Found::Same => {}
        Found::Nothing => {
            *published = None;
            if board::state() != board::State::Absent || board::policy_generation() != asked {
                board::publish_absence(asked);
            }
        }
        Found::Policy(reading) => {
            complain(&reading.complaints);
            *published = Some(reading.generation);
            put_up(&reading, asked);
        }
    }
    true
}

fn put_up(reading: &Reading, asked: u64) {
    let encoded = match &reading.image {
        Ok(image) => board::encode_policy(image),
        Err(error) => Err(error.clone()),
    };
    match encoded {
        Ok(bytes) => {
            if let Err(too_large) = board::publish_policy(&bytes, asked) {
                report::warning(
                    "the OIDC policy does not fit into shared memory, token logins are refused",
                    Some(&too_large.to_string()),
                    Some("Raise \"pg_oidc.shared_memory\" and restart the server, or remove rules."),
                );
                board::publish_overflow(asked);
            }
        }
        Err(error) => {
            report::warning(
                "the OIDC policy cannot be published, token logins are refused",
                Some(&format!("{error}.")),
                None,
            );
            board::publish_overflow(asked);
        }
    }
}

fn complain(complaints: &[Complaint]) {
    for Complaint { row, error } in complaints {
        let detail = rows::sentence(error);
        report::warning(&format!("{row} gives nothing"), Some(&detail), error.hint.as_deref());
    }
}

/// All of the policy, of one moment: the transaction is REPEATABLE READ.
fn read(known: Option<i64>) -> Result<Found, String> {
    Spi::connect(|client| {
        let sql = |error: spi::Error| error.to_string();
        let there = client
            .select("SELECT 1 FROM pg_extension WHERE extname = 'pg_oidc'", Some(1), &[])
            .map_err(sql)?;
        if there.is_empty() {
            return Ok(Found::Nothing);
        }
        let generation = client
            .select("SELECT generation FROM oidc.policy_state", Some(1), &[])
            .map_err(sql)?
            .first()
            .get_one::<i64>()
            .map_err(sql)?
            .unwrap_or(0);
        if known == Some(generation) {
            return Ok(Found::Same);
        }
        let mut complaints = Vec::new();
        let mut providers = providers(client, &mut complaints)?;
        keeping::give_back(client, &mut providers)?;
        let rules = rules(client, &mut complaints)?;
        let image = PolicyImage::build(providers, rules).map_err(|error| error.to_string());
        Ok(Found::Policy(Reading { generation, image, complaints }))
    })
}

fn providers(client: &spi::SpiClient<'_>, complaints: &mut Vec<Complaint>) -> Result<Vec<Provider>, String> {
    let query = "SELECT p.name, oidc.provider_row(p) FROM oidc.provider p";
    compile(client, query, rows::provider, complaints, |name| format!("OIDC provider {name:?}"))
}

fn rules(client: &spi::SpiClient<'_>, complaints: &mut Vec<Complaint>) -> Result<Vec<Rule>, String> {
    let query = "SELECT m.id::text, oidc.rule_row(m) FROM oidc.role_mapping m WHERE m.enabled";
    compile(client, query, rows::rule, complaints, |id| format!("OIDC rule {id}"))
}

/// Compiles each row that `query` gives as key and JSON; a row that does not compile is a complaint.
fn compile<T>(
    client: &spi::SpiClient<'_>,
    query: &str,
    compile: fn(&str) -> Result<T, RowError>,
    complaints: &mut Vec<Complaint>,
    called: impl Fn(&str) -> String,
) -> Result<Vec<T>, String> {
    let sql = |error: spi::Error| error.to_string();
    let table = client.select(query, None, &[]).map_err(sql)?;
    let mut compiled = Vec::with_capacity(table.len());
    for tuple in table {
        let key: String = tuple.get(1).map_err(sql)?.unwrap_or_default();
        let row: String = tuple.get(2).map_err(sql)?.unwrap_or_default();
        match compile(&row) {
            Ok(row) => compiled.push(row),
            Err(error) => complaints.push(Complaint { row: called(&key), error }),
        }
    }
    Ok(compiled)
}
