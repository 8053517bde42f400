//! The caller's own verified login, for RLS policies and views.

use super::must_be_preloaded;
use crate::pg::{catalog, report};
use crate::session;
use pg_oidc_core::claim;
use pgrx::PgSqlErrorCode;

/// Tokens are UTF-8. In a database of another encoding only ASCII reads the same, and one name must never read as
/// another.
fn must_be_shown(value: String) -> String {
    if !value.is_ascii() && !catalog::database_is_utf8() {
        report::raise(
            PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
            "could not show the value in the encoding of this database",
            Some("The token's value is UTF-8 and holds characters beyond ASCII."),
            Some("Use a database with encoding UTF8."),
        );
    }
    value
}

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::prelude::*;

    /// The identity that the session's token names; null in a session without a token.
    #[pg_extern(stable, parallel_safe)]
    fn identity() -> Option<String> {
        must_be_preloaded();
        session::identity().map(must_be_shown)
    }

    /// The provider of the session's token; null in a session without a token.
    #[pg_extern(stable, parallel_safe)]
    fn provider() -> Option<String> {
        must_be_preloaded();
        session::provider().map(must_be_shown)
    }

    /// All claims of the session's token as JSON text, exact to the last digit; `oidc.claims()` gives them as jsonb.
    #[pg_extern(stable, parallel_safe)]
    fn claims_text() -> Option<String> {
        must_be_preloaded();
        session::claims().map(must_be_shown)
    }

    /// One claim as text, by name or, with a leading `/`, by JSON Pointer (RFC 6901); null where there is none.
    #[pg_extern(stable, parallel_safe)]
    fn claim(pointer: &str) -> Option<String> {
        must_be_preloaded();
        let claims = session::claims().unwrap_or_default();
        let value = claim::text(&claims, pointer).unwrap_or_else(|error| {
            crate::api::raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, &error)
        });
        value.map(must_be_shown)
    }
}
