//! What must hold for any bytes. Each `check` takes the bytes that a fuzzer or proptest makes up, panics if something
//! does not hold, and says how far the bytes came.
//!
//! The fuzz targets in `pg_test/fuzz` and the tests in `fuzzed.rs` call the very same functions.
//!
//! ```text
//! token       the password field, to the decision          forge   tokens made from the bytes
//! jwks        a key set, to the keyring and its use        house   the policy and keyring of all of them
//! discovery   a discovery document, to the URL of the keys
//! matching    a match document, to what it matches
//! image       bytes of an image, to a login on it          seeds   inputs that come far
//! ```

pub(crate) mod discovery;
pub(crate) mod forge;
pub(crate) mod house;
pub(crate) mod image;
pub(crate) mod jwks;
pub(crate) mod matching;
pub(crate) mod seeds;
pub(crate) mod token;

/// Stands between the parts of an input: no JSON text holds it, as it is never in UTF-8.
pub(crate) const PART: u8 = 0xff;

/// Whatever tokens hold that may show nowhere.
pub(crate) const SECRET: &str = "S3CRET";

/// Messages of rows and documents are lines for a person.
pub(crate) fn assert_is_one_line(text: &str) {
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}
