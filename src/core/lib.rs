//! The decision of pg_oidc: from the bytes in the password field to the role they give.
//!
//! ```text
//! bytes ── token::parse ──► Untrusted ── decision::select ──► Selected (the provider's checks, one key)
//!                               └──────── verify::verify ◄──────┘
//!                                               │
//!                                           Verified ── decision::decide ──► Decision
//! ```
//!
//! Nothing here reads a clock, a file, a socket or a table: `now` is an argument in microseconds since the Unix
//! epoch, policy and keyring are [`image`]s that workers build and logins read in place. Every function that can
//! refuse gives a [`refusal::Refusal`]; every row that cannot be compiled gives a [`row::RowError`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod account;
pub mod algorithm;
pub mod claim;
pub mod condition;
pub mod decision;
pub mod discovery;
pub mod explanation;
pub mod hba;
pub mod image;
pub mod json;
pub mod keys;
pub mod limits;
pub mod oauth_line;
pub mod people;
pub mod person;
pub mod provider;
pub mod refusal;
pub mod revocation;
pub mod row;
pub mod rules;
pub mod session_limit;
pub mod standing;
pub mod token;
pub mod verify;

mod base64url;
mod checks;
mod confines;
mod derived;
mod effort;
mod explained_rules;
mod fingerprint;
mod header;
mod index;
mod jwks;
mod matching;
mod naming;
mod near;
mod number;
mod path;
mod pattern;
mod roca;
mod selection;
mod subject;
mod time;
mod trace;
mod url;

#[cfg(test)]
#[path = "tests/vectors.rs"]
mod vectors;
