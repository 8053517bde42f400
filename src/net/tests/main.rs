//! The letterbox against servers that behave, and servers that do not; faults are numbered as in the names of the tests.
//!
//! 1. `transport`: what may be connected to (faults 36, 37, 39, 40).
//! 2. `answer`: which answers are accepted (faults 38, 46).
//! 3. `thread`: the thread, its queue, its wake-ups, its signals.

mod answer;
mod proxy;
mod support;
mod thread;
mod transport;
