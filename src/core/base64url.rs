//! Strict base64url: no padding, no other alphabet, one spelling for one value (RFC 7515, section 2; RFC 4648,
//! sections 3.5 and 5).

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine};

/// Why a text is not base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A character outside the alphabet, padding, or an impossible length.
    Malformed,
    /// The unused bits of the last character are not zero: a second spelling of the same bytes.
    NotCanonical,
}

/// The bytes that the text stands for.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, Problem> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| match error {
        DecodeError::InvalidLastSymbol(..) => Problem::NotCanonical,
        DecodeError::InvalidByte(..) | DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => {
            Problem::Malformed
        }
    })
}

/// The text that stands for the bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
