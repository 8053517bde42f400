//! How far one fetch has come, so that a timeout can say what it interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::Phase;

/// Shared between a fetch and the name resolver that works for it.
#[derive(Clone)]
pub(crate) struct Progress(Arc<AtomicU8>);

impl Progress {
    /// Starts at [`Phase::Connect`]: a URL with an address in it never enters the resolver.
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(Phase::Connect as u8)))
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        let reached = self.0.load(Ordering::Relaxed);
        [Phase::Resolve, Phase::Connect, Phase::Answer, Phase::Body]
            .into_iter()
            .find(|phase| *phase as u8 == reached)
            .unwrap_or(Phase::Connect)
    }
}
