//! The last good keys, kept in `oidc.jwks_cache` across restarts, on the keyring worker's behalf.
//!
//! Keys come from the board, where the keyring worker publishes them, and go back to it with the policy, which carries
//! what was kept; the keyring worker takes it for providers that it has no keys of.

use super::fetching::CACHE;
use crate::board;
use crate::fail_point::fail_point;
use crate::pg::{report, startup, worker};
use pg_oidc_core::image::ProviderKeys;
use pg_oidc_core::keys::jwks_text;
use pg_oidc_core::provider::{KeptKeys, Provider};
use pgrx::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long to wait after keys could not be written, as on a full disk.
const PAUSE: Duration = Duration::from_secs(60);

/// What is kept already: when the keys of each source were fetched.
#[derive(Default)]
pub(super) struct Keeper {
    kept: BTreeMap<u64, i64>,
    edition: u64,
    not_before: Option<Instant>,
}

impl Keeper {
    /// Writes what was fetched since the last call. On a standby, where nothing can be written, does nothing.
    pub(super) fn keep(&mut self) {
        let edition = board::keyring_edition();
        let pausing = self.not_before.is_some_and(|end| Instant::now() < end);
        if edition == self.edition || pausing || startup::is_standby() {
            return;
        }
        let fetched: Vec<ProviderKeys> = board::keyring()
            .into_iter()
            .filter(|entry| !entry.static_keys && !entry.keys.is_empty() && entry.origin != CACHE)
            .filter(|entry| self.kept.get(&entry.key_source) != Some(&entry.fetched_at))
            .collect();
        let written = if fetched.is_empty() { Ok(Ok(())) } else { worker::transaction(|| write(&fetched)) };
        match written {
            Ok(Ok(())) => {
                self.edition = edition;
                self.not_before = None;
                self.kept.extend(fetched.iter().map(|entry| (entry.key_source, entry.fetched_at)));
            }
            Ok(Err(error)) | Err(error) => {
                self.not_before = Some(Instant::now() + PAUSE);
                let detail = format!("{error}. Logins go on with the keys in memory.");
                report::warning(
                    "could not keep the keys of the OIDC providers across a restart",
                    Some(&detail),
                    None,
                );
            }
        }
    }
}

fn write(fetched: &[ProviderKeys]) -> Result<(), String> {
    fail_point("registry_keeping");
    let statement = "INSERT INTO oidc.jwks_cache (provider, body, fetched_at, fresh_until) \
         SELECT p.name, $2::jsonb, to_timestamp($3 / 1000000.0), to_timestamp($4 / 1000000.0) \
           FROM oidc.provider p WHERE p.name = $1 \
         ON CONFLICT (provider) DO UPDATE SET body = excluded.body, fetched_at = excluded.fetched_at, \
              fresh_until = excluded.fresh_until";
    Spi::connect_mut(|client| {
        // Where the extension has been dropped, a schema of its name is somebody else's: nothing of it is run.
        let there = client
            .select("SELECT 1 FROM pg_extension WHERE extname = 'pg_oidc'", Some(1), &[])
            .map_err(|error| error.to_string())?;
        if there.is_empty() {
            return Ok(());
        }
        for entry in fetched {
            let jwks = jwks_text(&entry.keys, entry.key_source);
            let fresh_until = entry.next_fetch_at.unwrap_or(entry.fetched_at);
            let arguments = [
                entry.name.as_str().into(),
                jwks.as_str().into(),
                entry.fetched_at.into(),
                fresh_until.into(),
            ];
            client.update(statement, None, &arguments).map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

/// Gives each provider the keys that were kept for it. In the caller's transaction.
///
/// # Errors
/// The table cannot be read.
pub(super) fn give_back(client: &spi::SpiClient<'_>, providers: &mut [Provider]) -> Result<(), String> {
    let sql = |error: spi::Error| error.to_string();
    let query = "SELECT provider, body::text, (extract(epoch FROM fetched_at) * 1000000)::bigint FROM oidc.jwks_cache";
    for tuple in client.select(query, None, &[]).map_err(sql)? {
        let name: Option<String> = tuple.get(1).map_err(sql)?;
        let (jwks, fetched_at) = (tuple.get(2).map_err(sql)?, tuple.get(3).map_err(sql)?);
        let provider = providers.iter_mut().find(|provider| Some(&provider.name) == name.as_ref());
        if let (Some(provider), Some(jwks), Some(fetched_at)) = (provider, jwks, fetched_at) {
            provider.keep(KeptKeys { jwks, fetched_at });
        }
    }
    Ok(())
}
