//! f038: good key sets under odd headers. Either the set is taken, and asked for again before it may grow old, within
//! a minute at the earliest and a day at the latest; or it is refused, and the last good one stays.

use anyhow::{Context, Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Behaviour, Issuer, JWKS};
use pg_oidc_test::keys::{jwks, keys};

use super::{healthy, provider, stage};
use crate::keys::{shown, token};
use crate::scene::SOON;

enum Outcome {
    /// Taken, to be fresh for so many seconds.
    Fresh(f64),
    /// Refused, for a reason that begins so.
    Failed(&'static str),
}
use Outcome::{Failed, Fresh};

const MINUTE: f64 = 60.0;
const DAY: f64 = 86_400.0;
/// Where nothing is said.
const USUAL: f64 = 300.0;

fn cases() -> Vec<(Vec<u8>, Outcome)> {
    let broken = || Failed("could not read the answer: ");
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (text("Cache-Control: max-age=600\r\n"), Fresh(600.0)),
        (text("Cache-Control: max-age=-1\r\n"), Fresh(MINUTE)),
        (text("Cache-Control: max-age=-99999999999999999999999999\r\n"), Fresh(MINUTE)),
        (text("Cache-Control: max-age=99999999999999999999999999\r\n"), Fresh(DAY)),
        (text("Cache-Control: max-age=18446744073709551616\r\n"), Fresh(DAY)),
        (text("Cache-Control: max-age=1e9\r\n"), Fresh(MINUTE)),
        (text("Cache-Control: max-age=\r\n"), Fresh(MINUTE)),
        (text("Cache-Control: max-age\r\n"), Fresh(MINUTE)),
        (text("Cache-Control: no-store\r\n"), Fresh(MINUTE)),
        (text("Cache-Control: no-cache, max-age=86400\r\n"), Fresh(MINUTE)),
        (text("Cache-Control: max-age=900, max-age=700\r\n"), Fresh(700.0)),
        (text("Cache-Control: max-age=900\r\nCache-Control: max-age=800\r\n"), Fresh(800.0)),
        (text("Cache-Control: max-age=\"1200\"\r\n"), Fresh(1200.0)),
        (text("Cache-Control:\r\n"), Fresh(USUAL)),
        (text("Cache-Control: ,,;=,\"\r\n"), Fresh(USUAL)),
        (b"Cache-Control: max-age=\xff\xfe\r\n".to_vec(), Fresh(MINUTE)),
        (text("Cache-Control: max-age=600\r\nAge: -5\r\n"), Fresh(600.0)),
        (text("Cache-Control: max-age=600\r\nAge: 99999999999999999999\r\n"), Fresh(MINUTE)),
        (text("Expires: -1\r\nDate: yesterday\r\nPragma:\r\n"), Fresh(USUAL)),
        (text("ETag:\r\n"), Fresh(USUAL)),
        (text("ETag: no quotes at all\r\n"), Fresh(USUAL)),
        (text("ETag: \"a\"\r\nETag: \"b\"\r\n"), Fresh(USUAL)),
        (b"ETag: \"\xe9\xff\"\r\n".to_vec(), Fresh(USUAL)),
        (text(&format!("ETag: \"{}\"\r\n", "x".repeat(60_000))), Fresh(USUAL)),
        (text("X-Empty:\r\nX-Empty:   \r\n"), Fresh(USUAL)),
        (text(&"X-Y: z\r\n".repeat(90)), Fresh(USUAL)),
        (text(&format!("X-Long: {}\r\n", "y".repeat(60_000))), Fresh(USUAL)),
        (text(&"X-Y: z\r\n".repeat(5_000)), broken()),
        (text(&format!("X-Long: {}\r\n", "y".repeat(2 << 20))), broken()),
        (text("No colon here\r\n"), broken()),
        (text("Content-Length: 7\r\n"), broken()),
        (b"X-Nul: a\0b\r\n".to_vec(), broken()),
        (text("Content-Type: text/html\r\n"), Failed("unexpected content type")),
        (text("Content-Encoding: br\r\n"), Failed("unexpected content encoding")),
        (text("Content-Encoding: gzip\r\n"), Failed("could not read the answer: invalid gzip data")),
    ]
}

