//! The letterbox: one bounded HTTPS GET of a JSON document at a time, many at once, for the keyring worker.
//!
//! It knows nothing of PostgreSQL, of tokens or of keys. [`Fetcher`] owns the one thread on which anything
//! happens; its caller submits [`Request`]s, sleeps on a file descriptor and collects a [`Response`] or a
//! [`FetchError`] for each.
//!
//! | an answer that is | becomes |
//! |---|---|
//! | 200, JSON by its content type, complete, within the byte cap and the time limit | [`Response::Fresh`] |
//! | 304, and the request carried an ETag | [`Response::NotModified`] |
//! | anything else: another status, a redirect, another type, too long, too slow, untrusted TLS, plain http | [`FetchError`] |

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod error;
mod exchange;
mod fetcher;
mod progress;
mod request;
mod resolver;
mod response;
mod trust;

pub use error::{FetchError, Phase};
pub use fetcher::{Fetcher, Gone};
pub use request::Request;
pub use response::Response;
