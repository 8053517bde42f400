//! The fuzz targets of pg_oidc. Each is one function over bytes that panics if something does not hold; all but
//! [`differential`] are those that the tests of `pg_oidc_core` call with proptest.

#[allow(dead_code, reason = "the tests' issuer, of which fuzzing needs a part")]
#[path = "../../../src/core/tests/common.rs"]
mod common;
mod differential;
#[allow(dead_code, reason = "some of it is for the tests alone")]
#[path = "../../../src/core/tests/fuzz/mod.rs"]
mod fuzz;
mod repeats;

/// The bytes of a password message, to the decision.
pub fn token(data: &[u8]) {
    fuzz::token::check(data);
}

/// The body of a key set.
pub fn jwks(data: &[u8]) {
    fuzz::jwks::check(data);
}

/// The body of a discovery document, and an issuer.
pub fn discovery(data: &[u8]) {
    fuzz::discovery::check(data);
}

/// A match document, and claims.
pub fn match_document(data: &[u8]) {
    fuzz::matching::check(data);
}

/// The bytes of an image.
pub fn image(data: &[u8]) {
    fuzz::image::check(data);
}

/// Our verdict on a token beside that of another library.
pub fn differential(data: &[u8]) {
    disagreement(data);
}

/// Why the two disagree about a token, or that they agree.
pub fn disagreement(data: &[u8]) -> &'static str {
    differential::check(data)
}

/// For each target the inputs that its fuzzing starts from.
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    use fuzz::seeds;
    let tokens = [seeds::good_tokens(), seeds::bad_tokens()].concat();
    vec![
        ("token", tokens.clone()),
        ("jwks", [seeds::key_sets(), seeds::near_key_sets()].concat()),
        ("discovery", [seeds::discoveries(), seeds::near_discoveries()].concat()),
        ("match_document", [seeds::matches(), seeds::odd_matches()].concat()),
        ("image", seeds::images()),
        ("differential", tokens),
    ]
}
