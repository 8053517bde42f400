//! Live token sessions, for people to look at and to end.

use super::must_be_preloaded;
use crate::pg::startup;
use crate::sessions;
use pg_oidc_core::standing::Cause;

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::datum::{Inet, TimestampWithTimeZone};
    use pgrx::prelude::*;

    /// Every live token session of the server.
    #[pg_extern(volatile)]
    #[allow(clippy::type_complexity, reason = "the columns of the view")]
    fn session_rows() -> TableIterator<
        'static,
        (
            name!(pid, i32),
            name!(provider, String),
            name!(subject, String),
            name!(identity, String),
            name!(role, String),
            name!(since, Option<TimestampWithTimeZone>),
            name!(ends_at, Option<TimestampWithTimeZone>),
            name!(database, String),
            name!(client_address, Option<Inet>),
        ),
    > {
        must_be_preloaded();
        let at = |micros: i64| TimestampWithTimeZone::try_from(startup::to_core_epoch(micros)).ok();
        TableIterator::new(sessions::live().into_iter().map(move |slot| {
            let address = slot.address.get();
            (
                slot.pid,
                slot.provider.get().to_owned(),
                slot.subject.get().to_owned(),
                slot.identity.get().to_owned(),
                slot.role.get().to_owned(),
                at(slot.since),
                at(slot.ends_at).filter(|_| slot.ends_at != i64::MAX),
                slot.database.get().to_owned(),
                (!address.is_empty()).then(|| Inet(address.to_owned())),
            )
        }))
    }

    /// Ends the sessions of an identity at once, all but this one, and gives how many.
    #[pg_extern(volatile)]
    fn end_identity(provider: &str, subject: &str, revoked: bool) -> i32 {
        must_be_preloaded();
        sessions::end_identity(provider, subject, if revoked { Cause::Revoked } else { Cause::Ended })
    }
}
