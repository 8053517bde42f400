//! Many refused logins at once.

use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::keys::keys;
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::tampered;
use pg_oidc_test::wire::{Heard, Wire};
use serde_json::json;

use super::figure;
use crate::scene::{SOON, Stage, good};
use crate::stage::{calm, reasons};

const FLOOD: usize = 20_000;
/// Enough to keep two cores busy.
const HANDS: usize = 4;

/// So many refused logins of this user over the socket, as fast as they come: one in eight with the first password, the
/// others with the second.
pub(super) fn pour(cluster: &Cluster, user: &str, passwords: [&str; 2], count: usize) -> Result<()> {
    let hand = |_| -> Result<()> {
        for number in 0..count / HANDS {
            let bad = passwords[usize::from(number % 8 != 0)];
            let heard = Wire::log_in(cluster, Way::Socket, user, bad)?;
            ensure!(matches!(heard, Heard::Error(_)), "{heard:?}");
        }
        Ok(())
    };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS).map(|number| scope.spawn(move || hand(number))).collect();
        hands.into_iter().try_for_each(|hand| hand.join().map_err(|_| anyhow!("it panicked"))?)
    })
}

#[test]
fn f043_20000_refused_logins_lose_none() -> Result<()> {
    let stage = Stage::with(|builder| builder.guarded("local all all trust"))?;
    stage.trio("poured")?;
    let forged = tampered(&good("poured").sign(&keys().ec), |claims| {
        drop(claims.insert("jti".to_owned(), json!("x")))
    });
    let (admin, mark, begun) = (stage.admin()?, stage.cluster.log_mark(), Instant::now());
    pour(&stage.cluster, "poured", [&forged, "no token"], FLOOD)?;
    let taken = begun.elapsed();
    let waiting = figure(&admin, "audit_events_waiting")?;
    until("the queue is empty", SOON, || Ok(figure(&admin, "audit_events_waiting")? == 0))?;
    let written = begun.elapsed();
    let rows = admin.value("SELECT count(*) FROM oidc.audit_log WHERE event = 'login'")?.unwrap_or_default();
    let dropped = figure(&admin, "audit_events_dropped")?;
    println!(
        "{FLOOD} refused logins in {taken:?}: {waiting} were waiting, all written after {written:?}: {rows} rows, {dropped} dropped"
    );
    assert_eq!(usize::try_from(rows.parse::<i64>()? + dropped)?, FLOOD);
    assert_eq!(reasons(&stage.cluster, mark, "poured").len(), FLOOD, "lines in the server log");
    let counted = admin.rows(
        "SELECT coalesce(provider, '-'), outcome, reason, value::text FROM oidc.stat WHERE metric = 'logins' ORDER BY 1",
    )?;
    let counted: Vec<String> =
        counted.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(counted, ["- refused token_malformed 17500", "poured refused signature_invalid 2500"]);
    assert_eq!(figure(&admin, "audit_events_stored")?.to_string(), rows);
    calm(&stage.cluster, &[])
}
