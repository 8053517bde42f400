//! f040: keys are fetched through `pg_oidc.http_proxy`, and never through what the environment names.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use pg_oidc_test::cluster::until;
use pg_oidc_test::issuer::{Issuer, JWKS};
use pg_oidc_test::keys::{jwks, keys};
use pg_oidc_test::tls::{self, Authority};
use serde_json::json;

use super::{shown, token};
use crate::scene::{SOON, Stage, provider_sql, quoted};

const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy that opens tunnels and counts them.
struct Proxy {
    url: String,
    tunnels: Arc<AtomicUsize>,
}

impl Proxy {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let tunnels = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&tunnels);
        // Ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || tunnel(client));
            }
        });
        Ok(Self { url, tunnels })
    }

    fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::SeqCst)
    }
}

fn tunnel(mut client: TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let server = TcpStream::connect(head.split(' ').nth(1).unwrap_or_default())?;
    server.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut &server, &mut client).map(drop)
}

#[test]
fn f040_only_the_proxy_of_the_setting() -> Result<()> {
    let (canary, proxy, authority) = (Proxy::start()?, Proxy::start()?, Authority::new()?);
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
    let stage = Stage::with(|builder| {
        let builder = builder.variable("NO_PROXY", "").variable("no_proxy", "");
        names.iter().fold(builder, |builder, name| builder.variable(name, &canary.url))
    })?;
    let issuer = Issuer::start_tls(&tls::loopback(&authority)?)?;
    issuer.set_jwks(jwks(&[&keys().ec]));
    // Two authorities in one text: so can an issuer go from one to the other.
    let both = quoted(&format!("{}{}", Authority::new()?.certificate(), authority.certificate()));
    stage.admin()?.rows(&provider_sql("tunnelled", &issuer.url(), &[("ca_certificate", &both)]))?;
    stage.role_and_rule("tunnelled", "tunnelled", &json!({ "sub": "tunnelled" }))?;
    let good = token("tunnelled", &issuer, &keys().ec);
    stage.accepted("tunnelled", &good, "fetched directly")?;
    assert_eq!((issuer.count(JWKS), canary.tunnels(), proxy.tunnels()), (1, 0, 0));

    stage.cluster.set("pg_oidc.http_proxy", &proxy.url)?;
    stage.cluster.reload()?;
    let admin = stage.admin()?;
    let before = shown(&admin, "tunnelled", "fetched_at")?;
    // The worker reads the setting a moment after the reload.
    until("a fetch through the proxy", SOON, || {
        admin.rows("SELECT oidc.refresh_keys('tunnelled')")?;
        Ok(proxy.tunnels() > 0)
    })?;
    until("newer keys", SOON, || Ok(shown(&admin, "tunnelled", "fetched_at")? != before))?;
    assert_eq!(shown(&admin, "tunnelled", "last_error")?, None);
    assert_eq!(canary.tunnels(), 0);
    stage.accepted("tunnelled", &good, "fetched through the proxy")
}
