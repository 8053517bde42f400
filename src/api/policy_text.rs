//! The policy in words. Pure: works in any database, and where the library is not preloaded.

#[pgrx::pg_schema]
mod oidc {
    use pg_oidc_core::condition;
    use pgrx::prelude::*;

    /// A `match` in words; what cannot be read is given back as it is, so that a view never fails for one row.
    #[pg_extern(immutable, parallel_safe)]
    fn condition_text(condition: &str) -> String {
        condition::describe(condition).unwrap_or_else(|_| condition.to_owned())
    }
}
