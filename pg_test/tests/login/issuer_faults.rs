//! An issuer that misbehaves, seen from the server: what was fetched before stays, good logins go on, the reason stands
//! in `oidc.key` and in the log, and nobody else waits. Where the issuer never answered well, nobody is let in.
//!
//! 1. f036 Unreachable: refused, blackhole, tarpit, hung up, unknown name; the pauses between attempts: [`reach`].
//! 2. f037 TLS that cannot be trusted: [`tls`].
//! 3. f038 Answers that are slow, endless, huge, not 200, not JSON, not a key set; odd headers: [`headers`].
//! 4. f039 Redirects and a discovery document that lead elsewhere: nobody goes there.
//! 5. f041 A key withdrawn in haste is refused once `oidc.refresh_keys` was called, also during a fetch.
//! 6. f044 A key set that does not fit into shared memory: [`room`].
//! 7. f036, f041 What a minute brings: `max_stale` and `max-age` end: [`minute`].

mod headers;
mod minute;
mod reach;
mod room;
mod tls;

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Result, ensure};
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Behaviour, DISCOVERY, Issuer, JWKS};
use pg_oidc_test::keys::{jwks, keys};
use serde_json::{Value, json};

use crate::keys::{shown, token};
use crate::scene::{SOON, Stage, provider_sql, quoted};
use crate::stage::calm;

fn stage() -> &'static Stage {
    static STAGE: LazyLock<Stage> =
        LazyLock::new(|| Stage::start().expect("the server of the misbehaving issuers"));
    &STAGE
}

/// The provider, the role and the rule of this name; `authority` is whom the provider trusts.
fn provider(stage: &Stage, name: &str, issuer: &Issuer, authority: Option<&str>) -> Result<()> {
    let authority = authority.map(quoted);
    let columns: Vec<_> = authority.iter().map(|pem| ("ca_certificate", pem.as_str())).collect();
    stage.admin()?.rows(&provider_sql(name, &issuer.url(), &columns))?;
    stage.role_and_rule(name, name, &json!({ "sub": name }))
}

/// One misbehaviour, befalling an issuer that has answered well and one that never has.
struct Fault {
    name: String,
    never: String,
    well: Issuer,
    other: Issuer,
    authority: Option<String>,
    fetched_at: Option<String>,
    mark: usize,
}

impl Fault {
    /// The first issuer answers well, and a login works.
    fn begin(name: &str) -> Result<Self> {
        Self::at(name, Issuer::start()?, Issuer::start()?, None)
    }

    fn at(name: &str, well: Issuer, other: Issuer, authority: Option<String>) -> Result<Self> {
        let stage = stage();
        for issuer in [&well, &other] {
            issuer.set_jwks(jwks(&[&keys().ec]));
        }
        provider(stage, name, &well, authority.as_deref())?;
        stage.session(name, &token(name, &well, &keys().ec))?;
        let fetched_at = shown(&stage.admin()?, name, "fetched_at")?;
        let (name, never, mark) = (name.to_owned(), format!("{name}_never"), stage.cluster.log_mark());
        Ok(Self { name, never, well, other, authority, fetched_at, mark })
    }

    /// From now on both misbehave, and both are asked.
    fn befalls(&self, misbehave: impl Fn(&Issuer) -> Result<()>) -> Result<()> {
        misbehave(&self.well)?;
        misbehave(&self.other)?;
        provider(stage(), &self.never, &self.other, self.authority.as_deref())?;
        stage().admin()?.rows(&format!("SELECT oidc.refresh_keys('{}')", self.name)).map(drop)
    }

    /// Another provider, with nothing wrong.
    fn steady(&self) -> Result<(String, Issuer)> {
        let (name, issuer) = (format!("{}_steady", self.name), Issuer::start()?);
        issuer.set_jwks(jwks(&[&keys().ec]));
        provider(stage(), &name, &issuer, None)?;
        stage().session(&name, &token(&name, &issuer, &keys().ec))?;
        Ok((name, issuer))
    }

