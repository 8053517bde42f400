//! Fail points: named places where a build for tests fails or waits on demand, to show what comes of it.
//!
//! Only with the cargo feature `fail_points`, which no package has; without it a fail point is nothing. There
//! `pg_oidc.fail_point` says what to do, as `name=action`, several separated by commas:
//!
//! | action | what happens |
//! |---|---|
//! | `panic` | a Rust panic |
//! | `error` | an ERROR of PostgreSQL's, raised as any function of core's raises one |
//! | `wait` | it waits, serving interrupts, until the data directory holds a file `name.go` |
//!
//! Never under a lock of shared memory: an ERROR there would leave it to the end of the process.

/// Does nothing.
#[cfg(not(feature = "fail_points"))]
#[inline(always)]
pub(crate) fn fail_point(_: &'static str) {}

/// Does what `pg_oidc.fail_point` says of this place.
#[cfg(feature = "fail_points")]
pub(crate) fn fail_point(name: &'static str) {
    let Some(setting) = crate::settings::fail_point() else { return };
    let mut pairs = setting.split(',').filter_map(|pair| pair.trim().split_once('='));
    match pairs.find(|(known, _)| *known == name).map(|(_, action)| action) {
        Some("panic") => panic!("fail point {name}"),
        Some("error") => crate::pg::report::error(&format!("fail point {name}")),
        Some("wait") => wait(name),
        _ => {}
    }
}

#[cfg(feature = "fail_points")]
fn wait(name: &str) {
    use crate::{board, pg::report};
    use std::time::Duration;

    report::log(&format!("fail point {name} is reached"));
    let go = std::path::PathBuf::from(format!("{name}.go"));
    // Short waits one after the other: nobody broadcasts that a file is there.
    while !board::wait_until(Duration::from_millis(10), || go.exists()) {}
}
