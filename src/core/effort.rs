//! How much matching of patterns one decision may cost: it runs while the policy is being read, so it must end soon,
//! whatever rules and claims are.

use std::cell::Cell;

use crate::limits;

/// What is left for one decision. When it is spent no pattern fits any more, and the decision refuses.
#[derive(Debug)]
pub(crate) struct Effort {
    left: Cell<u64>,
}

impl Effort {
    pub(crate) fn new() -> Effort {
        Effort { left: Cell::new(limits::PATTERN_EFFORT) }
    }

    /// Takes what one match of a text of `bytes` against a pattern of that weight may cost; false: there is not so much
    /// left, and nothing is matched any more.
    pub(crate) fn take(&self, weight: u32, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(1);
        let cost = u64::from(weight).saturating_mul(bytes);
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.unwrap_or(0));
        left.is_some_and(|left| left > 0)
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }
}
