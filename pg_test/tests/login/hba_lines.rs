//! Every line of the guarded file but `trust` keeps its meaning, and `trust` keeps its conditions.
//!
//! 1. `n124` A scram line asks for the stored password, peer looks at who runs the client, reject rejects:
//!    the door does nothing there.
//! 2. `n124` A user or a database that no line covers is refused as ever.
//! 3. `n124` A user named in a token line only for one database has it only there.
//! 4. `n141` `trust clientcert=verify-full`: without the right certificate refused, no question asked; with
//!    it, a token is still asked for.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{ASKED, Heard, Wire};

use crate::stage::{
    Shared, accepted, admit, builder, calm, core_refuses, good, install, lets_in, reasons, refuses, rule,
    share, shared, token,
};

/// The general line of the harness comes after these, for 127.0.0.1 only over TLS.
const LINES: [&str; 8] = [
    "hostssl all scrammed 127.0.0.1/32 scram-sha-256",
    "local all scrammed scram-sha-256",
    "local all peered peer map=admin",
    "local all tokened trust",
    "hostssl all rejected 127.0.0.1/32 reject",
    "hostssl all certified,client 127.0.0.1/32 trust clientcert=verify-full",
    "hostssl sales onlysales 127.0.0.1/32 trust",
    "hostssl all onlysales 127.0.0.1/32 reject",
];

static HBA: Shared = LazyLock::new(|| {
    share(|| {
        let cluster = LINES.iter().fold(builder()?, |builder, line| builder.guarded(line)).start()?;
        install(&cluster)?;
        cluster.admin("CREATE DATABASE sales")?;
        let ident = std::fs::read_to_string(cluster.file("data/pg_ident.conf"))?;
        cluster
            .write("data/pg_ident.conf", &format!("{ident}{}", ident.replace(" postgres\n", " peered\n")))?;
        cluster.reload()?;
        Ok(cluster)
    })
});

fn hba() -> Result<&'static Cluster> {
    shared(&HBA)
}

#[test]
fn n124_scram_line_takes_the_password() -> Result<()> {
    let cluster = hba()?;
    cluster.admin("CREATE ROLE scrammed LOGIN PASSWORD 'secret'")?;
    rule(cluster, "scrammed")?;
    let mark = cluster.log_mark();
    for way in [Way::Tls, Way::Socket] {
        let login = || cluster.login("scrammed").way(way);
        assert_eq!(login().password("secret").run("SELECT current_user")?.rows(), [["scrammed"]]);
        let failed = "password authentication failed for user \"scrammed\"";
        core_refuses(cluster, &login().password("wrong"), "scrammed", failed)?;
        // A good token, with a rule for this very role, is only a wrong password there.
        core_refuses(cluster, &login().password(token("scrammed")), "scrammed", failed)?;
    }
    let (_, first) = Wire::begin(cluster, Way::Tls, "scrammed")?;
    assert_eq!(first, Heard::Authentication(10), "SASL, and no password in clear text");
    assert_eq!((reasons(cluster, mark, "scrammed").len(), accepted(cluster, mark, "scrammed")), (0, 0));
    calm(cluster, &[])
}

#[test]
fn n124_peer_line_asks_nothing() -> Result<()> {
    let cluster = hba()?;
    admit(cluster, "peered")?;
    let mark = cluster.log_mark();
    let login = |user: &str| cluster.login(user).way(Way::Socket);
    assert_eq!(login("peered").run("SELECT current_user, oidc.identity()")?.rows(), [["peered", ""]]);
    assert_eq!((reasons(cluster, mark, "peered").len(), accepted(cluster, mark, "peered")), (0, 0));
    // The next line is a token line: there the same socket asks.
    admit(cluster, "tokened")?;
    refuses(cluster, &login("tokened").password("x"), "tokened", "token_malformed")?;
    lets_in(cluster, &good(cluster, "tokened").way(Way::Socket), "tokened")?;
    calm(cluster, &[])
}

#[test]
fn n124_reject_line_rejects() -> Result<()> {
    let cluster = hba()?;
    admit(cluster, "rejected")?;
    core_refuses(cluster, &good(cluster, "rejected"), "rejected", "pg_hba.conf rejects connection")?;
    let (_, first) = Wire::begin(cluster, Way::Tls, "rejected")?;
    ensure!(matches!(first, Heard::Error(_)), "{first:?}");
    calm(cluster, &[])
}

#[test]
fn n124_what_no_line_covers_is_refused() -> Result<()> {
    let cluster = hba()?;
    admit(cluster, "uncovered")?;
    let no_entry = "no pg_hba.conf entry for host \"127.0.0.1\"";
    core_refuses(cluster, &good(cluster, "uncovered").way(Way::Plain), "uncovered", no_entry)?;
    let socket = good(cluster, "uncovered").way(Way::Socket);
    core_refuses(cluster, &socket, "uncovered", "no pg_hba.conf entry for host \"[local]\"")?;
    lets_in(cluster, &good(cluster, "uncovered"), "uncovered")?;
    calm(cluster, &[])
}

#[test]
fn n124_a_line_for_one_database() -> Result<()> {
    let cluster = hba()?;
    admit(cluster, "onlysales")?;
    lets_in(cluster, &good(cluster, "onlysales").database("sales"), "onlysales")?;
    core_refuses(cluster, &good(cluster, "onlysales"), "onlysales", "pg_hba.conf rejects connection")?;
    let replication = good(cluster, "onlysales").parameter("replication=true");
    core_refuses(cluster, &replication, "onlysales", "no pg_hba.conf entry for replication connection")?;
    calm(cluster, &[])
}

#[test]
fn n141_trust_with_clientcert() -> Result<()> {
    let cluster = hba()?;
    // The harness' client certificate says CN=client.
    for role in ["client", "certified"] {
        admit(cluster, role)?;
    }
    let none = "connection requires a valid client certificate";
    core_refuses(cluster, &good(cluster, "client"), "client", none)?;
    let other = "\"trust\" authentication failed for user \"certified\"";
    core_refuses(cluster, &good(cluster, "certified").client_certificate(), "certified", other)?;
    // No question is asked before the certificate is right.
    let (mut wire, first) = Wire::begin(cluster, Way::Tls, "client")?;
    ensure!(matches!(first, Heard::Error(_)), "{first:?}");
    assert_eq!(wire.hear_all()?, []);
    let begin = |user: &str| -> Result<(Wire, Option<Heard>)> {
        let mut wire = Wire::connect_with_certificate(cluster)?;
        wire.startup(&[("user", user), ("database", "postgres")])?;
        let first = wire.hear()?;
        Ok((wire, first))
    };
    let (mut wire, first) = begin("certified")?;
    ensure!(matches!(first, Some(Heard::Error(_))), "{first:?}");
    assert_eq!(wire.hear_all()?, []);
    // With the right one, a token is asked for: the certificate alone opens nothing.
    let (_, first) = begin("client")?;
    assert_eq!(first, Some(ASKED));
    let certified = || cluster.login("client").client_certificate();
    refuses(cluster, &certified().password("x"), "client", "token_malformed")?;
    refuses(cluster, &certified().password(token("certified")), "client", "user_not_mapped")?;
    lets_in(cluster, &certified().password(token("client")), "client")?;
    calm(cluster, &[])
}
