//! What confines a rule beside claims.
//!
//! 1. databases, and connections that have none
//! 2. addresses of both families, every length of network, Unix-domain sockets
//! 3. n123: replication
//! 4. validity, to the microsecond
//! 5. all of them hold for rules that deny as for rules that allow

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pg_oidc_core::decision::{Replication, Request};
use pg_oidc_core::rules::RuleRow;
use proptest::prelude::*;
use serde_json::json;

use crate::common::{Policy, World, claims, rule_row, token};
use crate::rows::some;

/// Whether a rule counts for a request, as one that allows and as one that denies.
fn counts(change: impl Fn(&mut RuleRow), request: &Request<'_>) -> bool {
    let verified = World::new().verified(&token(&claims())).unwrap();
    let mut allow = rule_row(1, &json!({"groups": "readers"}), "reader");
    change(&mut allow);
    let deny = RuleRow { id: 2, effect: "deny".to_owned(), role: None, ..allow.clone() };
    let everyone =
        |replication| RuleRow { replication: Some(replication), ..rule_row(3, &json!({}), "reader") };
    let denied = Policy::new(&[deny, everyone(true), everyone(false)]).decide(&verified, request);
    if allow.replication.is_some() {
        let allowed = Policy::new(&[allow]).decide(&verified, request);
        let refusal =
            if request.replication == Replication::None { "no_rule" } else { "replication_refused" };
        assert_eq!(allowed.is_ok(), denied.is_err());
        assert!(allowed == Ok(1) || allowed == Err(refusal), "{allowed:?}");
    }
    assert!(denied == Ok(3) || denied == Err("denied_by_rule"), "{denied:?}");
    denied.is_err()
}

fn request() -> Request<'static> {
    World::new().request()
}

#[test]
fn databases() {
    let is_for = |names: &[&str], database: &str, replication: Replication| {
        let change = |row: &mut RuleRow| {
            row.databases = Some(some(names));
            row.replication = Some(replication != Replication::None);
        };
        counts(change, &Request { database, replication, ..request() })
    };
    for replication in [Replication::None, Replication::Database] {
        assert!(is_for(&["app"], "app", replication));
        assert!(is_for(&["other", "app"], "app", replication));
        for near in ["App", "app2", "ap", "", "all", "replication", "app\0", " app"] {
            assert!(!is_for(&["app"], near, replication), "{near}");
        }
        // Words of HBA files have no meaning here.
        for word in ["all", "sameuser", "samerole", "/app", "+app", "*", "app,other"] {
            assert!(!is_for(&[word], "app", replication), "{word}");
        }
    }
    // A physical replication connection reads all databases, whatever name it comes with: more than a rule for some of
    // them allows, and what one denies.
    let verified = World::new().verified(&token(&claims())).unwrap();
    for database in ["", "app", "replication", "other"] {
        let request = Request { database, replication: Replication::Physical, ..request() };
        let some_databases = RuleRow {
            databases: Some(some(&["app", "replication"])),
            replication: Some(true),
            ..rule_row(1, &json!({}), "reader")
        };
        let allowed = Policy::new(std::slice::from_ref(&some_databases)).decide(&verified, &request);
        assert_eq!(allowed, Err("replication_refused"), "{database}");
        let deny = RuleRow { effect: "deny".to_owned(), role: None, ..some_databases };
        let everywhere = RuleRow { replication: Some(true), ..rule_row(2, &json!({}), "reader") };
        assert_eq!(Policy::new(std::slice::from_ref(&everywhere)).decide(&verified, &request), Ok(2));
        assert_eq!(Policy::new(&[deny, everywhere]).decide(&verified, &request), Err("denied_by_rule"));
    }
}