    /// The other provider is asked after these, and answers before them.
    fn others_go_on(&self, (name, issuer): &(String, Issuer)) -> Result<()> {
        let admin = stage().admin()?;
        issuer.set_jwks(jwks(&[&keys().other_ec]));
        admin.rows(&format!("SELECT oidc.refresh_keys('{name}')"))?;
        until("newer keys", SOON, || Ok(shown(&admin, name, "kid")?.as_deref() == Some("ec-2")))?;
        assert_eq!(shown(&admin, &self.name, "last_error")?, None, "it was not to have ended yet");
        stage().session(name, &token(name, issuer, &keys().other_ec)).map(drop)
    }

    /// The reason is seen, what was fetched before serves, and where there is nothing nobody is let in.
    fn shows(&self, error: &str) -> Result<()> {
        let (stage, admin) = (stage(), stage().admin()?);
        for name in [&self.name, &self.never] {
            until("the error is shown", SOON, || Ok(shown(&admin, name, "last_error")?.is_some()))?;
            let seen = shown(&admin, name, "last_error")?;
            ensure!(seen.as_deref() == Some(error), "{name}: {seen:?} instead of {error:?}");
            let line = format!("WARNING:  could not fetch the keys of OIDC provider \"{name}\"");
            stage.cluster.await_log_since(self.mark, &line, SOON)?;
        }
        stage.cluster.await_log_since(self.mark, &format!("DETAIL:  {error}"), SOON)?;
        let kept = "kid, usable::text, fetched_at::text, (next_fetch_at IS NOT NULL)::text";
        let rows = admin.rows(&format!("SELECT {kept} FROM oidc.key WHERE provider = '{}'", self.name))?;
        let yes = Some("true".to_owned());
        assert_eq!(rows, [[Some("ec-1".to_owned()), yes.clone(), self.fetched_at.clone(), yes]]);
        self.keeps()?;
        let stranger = token(&self.never, &self.other, &keys().ec);
        stage.refused(&self.never, &stranger, "keys_unavailable", "it never answered well")
    }

    /// A good login works, and a withdrawn key would not.
    fn keeps(&self) -> Result<()> {
        let (well, name) = (&self.well, &self.name);
        stage().accepted(name, &token(name, well, &keys().ec), "the last good keys")?;
        stage().refused(name, &token(name, well, &keys().other_ec), "key_unknown", "nobody's key")
    }

    /// Both behave again: all is as it was, without a restart.
    fn passes(&self, mend: impl Fn(&Issuer) -> Result<()>) -> Result<()> {
        let (stage, admin) = (stage(), stage().admin()?);
        for (name, issuer) in [(&self.name, &self.well), (&self.never, &self.other)] {
            mend(issuer)?;
            admin.rows(&format!("SELECT oidc.refresh_keys('{name}')"))?;
            until("it is mended", SOON, || Ok(shown(&admin, name, "last_error")?.is_none()))?;
            stage.accepted(name, &token(name, issuer, &keys().ec), "it is mended")?;
        }
        ensure!(shown(&admin, &self.name, "fetched_at")? != self.fetched_at, "they are newer now");
        healthy(stage, &[&token(&self.name, &self.well, &keys().ec)])
    }
}

/// No process of the server died, no worker ended, and no piece of these tokens is in the log.
fn healthy(stage: &Stage, tokens: &[&str]) -> Result<()> {
    ensure!(!stage.cluster.log().contains("background worker \"pg_oidc"), "a worker ended");
    calm(&stage.cluster, tokens)
}

/// This behaviour, where the keys are.
fn at_keys(name: &str, behaviour: Behaviour, error: &str) -> Result<()> {
    let fault = Fault::begin(name)?;
    fault.befalls(|issuer| {
        issuer.misbehave(JWKS, behaviour.clone());
        Ok(())
    })?;
    fault.shows(error)?;
    fault.passes(|issuer| {
        issuer.behave(JWKS);
        Ok(())
    })
}

/// This body as JSON, where the keys are.
fn body(name: &str, body: impl Into<Vec<u8>>, error: &str) -> Result<()> {
    at_keys(name, Behaviour::Body(body.into()), error)
}

