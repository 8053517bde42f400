//! Many at once. Keys are fetched for logins at most once in ten seconds and provider, whatever is asked for.
//!
//! 1. n044: 10,000 tokens with keys that nobody has, while good logins go on: one fetch in ten seconds at most, every
//!    good login gets in, the keys stay.
//! 2. f043: 500 logins at once with one new key: one fetch, and all get in.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use pg_oidc_test::cluster::{Cluster, until};
use pg_oidc_test::issuer::{Behaviour, Issuer, JWKS};
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::psql::Way;
use pg_oidc_test::token::Token;
use pg_oidc_test::wire::{ASKED, Heard, Wire};
use serde_json::json;

use crate::keys::{issuer_of, shown, token, until_rested};
use crate::scene::{SOON, Stage};
use crate::stage::{accepted, calm, reasons};

/// Tokens over the socket or plain TCP: thousands of handshakes of TLS would be a test of something else.
const SOCKET_LINE: &str = "local all all trust";
const PLAIN_LINE: &str = "hostnossl all all 127.0.0.1/32 trust";
/// Between two fetches for logins.
const PAUSE: Duration = Duration::from_secs(10);

const FLOOD: usize = 10_000;
const HANDS: usize = 4;
/// A good login comes after so many bad ones.
const BETWEEN: usize = 20;

const CROWD: usize = 500;

/// Each hand's share of the flood; gives how many good logins there were.
fn pour(cluster: &Cluster, issuer: &Issuer) -> Result<usize> {
    let good = token("flooded", issuer, &keys().ec);
    let mut let_in = 0;
    for number in 0..FLOOD / HANDS {
        let kid = format!("{:016x}", RandomState::new().hash_one(number));
        let bad = Token::for_user("flooded").issuer(&issuer.url()).header("kid", json!(kid)).sign(&keys().ec);
        let heard = Wire::log_in(cluster, Way::Socket, "flooded", &bad)?;
        let Heard::Error(refused) = heard else {
            return Err(anyhow!("in with a key that nobody has: {heard:?}"));
        };
        ensure!(refused.field('C') == "28000", "{refused:?}");
        if number % BETWEEN == 0 {
            // Every other one over TLS, as people come.
            let way = if number % (2 * BETWEEN) == 0 { Way::Socket } else { Way::Tls };
            let heard = Wire::log_in(cluster, way, "flooded", &good)?;
            ensure!(heard == Heard::Ready, "a good login is refused in the flood: {heard:?}");
            let_in += 1;
        }
    }
    Ok(let_in)
}

/// Looks at the keys until the flood is over: they are always there. Gives how often it looked.
fn watch(stage: &Stage, over: &AtomicBool) -> Result<usize> {
    let (admin, mut looks) = (stage.admin()?, 0);
    while !over.load(Ordering::SeqCst) {
        let usable = shown(&admin, "flooded", "count(*) FILTER (WHERE usable)")?;
        ensure!(usable.as_deref() == Some("1"), "{usable:?} usable keys");
        let kept = "SELECT count(*) FROM oidc.jwks_cache WHERE provider = 'flooded'";
        ensure!(admin.value(kept)?.as_deref() == Some("1"), "the keys are not kept");
        looks += 1;
        // Not a load of its own.
        admin.rows("SELECT pg_sleep(0.05)")?;
    }
    Ok(looks)
}

