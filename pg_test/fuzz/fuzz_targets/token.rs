#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pg_oidc_fuzz::token(data));
