//! The keys that verify tokens: shown, and fetched on demand.

use super::{await_policy, must_be_preloaded};
use crate::board::{self, Wish};
use crate::pg::report;
use crate::pg::startup;
use pg_oidc_core::image::ProviderKeys;
use pg_oidc_core::keys::KeyReport;
use pgrx::PgSqlErrorCode;

/// Where keys that are to be fetched come from, of all providers or of one.
fn sources(provider: Option<&str>) -> Vec<u64> {
    let mut sources = Vec::new();
    board::read(|policy, _| {
        let wanted =
            policy.providers().filter(|known| provider.is_none_or(|name| known.name.as_str() == name));
        sources.extend(wanted.map(|known| known.key_source.to_native()));
    });
    sources
}

#[pgrx::pg_schema]
mod oidc {
    use super::*;
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::prelude::*;

    type Row = (
        String,
        Option<String>,
        Option<String>,
        Option<String>,
        Option<bool>,
        Option<String>,
        String,
        Option<TimestampWithTimeZone>,
        Option<TimestampWithTimeZone>,
        Option<String>,
    );

    /// Every key of every provider, usable or not; a provider without any has one row.
    #[pg_extern(volatile)]
    #[allow(clippy::type_complexity, reason = "the columns of the view")]
    fn key_rows() -> TableIterator<
        'static,
        (
            name!(provider, String),
            name!(kid, Option<String>),
            name!(kty, Option<String>),
            name!(alg, Option<String>),
            name!(usable, Option<bool>),
            name!(problem, Option<String>),
            name!(origin, String),
            name!(fetched_at, Option<TimestampWithTimeZone>),
            name!(next_fetch_at, Option<TimestampWithTimeZone>),
            name!(last_error, Option<String>),
        ),
    > {
        must_be_preloaded();
        TableIterator::new(board::keyring().into_iter().flat_map(rows))
    }

    fn rows(entry: ProviderKeys) -> Vec<Row> {
        let at = |micros: i64| TimestampWithTimeZone::try_from(startup::to_core_epoch(micros)).ok();
        let fetched_at = if entry.static_keys || entry.keys.is_empty() { None } else { at(entry.fetched_at) };
        let next_fetch_at = entry.next_fetch_at.and_then(at);
        let row = |key: Option<&KeyReport>| -> Row {
            (
                entry.name.clone(),
                key.and_then(|key| key.kid.clone()),
                key.and_then(|key| key.kty.clone()),
                key.and_then(|key| key.alg).map(|alg| alg.name().to_owned()),
                key.map(|key| key.usable.is_ok()),
                key.and_then(|key| key.usable.err()).map(|problem| problem.sentence().to_owned()),
                entry.origin.clone(),
                fetched_at,
                next_fetch_at,
                entry.last_error.clone(),
            )
        };
        if entry.reports.is_empty() {
            vec![row(None)]
        } else {
            entry.reports.iter().map(|key| row(Some(key))).collect()
        }
    }

    /// Asks for the keys of one provider, or of all, to be fetched now. Returns at once.
    #[pg_extern(volatile)]
    fn refresh_keys(provider: default!(Option<&str>, "NULL")) {
        must_be_preloaded();
        // What was committed before counts here as it does in a login.
        await_policy();
        let sources = sources(provider);
        if let (Some(provider), true) = (provider, sources.is_empty()) {
            report::raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                &format!("OIDC provider \"{provider}\" does not exist"),
                None,
                Some("The table oidc.provider lists the providers."),
            );
        }
        let left =
            sources.iter().filter(|source| !board::request_keys(**source, Wish::Administrator)).count();
        if left > 0 {
            pgrx::warning!("{left} providers were not asked: too many requests are waiting");
        }
    }
}
