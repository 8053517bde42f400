//! B5, `exp`, `nbf` and `iat`.

use pg_oidc_core::limits::{self, SECOND};
use serde_json::json;

use crate::common::{NOW, World, all_refused, claims, claims_with, token, with_text, without};

#[test]
fn n077_expiry_missing() {
    assert_eq!(World::new().outcome(&without("exp")), "expiry_missing");
}

#[test]
fn n078_times_are_numbers() {
    for value in ["\"1750000300\"", "null", "true", "[]", "{}"] {
        assert_eq!(World::new().outcome(&with_text("exp", value)), "expiry_invalid", "{value}");
        assert_eq!(World::new().outcome(&with_text("nbf", value)), "not_before_invalid", "{value}");
        assert_eq!(World::new().outcome(&with_text("iat", value)), "issued_at_invalid", "{value}");
    }
}

#[test]
fn n079_expiry_to_the_microsecond() {
    let at = |micros: i64, exp: &str| {
        let world = World { now: NOW * SECOND + micros, ..World::new() };
        world.outcome(&with_text("exp", exp))
    };
    let now = NOW.to_string();
    assert_eq!(at(0, &now), "token_expired");
    assert_eq!(at(-1, &now), "accepted");
    assert_eq!(at(0, &format!("{now}.000001")), "accepted");
    assert_eq!(at(0, &format!("{now}.0000009")), "token_expired");
    assert_eq!(at(0, &format!("{now}.0")), "token_expired");
    assert_eq!(at(-1, "175E7"), "accepted");
    assert_eq!(at(0, "17500000000e-1"), "token_expired");

    let skewed = |micros: i64| {
        let mut world = World::with_provider(|row| row.clock_skew_us = 30 * SECOND);
        world.now = NOW * SECOND + micros;
        world.outcome(&with_text("exp", &now))
    };
    assert_eq!(skewed(30 * SECOND - 1), "accepted");
    assert_eq!(skewed(30 * SECOND), "token_expired");
}

#[test]
fn n080_n081_expiry_out_of_range() {
    let values = [
        "-1",
        "0",
        "-0",
        "0.0000001",
        "-1750000300",
        "1e308",
        "1e19",
        "18446744073709551615",
        "9223372036854775807",
        "9223372036855",
        "253402300800",
        "2.534023008e11",
        "1750000300000000",
        "-1e308",
        "1e-308",
    ];
    all_refused(&World::new(), "expiry_invalid", values.map(|value| (value, with_text("exp", value))));
    let end = limits::TIME_END / SECOND;
    assert_eq!(World::new().outcome(&with_text("exp", &end.to_string())), "expiry_invalid");
    assert_eq!(World::new().outcome(&with_text("exp", &(end - 1).to_string())), "accepted");
    assert_eq!(World::new().outcome(&with_text("exp", &format!("{}.999999", end - 1))), "accepted");
    for value in ["1e1001", "1e99999999999999999999", "-1e-99999999999999999999"] {
        assert_eq!(World::new().outcome(&with_text("exp", value)), "payload_invalid", "{value}");
    }
    for value in ["01", "+1", ".5", "1.", "0x10", "1e", "NaN", "Infinity", "-", "1_000"] {
        assert_eq!(World::new().outcome(&with_text("exp", value)), "payload_invalid", "{value}");
    }
}

#[test]
fn extreme_clocks_do_not_overflow() {
    for now in [i64::MIN, i64::MAX, 0, -1] {
        for skew in [0, 300 * SECOND] {
            let mut world = World::with_provider(|row| {
                row.clock_skew_us = skew;
                row.max_token_age_us = Some(i64::MAX);
                row.max_stale_us = i64::MAX;
            });
            world.now = now;
            assert_ne!(world.outcome(&token(&claims())), "accepted", "{now}");
        }
    }
}

#[test]
fn n083_lifetime() {
    let world = World::with_provider(|row| row.max_token_age_us = Some(3600 * SECOND));
    let with = |iat: i64, exp: i64| world.outcome(&token(&claims_with(json!({"iat": iat, "exp": exp}))));
    assert_eq!(with(NOW - 10, NOW + 3590), "accepted");
    assert_eq!(with(NOW - 10, NOW + 3591), "lifetime_too_long");
    assert_eq!(with(NOW - 10, 253_402_300_799), "lifetime_too_long");
}

#[test]
fn n084_not_before() {
    let at = |skew: i64, nbf: i64| {
        let world = World::with_provider(|row| row.clock_skew_us = skew * SECOND);
        world.outcome(&token(&claims_with(json!({"nbf": nbf, "iat": null}))))
    };
    assert_eq!(at(0, NOW), "accepted");
    assert_eq!(at(0, NOW + 1), "not_yet_valid");
    assert_eq!(at(30, NOW + 30), "accepted");
    assert_eq!(at(30, NOW + 31), "not_yet_valid");
}

#[test]
fn n085_issued_in_the_future() {
    let at = |skew: i64, iat: i64| {
        let world = World::with_provider(|row| row.clock_skew_us = skew * SECOND);
        world.outcome(&token(&claims_with(json!({"iat": iat}))))
    };
    assert_eq!(at(0, NOW), "accepted");
    assert_eq!(at(0, NOW + 1), "issued_in_future");
    assert_eq!(at(30, NOW + 30), "accepted");
    assert_eq!(at(30, NOW + 31), "issued_in_future");
}

#[test]
fn n086_age() {
    assert_eq!(World::new().outcome(&without("iat")), "accepted");
    let aged = |skew: i64| {
        World::with_provider(|row| {
            row.max_token_age_us = Some(600 * SECOND);
            row.clock_skew_us = skew * SECOND;
        })
    };
    let with =
        |world: &World, iat: i64| world.outcome(&token(&claims_with(json!({"iat": iat, "exp": NOW + 1}))));
    assert_eq!(aged(0).outcome(&without("iat")), "issued_at_missing");
    assert_eq!(with(&aged(0), NOW - 599), "accepted");
    assert_eq!(with(&aged(0), NOW - 600), "lifetime_too_long");
    assert_eq!(with(&aged(0), NOW - 601), "token_too_old");
    assert_eq!(with(&aged(30), NOW - 631), "token_too_old");
}