/// This behaviour at `path`; meanwhile others go on.
fn slow_at(path: &str, name: &str, behaviour: Behaviour, error: &str) -> Result<()> {
    let fault = Fault::begin(name)?;
    let steady = fault.steady()?;
    fault.befalls(|issuer| {
        issuer.misbehave(path, behaviour.clone());
        Ok(())
    })?;
    fault.others_go_on(&steady)?;
    fault.keeps()?;
    fault.shows(error)?;
    fault.passes(|issuer| {
        issuer.behave(path);
        Ok(())
    })
}

#[test]
fn f038_one_byte_a_second() -> Result<()> {
    let drip = Behaviour::Drip(Duration::from_secs(1));
    slow_at(JWKS, "drip", drip, "timeout while waiting for the answer")
}

#[test]
fn f038_endless_chunks() -> Result<()> {
    at_keys("endless", Behaviour::Endless, "the answer is longer than 262144 bytes")
}

#[test]
fn f038_gzip_bomb() -> Result<()> {
    at_keys("bomb", Behaviour::GzipBomb(4 << 20), "the answer is longer than 262144 bytes")
}

#[test]
fn f038_gzip_is_no_fault() -> Result<()> {
    let (stage, issuer) = (stage(), Issuer::start()?);
    issuer.set_jwks(jwks(&[&keys().ec]));
    for path in [DISCOVERY, JWKS] {
        issuer.misbehave(path, Behaviour::Gzip);
    }
    provider(stage, "gzip", &issuer, None)?;
    stage.accepted("gzip", &token("gzip", &issuer, &keys().ec), "compressed")
}

#[test]
fn f038_status_500() -> Result<()> {
    at_keys("status500", Behaviour::Status(500), "unexpected HTTP status 500")
}

#[test]
fn f038_status_503() -> Result<()> {
    at_keys("status503", Behaviour::Status(503), "unexpected HTTP status 503")
}

#[test]
fn f038_status_304_unasked() -> Result<()> {
    at_keys("status304", Behaviour::Status(304), "unexpected HTTP status 304")
}

#[test]
fn f038_wrong_content_type() -> Result<()> {
    let error = "unexpected content type: the answer is not JSON";
    at_keys("wrong_type", Behaviour::ContentType("text/plain".to_owned()), error)?;
    at_keys("no_type", Behaviour::ContentType(String::new()), error)
}

#[test]
fn f038_html() -> Result<()> {
    let page = "<!DOCTYPE html><title>Sign in</title>";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n";
    let whole = Behaviour::Raw(format!("{head}{page}").into_bytes());
    at_keys("html", whole, "unexpected content type: the answer is not JSON")?;
    body("html_as_json", page, "It is not JSON.")
}

#[test]
fn f038_truncated() -> Result<()> {
    at_keys("truncated", Behaviour::Truncated, "It is not JSON.")?;
    at_keys("cut", Behaviour::BreakOff, "could not read the answer: connection closed by the server")
}

