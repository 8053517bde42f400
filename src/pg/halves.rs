//! One published image in shared memory: two halves, of which one is read while the other is written.
//!
//! A writer fills the idle half without a lock (nobody reads it: readers read the active half under the board's lock,
//! shared) and flips under the lock, exclusive.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Halves start at multiples of this, which is more than any archived type needs.
pub(crate) const ALIGNMENT: usize = 64;

/// In shared memory, where zeroed bytes are two halves without room.
#[repr(C)]
pub(crate) struct Halves {
    /// How often it was published.
    pub(crate) editions: AtomicU64,
    active: AtomicUsize,
    lengths: [AtomicUsize; 2],
    starts: [AtomicUsize; 2],
    pub(crate) capacity: AtomicUsize,
    /// Bytes of the image that was last to be published, whether it fitted or not.
    offered: AtomicUsize,
}

/// How much of its half an image takes; more than all of it where it did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) bytes: usize,
    pub(crate) capacity: usize,
}

impl fmt::Display for Fill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "It needs {} bytes, and there are {}.", self.bytes, self.capacity)
    }
}

impl Halves {
    /// Gives it two halves of `capacity` bytes from `start`.
    ///
    /// # Safety
    /// They lie in shared memory that is nobody else's, `start` at a multiple of [`ALIGNMENT`]; once, before it is used.
    pub(crate) unsafe fn lay_out(&self, start: usize, capacity: usize) {
        self.starts[0].store(start, Ordering::Relaxed);
        self.starts[1].store(start + capacity, Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Copies an image into the idle half and gives its number. Without the lock: nobody reads the idle half.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Result<usize, Fill> {
        let idle = 1 - (self.active.load(Ordering::Acquire) & 1);
        let capacity = self.capacity.load(Ordering::Relaxed);
        self.offered.store(bytes.len(), Ordering::Relaxed);
        if bytes.len() > capacity {
            return Err(Fill { bytes: bytes.len(), capacity });
        }
        // SAFETY: each face has one writer, its worker; the idle half has had no reader since the lock was last
        // held exclusive, and `capacity` bytes of it lie inside the segment.
        unsafe {
            let half = self.starts[idle].load(Ordering::Relaxed) as *mut u8;
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), half, bytes.len());
        }
        Ok(idle)
    }

    pub(crate) fn fill_level(&self) -> Fill {
        Fill { bytes: self.offered.load(Ordering::Relaxed), capacity: self.capacity.load(Ordering::Relaxed) }
    }

    /// Makes a filled half the active one. Under the lock, exclusive.
    pub(crate) fn flip(&self, half: usize, len: usize) {
        self.lengths[half].store(len, Ordering::Relaxed);
        self.active.store(half, Ordering::Release);
        self.editions.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes the image down. Under the lock, exclusive.
    pub(crate) fn empty(&self) {
        self.lengths[self.active.load(Ordering::Relaxed) & 1].store(0, Ordering::Relaxed);
    }

    /// The active half; None while nothing is published. Only under the lock.
    pub(crate) fn active_bytes(&self) -> Option<&[u8]> {
        let active = self.active.load(Ordering::Acquire) & 1;
        let (start, len) =
            (self.starts[active].load(Ordering::Relaxed), self.lengths[active].load(Ordering::Relaxed));
        // SAFETY: `len` bytes from `start` were written by `publish` and lie inside the segment.
        (len > 0).then(|| unsafe { std::slice::from_raw_parts(start as *const u8, len) })
    }
}
