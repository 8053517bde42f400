//! The password door, by hand on the wire and with psql.
//!
//! 1. `n001` An empty password.
//! 2. `n115` Plain TCP is refused before the password is asked for; with `require_tls` off, and over the unix
//!    socket, tokens are accepted.
//! 3. `n116` psql with sslmode=disable and sslmode=prefer.
//! 4. `n117` Another message than a password, early ends, lengths that do not fit: refused, the bytes in no log.
//! 5. `n118` Silent and slow clients are ended by authentication_timeout.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::Cluster;
use pg_oidc_test::psql::Way;
use pg_oidc_test::wire::{ASKED, Heard, OK, Wire};

use crate::stage::{
    SOON, Shared, accepted, admit, builder, calm, furnished, good, lets_in, line, reasons, refuses, share,
    shared, silent, token,
};

const TLS_LINE: &str = "tokens are accepted only over TLS";
/// Token lines for every way, so that only the door stands between a client and its session.
const EVERY_WAY: [&str; 2] = ["local all all trust", "host all all 127.0.0.1/32 trust"];

static DOOR: Shared = LazyLock::new(|| {
    share(|| {
        let builder = EVERY_WAY.iter().fold(builder()?, |builder, line| builder.guarded(line));
        furnished(builder.setting("log_min_messages", "debug5"), &[])
    })
});

/// The shared cluster, with a role and its rule for one test.
fn door(role: &str) -> Result<&'static Cluster> {
    let cluster = shared(&DOOR)?;
    admit(cluster, role)?;
    Ok(cluster)
}

/// What the client is told is this line, with SQLSTATE 28000.
fn told(heard: &Heard, text: &str) -> Result<()> {
    let Heard::Error(refused) = heard else { anyhow::bail!("{heard:?} instead of an error") };
    assert_eq!((refused.field('M').as_str(), refused.field('C').as_str()), (text, "28000"));
    Ok(())
}

#[test]
fn n001_empty_password() -> Result<()> {
    let cluster = door("n001")?;
    let mark = cluster.log_mark();
    told(&Wire::log_in(cluster, Way::Tls, "n001", "")?, &line("n001"))?;
    told(&Wire::log_in(cluster, Way::Tls, "n001", " ")?, &line("n001"))?;
    assert_eq!(reasons(cluster, mark, "n001"), ["password_empty", "token_malformed"]);
    // libpq itself sends no empty password: psql without one says so and sends nothing.
    let seen = cluster.login("n001").run("SELECT 1")?;
    ensure!(seen.stderr.contains("no password supplied"), "{seen:?}");
    lets_in(cluster, &good(cluster, "n001"), "n001")?;
    calm(cluster, &[])
}

#[test]
fn n115_tcp_without_tls_is_refused_before_asking() -> Result<()> {
    let cluster = door("n115")?;
    let mark = cluster.log_mark();
    let (mut wire, first) = Wire::begin(cluster, Way::Plain, "n115")?;
    told(&first, TLS_LINE)?;
    assert_eq!(wire.hear_all()?, [], "nothing follows, above all no question");
    assert_eq!(reasons(cluster, mark, "n115"), ["tls_required"]);

    // The same line of the same file, over TLS and over the unix socket.
    for way in [Way::Tls, Way::Socket] {
        let (mut wire, first) = Wire::begin(cluster, way, "n115")?;
        assert_eq!(first, ASKED);
        wire.password(&token("n115"))?;
        assert_eq!(wire.hear()?, Some(OK));
        assert_eq!(wire.outcome()?, Heard::Ready);
        told(&Wire::log_in(cluster, way, "n115", "no.to.ken")?, &line("n115"))?;
    }
    assert_eq!(accepted(cluster, mark, "n115"), 2);
    calm(cluster, &[])
}

#[test]
fn n115_tcp_is_a_choice() -> Result<()> {
    let cluster = furnished(builder()?.guarded(EVERY_WAY[1]), &["guest"])?;
    let plain = || good(&cluster, "guest").way(Way::Plain);
    cluster.set("pg_oidc.require_tls", "off")?;
    cluster.reload()?;
    lets_in(&cluster, &plain(), "guest")?;
    refuses(&cluster, &cluster.login("guest").way(Way::Plain).password("x"), "guest", "token_malformed")?;
    cluster.set("pg_oidc.require_tls", "on")?;
    cluster.reload()?;
    let (mut wire, first) = Wire::begin(&cluster, Way::Plain, "guest")?;
    told(&first, TLS_LINE)?;
    assert_eq!(wire.hear_all()?, []);
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    calm(&cluster, &[])
}

#[test]
fn n116_sslmode() -> Result<()> {
    let cluster = door("n116")?;
    let login = |mode: &str, password: &str| {
        cluster
            .login("n116")
            .password(password)
            .parameter(format!("sslmode={mode}"))
            .run("SELECT current_user")
    };
    // Without TLS nothing is asked, so that nothing can be sent.
    let mark = cluster.log_mark();
    let seen = login("disable", &token("n116"))?;
    assert_eq!((seen.code, seen.refusal()), (Some(2), Some(format!("FATAL:  {TLS_LINE}").as_str())));
    assert_eq!(reasons(cluster, mark, "n116"), ["tls_required"]);
    // A good token goes over TLS at the first try.
    let mark = cluster.log_mark();
    assert_eq!(login("prefer", &token("n116"))?.rows(), [["n116"]]);
    assert_eq!((reasons(cluster, mark, "n116").len(), accepted(cluster, mark, "n116")), (0, 1));
    // A bad one is refused over TLS; libpq then tries again without, and that is refused before asking.
    let mark = cluster.log_mark();
    let seen = login("prefer", "bad")?;
    assert_eq!(seen.code, Some(2));
    ensure!(seen.stderr.contains(&line("n116")) && seen.stderr.contains(TLS_LINE), "{}", seen.stderr);
    assert_eq!(reasons(cluster, mark, "n116"), ["token_malformed", "tls_required"]);
    calm(cluster, &[])
}

