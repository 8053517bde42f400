//! Ends sessions that are over: the registry worker does it after each publication and at least twice a second.

use crate::fail_point::fail_point;
use crate::pg::startup;
use crate::sessions;
use pg_oidc_core::image::PolicyImage;
use pg_oidc_core::standing::Standing;
use std::time::Duration;

/// What sessions are held against.
#[derive(Default)]
pub(super) struct Ender {
    /// None: not known yet, so that sessions end by time alone.
    standing: Option<Standing>,
}

impl Ender {
    /// This is the policy now; None: there is none.
    pub(super) fn learn(&mut self, policy: Option<&PolicyImage>) {
        self.standing = Some(policy.map(Standing::of).unwrap_or_default());
    }

    /// Ends what is over, and gives how long the next end is away.
    pub(super) fn end(&self) -> Duration {
        fail_point("registry_ending");
        let now = startup::now();
        let next = sessions::end_over(now, |ground| self.standing.as_ref()?.lost(ground, now));
        // Never too early: what is not over yet would only be looked at once more.
        let wait = u64::try_from(next.saturating_sub(now)).unwrap_or(0);
        Duration::from_micros(wait).saturating_add(Duration::from_millis(1))
    }
}
