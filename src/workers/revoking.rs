//! Revocations that end by themselves: the people's roles that were locked for them may log in again.

use super::reading::has_column;
use crate::pg::{report, startup, worker};
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// How often they are looked for: a role is unlocked at most this long after its revocation has ended. Its tokens are
/// accepted again at once.
const EVERY: Duration = Duration::from_secs(1);

/// When they were last looked for.
#[derive(Default)]
pub(super) struct Unlocker {
    looked_at: Option<Instant>,
    /// Whether there is any.
    any: bool,
}

impl Unlocker {
    /// The policy was read again: there may be new ones.
    pub(super) fn learn(&mut self) {
        self.any = true;
    }

    /// Unlocks what is due. The trigger of the table does it.
    pub(super) fn unlock(&mut self) {
        let due = self.looked_at.is_none_or(|at| at.elapsed() >= EVERY);
        if !self.any || !due || startup::is_standby() {
            return;
        }
        self.looked_at = Some(Instant::now());
        match worker::transaction(unlock).and_then(|done| done) {
            Ok(any) => self.any = any,
            Err(error) => {
                let detail = format!("{error}. It is tried again.");
                report::warning("could not unlock roles whose revocation has ended", Some(&detail), None);
            }
        }
    }
}

/// Whether there are any that end later.
fn unlock() -> Result<bool, String> {
    let later = "SELECT count(*) FILTER (WHERE r.until <= clock_timestamp()), \
                        count(*) FILTER (WHERE r.until > clock_timestamp() AND r.until < 'infinity') \
                   FROM oidc.revocation r WHERE r.role_locked";
    Spi::connect_mut(|client| {
        if !has_column(client, "oidc.revocation", "role_locked")? {
            return Ok(false);
        }
        let (over, open) = client.select(later, Some(1), &[])?.first().get_two::<i64, i64>()?;
        if over.unwrap_or(0) > 0 {
            client.update(
                "UPDATE oidc.revocation SET until = until WHERE role_locked AND until <= clock_timestamp()",
                None,
                &[],
            )?;
        }
        Ok(open.unwrap_or(0) > 0)
    })
    .map_err(|error: spi::Error| error.to_string())
}