#[test]
fn n059_f038_no_usable_key() -> Result<()> {
    body("empty_set", r#"{"keys":[]}"#, "It has no usable key.")
}

#[test]
fn n060_f038_not_a_key_set() -> Result<()> {
    body("no_keys", "{}", "It has no array \"keys\" (RFC 7517, section 5).")?;
    body("keys_object", r#"{"keys":{}}"#, "It has no array \"keys\" (RFC 7517, section 5).")
}

#[test]
fn n061_n062_f038_bombs() -> Result<()> {
    let many = json!({ "keys": vec![keys().ec.jwk(); 101] });
    body("many_keys", many.to_string(), "It has more than 100 keys.")?;
    let deep = format!("{{\"keys\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    body("deep", deep, "It has too many levels of arrays and objects.")
}

#[test]
fn f039_redirects() -> Result<()> {
    let trap = Issuer::start()?;
    trap.set_jwks(jwks(&[&keys().other_ec]));
    let places = [
        ("redirect_http", 302, format!("{}{JWKS}", trap.url())),
        ("redirect_link_local", 307, "http://169.254.169.254/latest/meta-data/".to_owned()),
        ("redirect_file", 301, "file:///etc/passwd".to_owned()),
        ("redirect_self", 308, "/elsewhere".to_owned()),
    ];
    for (name, status, place) in places {
        let error = format!("unexpected HTTP status {status}: redirects are not followed");
        at_keys(name, Behaviour::Redirect(status, place), &error)?;
    }
    assert_eq!(trap.connections(), 0);
    Ok(())
}

#[test]
fn f039_discovery_that_leads_elsewhere() -> Result<()> {
    let error = "\"jwks_uri\" in the document is not an https URL";
    for (name, place) in [
        ("jwks_uri_http", "http://169.254.169.254/latest/meta-data/"),
        ("jwks_uri_file", "file:///etc/passwd"),
        ("jwks_uri_relative", "/jwks"),
    ] {
        let fault = Fault::begin(name)?;
        let set = |issuer: &Issuer, change: &dyn Fn(&mut Value)| {
            let mut document = issuer.discovery();
            change(&mut document);
            issuer.set(DISCOVERY, document);
            Ok(())
        };
        fault.befalls(|issuer| set(issuer, &|document| document["jwks_uri"] = json!(place)))?;
        fault.shows(error)?;
        fault.passes(|issuer| set(issuer, &|_| {}))?;
    }
    Ok(())
}

#[test]
fn f041_answers_to_an_earlier_life() -> Result<()> {
    let (stage, admin, issuer) = (stage(), stage().admin()?, Issuer::start()?);
    issuer.set_jwks(jwks(&[&keys().ec]));
    provider(stage, "reborn", &issuer, None)?;
    let good = token("reborn", &issuer, &keys().ec);
    stage.session("reborn", &good)?;
    let mark = stage.cluster.log_mark();
    // Disabled and enabled while it is asked: two requests are under way, and only one answer is its own.
    issuer.misbehave(DISCOVERY, Behaviour::Hold);
    admin.rows("SELECT oidc.refresh_keys('reborn')")?;
    ensure!(issuer.wait(DISCOVERY, 2, SOON), "nothing was asked for");
    admin.rows("UPDATE oidc.provider SET enabled = false WHERE name = 'reborn'")?;
    until("its keys are gone", SOON, || Ok(shown(&admin, "reborn", "origin")?.is_none()))?;
    admin.rows("UPDATE oidc.provider SET enabled = true WHERE name = 'reborn'")?;
    ensure!(issuer.wait(DISCOVERY, 3, SOON), "nothing was asked for");
    issuer.behave(DISCOVERY);
    let place = Some(format!("{}{JWKS}", issuer.url()));
    until("newer keys", SOON, || Ok(shown(&admin, "reborn", "origin")? == place))?;
    stage.accepted("reborn", &good, "newer keys")?;
    let complaint = "could not fetch the keys of OIDC provider \"reborn\"";
    ensure!(!stage.cluster.log_since(mark).contains(complaint), "an answer was taken for another");
    Ok(())
}

#[test]
fn f041_withdrawn_in_haste() -> Result<()> {
    let (stage, admin, issuer) = (stage(), stage().admin()?, Issuer::start()?);
    issuer.set_jwks(jwks(&[&keys().ec, &keys().other_ec]));
    provider(stage, "hasty", &issuer, None)?;
    let [stolen, good] = [&keys().ec, &keys().other_ec].map(|key| token("hasty", &issuer, key));
    stage.accepted("hasty", &stolen, "not withdrawn yet")?;
    // A fetch is under way, and its answer was made before the key is withdrawn.
    let asked = issuer.count(JWKS);
    issuer.misbehave(JWKS, Behaviour::Hold);
    admin.rows("SELECT oidc.refresh_keys('hasty')")?;
    ensure!(issuer.wait(JWKS, asked + 1, SOON), "nothing was asked for");
    issuer.set_jwks(jwks(&[&keys().other_ec]));
    admin.rows("SELECT oidc.refresh_keys('hasty')")?;
    issuer.behave(JWKS);
    until("the key is gone", SOON, || {
        Ok(shown(&admin, "hasty", "string_agg(kid, ' ')")?.as_deref() == Some("ec-2"))
    })?;
    stage.refused("hasty", &stolen, "key_unknown", "withdrawn")?;
    stage.accepted("hasty", &good, "the other one")
}