#[test]
fn n044_10000_random_kids() -> Result<()> {
    let stage = Stage::with(|builder| builder.guarded(SOCKET_LINE))?;
    let (issuer, steady) = (issuer_of(&stage, "flooded")?, issuer_of(&stage, "steady")?);
    until_rested(&stage, "flooded")?;
    let (fetched, mark, begun) = (issuer.count(JWKS), stage.cluster.log_mark(), Instant::now());
    let over = AtomicBool::new(false);
    let (let_in, looks) = thread::scope(|scope| -> Result<_> {
        let watching = scope.spawn(|| watch(&stage, &over));
        let hands: Vec<_> = (0..HANDS).map(|_| scope.spawn(|| pour(&stage.cluster, &issuer))).collect();
        let poured: Vec<_> = hands.into_iter().map(|hand| hand.join()).collect();
        over.store(true, Ordering::SeqCst);
        let panicked = || anyhow!("it panicked");
        let looks = watching.join().map_err(|_| panicked())??;
        let each = poured.into_iter().map(|hand| hand.map_err(|_| panicked())?);
        Ok((each.sum::<Result<usize>>()?, looks))
    })?;
    let taken = begun.elapsed();

    let requests = issuer.requests();
    let at = requests.iter().filter(|request| request.path == JWKS).skip(fetched).map(|request| request.at);
    let at: Vec<Instant> = at.collect();
    println!("{FLOOD} bad logins, {let_in} good ones, {looks} looks in {taken:?}: {} fetches", at.len());
    let most = 1 + usize::try_from(taken.as_secs() / PAUSE.as_secs())?;
    ensure!(!at.is_empty() && at.len() <= most, "{} fetches in {taken:?}", at.len());
    // The pause runs from the end of one fetch by the wall clock to the next request.
    let close = |pair: &[Instant]| pair[1] - pair[0] < PAUSE - Duration::from_millis(100);
    ensure!(!at.windows(2).any(close), "two fetches in one pause: {at:?}");
    assert_eq!(steady.count(JWKS), 1, "whoever is not asked for is not asked");

    assert_eq!(let_in, HANDS * (FLOOD / HANDS).div_ceil(BETWEEN));
    assert_eq!(accepted(&stage.cluster, mark, "flooded"), let_in);
    let reasons = reasons(&stage.cluster, mark, "flooded");
    let other = reasons.iter().find(|reason| *reason != "key_unknown");
    assert_eq!((reasons.len(), other), (FLOOD, None));
    ensure!(looks > 0, "nobody looked");
    let good = token("flooded", &issuer, &keys().ec);
    stage.accepted("flooded", &good, "after the flood")?;
    stage.accepted("steady", &token("steady", &steady, &keys().ec), "after the flood")?;
    calm(&stage.cluster, &[&good])
}

/// Connections of the crowd, each asked for its password.
fn gather(cluster: &Cluster) -> Result<Vec<Wire>> {
    let arrive = |_| -> Result<Wire> {
        let (wire, first) = Wire::begin(cluster, Way::Plain, "crowd")?;
        ensure!(first == ASKED, "{first:?}");
        Ok(wire)
    };
    (0..CROWD).map(arrive).collect()
}

/// How many connections of the server have sent what it has not read yet, as the kernel counts (proc(5)).
fn unread(cluster: &Cluster) -> Result<usize> {
    let (table, port) = (std::fs::read_to_string("/proc/net/tcp")?, format!(":{:04X}", cluster.port()));
    let waiting = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|address| address.ends_with(&port));
        local
            && fields
                .nth(2)
                .and_then(|queues| queues.split(':').nth(1))
                .is_some_and(|read| read != "00000000")
    };
    Ok(table.lines().filter(waiting).count())
}

#[test]
fn f043_500_logins_with_one_new_key() -> Result<()> {
    let connections = (CROWD + 20).to_string();
    // The issuer is held back for less than a fetch may take; nobody is to give up before that.
    let stage = Stage::with(|builder| {
        let builder = builder.guarded(PLAIN_LINE).setting("pg_oidc.require_tls", "off");
        let builder = builder.setting("max_connections", &connections);
        builder.setting("pg_oidc.wait_timeout", "30s")
    })?;
    let issuer = issuer_of(&stage, "crowd")?;
    until_rested(&stage, "crowd")?;
    let (fetched, mark) = (issuer.count(JWKS), stage.cluster.log_mark());
    issuer.set_jwks(jwks(&[&keys().ec, &keys().other_ec]));
    let token = token("crowd", &issuer, &keys().other_ec);
    let mut crowd = gather(&stage.cluster)?;

    let begun = Instant::now();
    issuer.misbehave(JWKS, Behaviour::Hold);
    crowd.iter_mut().try_for_each(|wire| wire.password(&token))?;
    ensure!(issuer.wait(JWKS, fetched + 1, SOON), "the keys were not asked for");
    until("all tokens are read", SOON, || Ok(unread(&stage.cluster)? == 0))?;
    let waiting = begun.elapsed();
    assert_eq!(
        (accepted(&stage.cluster, mark, "crowd"), reasons(&stage.cluster, mark, "crowd").len()),
        (0, 0)
    );
    issuer.behave(JWKS);
    for (number, wire) in crowd.iter_mut().enumerate() {
        let heard = wire.outcome().with_context(|| format!("login {number}"))?;
        ensure!(heard == Heard::Ready, "login {number}: {heard:?}");
    }
    println!("{CROWD} logins: all were waiting after {waiting:?}, all were in after {:?}", begun.elapsed());
    assert_eq!(issuer.count(JWKS), fetched + 1, "one fetch");
    assert_eq!(accepted(&stage.cluster, mark, "crowd"), CROWD);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'crowd'";
    assert_eq!(stage.admin()?.value(sessions)?, Some(CROWD.to_string()));
    calm(&stage.cluster, &[&token])
}
