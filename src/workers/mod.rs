//! The staff: two background workers, the only ones that ever talk to tables or to the outside.

mod auditing;
mod ending;
mod fetching;
mod keeping;
mod key_trail;
mod keyring;
mod provisioning;
mod reading;
mod registry;
mod revoking;

use crate::board::{self, Staff};
use crate::pg::worker::{self, Spec};

const KEYRING: Spec = Spec { name: "pg_oidc keyring", function: "pg_oidc_keyring_main" };
const REGISTRY: Spec = Spec { name: "pg_oidc registry", function: "pg_oidc_registry_main" };

/// Registers both workers; for `_PG_init`.
pub(crate) fn init() {
    worker::register(&KEYRING);
    worker::register(&REGISTRY);
}

/// Makes the board and notes on it which workers core has taken; for shmem_startup_hook.
pub(crate) fn open_board() {
    let hired: Vec<Staff> = [(Staff::Keyring, &KEYRING), (Staff::Registry, &REGISTRY)]
        .into_iter()
        .filter_map(|(staff, spec)| worker::registered(spec).then_some(staff))
        .collect();
    board::start(&hired);
}