/// A good key set, with these lines among its headers.
fn answer(lines: &[u8]) -> Behaviour {
    let body = jwks(&[&keys().ec, &keys().other_ec]).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    Behaviour::Raw([head.as_bytes(), lines, b"\r\n", body.as_bytes()].concat())
}

#[test]
fn f038_odd_headers() -> Result<()> {
    let (stage, admin) = (stage(), stage().admin()?);
    let mut standing = Vec::new();
    for (number, (lines, outcome)) in cases().into_iter().enumerate() {
        let (name, issuer) = (format!("odd{number}"), Issuer::start()?);
        issuer.set_jwks(jwks(&[&keys().ec]));
        provider(stage, &name, &issuer, None)?;
        stage.session(&name, &token(&name, &issuer, &keys().ec))?;
        issuer.misbehave(JWKS, answer(&lines));
        admin.rows(&format!("SELECT oidc.refresh_keys('{name}')"))?;
        standing.push((name, issuer, lines, outcome));
    }
    for (name, issuer, lines, outcome) in &standing {
        let about =
            String::from_utf8_lossy(lines.get(..60.min(lines.len())).unwrap_or_default()).into_owned();
        let fetched = issuer.count(JWKS);
        match outcome {
            Fresh(age) => {
                let taken = || Ok(shown(&admin, name, "count(*)")?.as_deref() == Some("2"));
                until("it is taken", SOON, taken).with_context(|| about.clone())?;
                let next = shown(&admin, name, "max(extract(epoch FROM next_fetch_at - fetched_at))")?;
                let next: f64 = next.unwrap_or_default().parse().with_context(|| about.clone())?;
                ensure!(
                    (0.75 * age..=*age).contains(&next),
                    "{about}: asked again after {next} s of {age} s"
                );
                // With what it said of itself, which may come back as If-None-Match, it is asked again.
                admin.rows(&format!("SELECT oidc.refresh_keys('{name}')"))?;
                ensure!(issuer.wait(JWKS, fetched + 1, SOON), "{about}: not asked again");
            }
            Failed(reason) => {
                let failed = || Ok(shown(&admin, name, "max(last_error)")?.is_some());
                until("it is refused", SOON, failed).with_context(|| about.clone())?;
                let error = shown(&admin, name, "max(last_error)")?.unwrap_or_default();
                ensure!(error.starts_with(reason), "{about}: {error}");
                assert_eq!(shown(&admin, name, "count(*)")?.as_deref(), Some("1"), "{about}");
            }
        }
        stage.session(name, &token(name, issuer, &keys().ec)).with_context(|| about.clone())?;
    }
    healthy(stage, &[])
}

#[test]
fn f038_status_304_keeps_what_it_names() -> Result<()> {
    let (stage, admin, issuer) = (stage(), stage().admin()?, Issuer::start()?);
    issuer.set_jwks(jwks(&[&keys().ec]));
    let headers = [("ETag", "W/\"odd, but one\""), ("Cache-Control", "max-age=900")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    issuer.misbehave(JWKS, Behaviour::Headers(headers));
    provider(stage, "unchanged", &issuer, None)?;
    let good = token("unchanged", &issuer, &keys().ec);
    stage.session("unchanged", &good)?;
    let before = shown(&admin, "unchanged", "fetched_at")?;
    admin.rows("SELECT oidc.refresh_keys('unchanged')")?;
    until("it is fresh again", SOON, || Ok(shown(&admin, "unchanged", "fetched_at")? != before))?;
    let asked = issuer.requests();
    let conditional = asked.last().and_then(|request| request.header("if-none-match"));
    assert_eq!(conditional, Some("W/\"odd, but one\""));
    assert_eq!(shown(&admin, "unchanged", "last_error")?, None);
    // Without its ETag, 304 says nothing.
    issuer.misbehave(JWKS, Behaviour::Status(304));
    let place = format!("'{}{JWKS}'", issuer.url());
    admin.rows(&format!("UPDATE oidc.provider SET jwks_uri = {place} WHERE name = 'unchanged'"))?;
    until("the error is shown", SOON, || Ok(shown(&admin, "unchanged", "last_error")?.is_some()))?;
    stage.refused("unchanged", &good, "keys_unavailable", "keys of another place")
}
