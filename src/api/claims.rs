//! The caller's own verified login, for RLS policies and views.

use super::must_be_preloaded;
use crate::pg::report;
use crate::session;
use pg_oidc_core::claim;
use pgrx::PgSqlErrorCode;

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::prelude::*;

    /// The identity that the session's token names; null in a session without a token.
    #[pg_extern(stable, parallel_safe)]
    fn identity() -> Option<String> {
        must_be_preloaded();
        session::identity()
    }

    /// The provider of the session's token; null in a session without a token.
    #[pg_extern(stable, parallel_safe)]
    fn provider() -> Option<String> {
        must_be_preloaded();
        session::provider()
    }

    /// All claims of the session's token; null in a session without a token.
    #[pg_extern(stable, parallel_safe)]
    fn claims() -> Option<pgrx::JsonB> {
        must_be_preloaded();
        // Written by the decision from a parsed token: it is JSON.
        session::claims().and_then(|text| serde_json::from_str(&text).ok()).map(pgrx::JsonB)
    }

    /// One claim as text, by name or, with a leading `/`, by JSON Pointer (RFC 6901); null where there is none.
    #[pg_extern(stable, parallel_safe)]
    fn claim(pointer: &str) -> Option<String> {
        must_be_preloaded();
        let claims = session::claims().unwrap_or_default();
        claim::text(&claims, pointer).unwrap_or_else(|error| {
            report::raise(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                &error.message,
                error.detail.as_deref(),
                error.hint.as_deref(),
            )
        })
    }
}
