//! Keys that are to be fetched again, as logins and administrators ask for them; a part of the board.

use pg_oidc_core::limits;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who asks for newer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A login with a key that nobody knows: not more often than the provider's pause allows.
    Login,
    /// `oidc.refresh_keys`: now.
    Administrator,
}

/// Sources of keys, by who asks; 0 is a free place. In shared memory, where zeroed bytes are an empty list.
#[repr(C)]
pub(crate) struct KeyRequests([[AtomicU64; limits::KEY_REQUESTS]; 2]);

impl KeyRequests {
    /// Notes a source, once. False: there is no place left.
    pub(crate) fn note(&self, key_source: u64, wish: Wish) -> bool {
        let places = &self.0[wish as usize];
        places.iter().any(|place| place.load(Ordering::Acquire) == key_source)
            || places.iter().any(|place| {
                place.compare_exchange(0, key_source, Ordering::AcqRel, Ordering::Acquire).is_ok()
            })
    }

    /// Takes what was noted.
    pub(crate) fn take(&self) -> Vec<(u64, Wish)> {
        [Wish::Login, Wish::Administrator]
            .into_iter()
            .flat_map(|wish| self.0[wish as usize].iter().map(move |place| (place, wish)))
            .map(|(place, wish)| (place.swap(0, Ordering::AcqRel), wish))
            .filter(|(key_source, _)| *key_source != 0)
            .collect()
    }
}