/// A length as a message claims it.
fn length(body: &[u8]) -> Result<i32> {
    Ok(i32::try_from(body.len() + 4)?)
}

#[test]
fn n117_malformed_messages() -> Result<()> {
    let cluster = door("n117")?;
    let token = token("n117");
    let nul = |text: &str| [text.as_bytes(), &[0]].concat();
    let (front, back) = token.split_at(token.len() / 2);
    // Type, body, what the door makes of it: each is refused with the constant line.
    let cases: [(u8, Vec<u8>, &str); 7] = [
        (b'Q', nul(&token), "password_malformed"),
        (b'X', nul(&token), "password_malformed"),
        (0, nul(&token), "password_malformed"),
        (b'p', token.clone().into_bytes(), "password_malformed"),
        (b'p', [nul(front), nul(back)].concat(), "password_malformed"),
        (b'p', nul(&format!("{token}\0")), "password_malformed"),
        (b'p', Vec::new(), "password_malformed"),
    ];
    for (kind, body, reason) in cases {
        let mark = cluster.log_mark();
        let (mut wire, first) = Wire::begin(cluster, Way::Tls, "n117")?;
        assert_eq!(first, ASKED);
        wire.message(kind, length(&body)?, &body)?;
        told(&wire.outcome()?, &line("n117")).with_context(|| format!("{kind} {}", body.len()))?;
        assert_eq!(reasons(cluster, mark, "n117"), [reason], "{kind} {}", body.len());
    }
    assert_eq!(accepted(cluster, 0, "n117"), 0);
    // The near miss: the same bytes, well wrapped.
    lets_in(cluster, &good(cluster, "n117"), "n117")?;
    silent(&cluster.log(), &token)?;
    calm(cluster, &[])
}

/// How a client breaks off, as far as the server is concerned.
type BreakOff = fn(&mut Wire, &str) -> Result<()>;

#[test]
fn n117_early_ends_and_false_lengths() -> Result<()> {
    let cluster = door("n117b")?;
    let token = token("n117b");
    let cases: [(BreakOff, Option<&str>); 6] = [
        (|wire, _| wire.end(), None),
        (
            |wire, _| wire.raw(b"p").and_then(|()| wire.end()),
            Some("unexpected EOF within message length word"),
        ),
        (
            |wire, token| {
                wire.message(b'p', length(token.as_bytes())? + 1, token.as_bytes())?;
                wire.end()
            },
            Some("incomplete message from client"),
        ),
        (|wire, token| wire.message(b'p', 65_536 + 4, token.as_bytes()), Some("invalid message length")),
        (|wire, token| wire.message(b'p', i32::MAX, token.as_bytes()), Some("invalid message length")),
        (|wire, token| wire.message(b'p', -1, token.as_bytes()), Some("invalid message length")),
    ];
    for (number, (break_off, logged)) in cases.into_iter().enumerate() {
        let mark = cluster.log_mark();
        let (mut wire, first) = Wire::begin(cluster, Way::Tls, "n117b")?;
        assert_eq!(first, ASKED);
        break_off(&mut wire, &token)?;
        // As at core's own password question: the backend ends, and says nothing to whoever has gone.
        assert_eq!(wire.hear_all()?, [], "case {number}");
        if let Some(logged) = logged {
            cluster.await_log_since(mark, logged, SOON)?;
        }
    }
    assert_eq!(accepted(cluster, 0, "n117b"), 0);
    // The longest password that core would read is read, and refused for its length alone.
    let mark = cluster.log_mark();
    told(&Wire::log_in(cluster, Way::Tls, "n117b", &"x".repeat(65_530))?, &line("n117b"))?;
    assert_eq!(reasons(cluster, mark, "n117b"), ["token_too_large"]);
    lets_in(cluster, &good(cluster, "n117b"), "n117b")?;
    silent(&cluster.log(), &token)?;
    calm(cluster, &[])
}

#[test]
fn n118_silent_client() -> Result<()> {
    let cluster = furnished(builder()?.setting("authentication_timeout", "2s"), &["guest"])?;
    let token = token("guest");
    let mark = cluster.log_mark();
    let began = Instant::now();
    let (mut silent_one, first) = Wire::begin(&cluster, Way::Tls, "guest")?;
    assert_eq!(first, ASKED);
    let (mut slow_one, first) = Wire::begin(&cluster, Way::Tls, "guest")?;
    assert_eq!(first, ASKED);
    slow_one.message(b'p', length(token.as_bytes())? + 1, token.split_at(token.len() / 2).0.as_bytes())?;
    // Others are not kept waiting.
    lets_in(&cluster, &good(&cluster, "guest"), "guest")?;
    for wire in [&mut silent_one, &mut slow_one] {
        assert_eq!(wire.hear_all()?, []);
    }
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(15)).contains(&took), "{took:?}");
    let log = cluster.log_since(mark);
    assert_eq!(log.matches("canceling authentication due to timeout").count(), 2, "{log}");
    assert_eq!(accepted(&cluster, mark, "guest"), 1);
    silent(&log, &token)?;
    calm(&cluster, &[])
}