#[test]
fn addresses() {
    let is_for = |networks: &[&str], address: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        counts(|row| row.addresses = Some(some(networks)), &Request { address, ..request() })
    };
    for (network, inside, outside) in [
        ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"][..], &["9.255.255.255", "11.0.0.0"][..]),
        ("10.1.2.3/32", &["10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
        ("10.1.2.3", &["10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
        ("10.1.2.128/25", &["10.1.2.128", "10.1.2.255"], &["10.1.2.127", "10.1.3.128"]),
        ("128.0.0.0/1", &["128.0.0.0", "255.255.255.255"], &["127.255.255.255", "0.0.0.0"]),
        ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "::1", "::ffff:1.2.3.4"]),
        // Bits of the host that are set count for nothing.
        ("10.9.9.9/8", &["10.0.0.1", "10.255.0.1"], &["11.9.9.9"]),
        ("2001:db8::/32", &["2001:db8::", "2001:db8:ffff::1"], &["2001:db7::1", "2001:db9::", "32.1.13.184"]),
        ("::1/128", &["::1"], &["::", "::2", "127.0.0.1", "0.0.0.1"]),
        ("::/0", &["::", "ffff::"], &["0.0.0.0", "1.2.3.4"]),
        ("fe80::/10", &["fe80::1", "febf::1"], &["fec0::1", "fe7f::1"]),
        // An address of IPv4 inside of one of IPv6 is one of IPv6.
        ("::ffff:10.0.0.0/104", &["::ffff:10.1.1.1"], &["10.1.1.1", "::ffff:11.0.0.0"]),
    ] {
        for address in inside {
            assert!(is_for(&[network], Some(address)), "{network} {address}");
            assert!(is_for(&["192.0.2.0/24", network], Some(address)), "{network} {address}");
        }
        for address in outside {
            assert!(!is_for(&[network], Some(address)), "{network} {address}");
        }
        assert!(!is_for(&[network], None), "a Unix-domain socket has no address");
    }
    assert!(counts(|_| (), &request()), "null: all addresses, and none");
    assert!(counts(|_| (), &Request { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ..request() }));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_network_holds_the_addresses_that_share_its_bits(
        (network, bits, address, six) in (any::<u128>(), 0..=128_usize, any::<u128>(), any::<bool>()),
        shared in 0..=128_usize,
    ) {
        // Some bits of the address are the network's, so that they meet.
        let kept = u128::MAX.checked_shr(shared as u32).unwrap_or(0);
        let address = (network & !kept) | (address & kept);
        let wide = |all: u128| -> (IpAddr, String) {
            if six {
                (Ipv6Addr::from(all).into(), format!("{all:0128b}"))
            } else {
                let four = (all >> 96) as u32;
                (Ipv4Addr::from(four).into(), format!("{four:032b}"))
            }
        };
        let ((network, one), (address, other)) = (wide(network), wide(address));
        let bits = if six { bits } else { bits % 33 };
        let wanted = one[..bits] == other[..bits];
        let found = counts(
            |row| row.addresses = Some(vec![Some(format!("{network}/{bits}"))]),
            &Request { address: Some(address), ..request() },
        );
        prop_assert_eq!(found, wanted, "{}/{} {}", network, bits, address);
    }
}

#[test]
fn n123_replication() {
    for (kind, for_replication, for_ordinary) in [
        (Replication::None, false, true),
        (Replication::Physical, true, false),
        (Replication::Database, true, false),
    ] {
        let request = Request { replication: kind, ..request() };
        assert_eq!(counts(|row| row.replication = Some(true), &request), for_replication, "{kind:?}");
        assert_eq!(counts(|row| row.replication = Some(false), &request), for_ordinary, "{kind:?}");
        assert!(counts(|row| row.replication = None, &request), "both kinds, of a rule that denies");
    }
    // A database named "replication" is only a database.
    let world = World { database: "replication", ..World::new() };
    assert_eq!(world.outcome(&token(&claims())), "accepted");
}

#[test]
fn validity() {
    let at = |now, from, until| {
        counts(|row| (row.valid_from, row.valid_until) = (from, until), &Request { now, ..request() })
    };
    let now = request().now;
    assert!(at(now, None, None));
    assert!(at(now, Some(now), None));
    assert!(at(now, Some(now - 1), None));
    assert!(!at(now, Some(now + 1), None));
    assert!(at(now, None, Some(now + 1)));
    assert!(!at(now, None, Some(now)));
    assert!(!at(now, None, Some(now - 1)));
    assert!(at(now, Some(now), Some(now + 1)));
    assert!(!at(now - 1, Some(now), Some(now + 1)));
    assert!(!at(now + 1, Some(now), Some(now + 1)));
    // -infinity and infinity, as PostgreSQL stores them.
    assert!(at(now, Some(i64::MIN), Some(i64::MAX)));
    assert!(at(i64::MIN, Some(i64::MIN), None));
    assert!(at(i64::MAX - 1, None, Some(i64::MAX)));
    // Before 1970.
    assert!(at(-1, Some(-1), Some(0)));
    assert!(!at(0, Some(-1), Some(0)));
}

#[test]
fn every_confine_must_be_met() {
    let change = |row: &mut RuleRow| {
        row.databases = Some(some(&["app"]));
        row.addresses = Some(some(&["10.0.0.0/8"]));
        row.valid_from = Some(100);
        row.valid_until = Some(200);
    };
    let good = Request { address: Some("10.1.1.1".parse().unwrap()), now: 150, ..request() };
    assert!(counts(change, &good));
    for near in [
        Request { database: "other", ..good },
        Request { address: Some("11.1.1.1".parse().unwrap()), ..good },
        Request { address: None, ..good },
        Request { now: 99, ..good },
        Request { now: 200, ..good },
        Request { replication: Replication::Database, ..good },
        Request { replication: Replication::Physical, ..good },
    ] {
        assert!(!counts(change, &near), "{near:?}");
    }
}
