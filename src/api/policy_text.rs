//! The policy in words. Pure: works in any database, and where the library is not preloaded.

#[pgrx::pg_schema]
mod oidc {
    use pg_oidc_core::{condition, limits};
    use pgrx::prelude::*;

    /// A `match` in words; what cannot be read is given back as it is, so that a view never fails for one row. Anybody may
    /// call it, so what is longer than any `match` is not even copied.
    #[pg_extern(immutable, parallel_safe)]
    fn condition_text(condition: &str) -> String {
        if condition.len() > limits::MATCH_BYTES {
            return "(too long to show)".to_owned();
        }
        condition::describe(condition).unwrap_or_else(|_| condition.to_owned())
    }
}
