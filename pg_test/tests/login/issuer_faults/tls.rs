//! f037: an issuer whose TLS cannot be trusted. The reason is named, and not one request is sent to it.

use anyhow::Result;
use pg_oidc_test::issuer::{DISCOVERY, Issuer};
use pg_oidc_test::tls::{Authority, Leaf, loopback, self_signed};

use super::Fault;

/// How the handshake goes wrong.
enum Bad {
    Certificate(Leaf),
    Bytes(Vec<u8>),
}

fn handshake(name: &str, bad: impl FnOnce(&Authority) -> Result<Bad>, error: &str) -> Result<()> {
    let authority = Authority::new()?;
    let good = loopback(&authority)?;
    let (well, other) = (Issuer::start_tls(&good)?, Issuer::start_tls(&good)?);
    let fault = Fault::at(name, well, other, Some(authority.certificate()))?;
    let (bad, asked) = (bad(&authority)?, fault.well.count(DISCOVERY));
    fault.befalls(|issuer| match &bad {
        Bad::Certificate(leaf) => issuer.present(leaf),
        Bad::Bytes(bytes) => {
            issuer.greet(bytes);
            Ok(())
        }
    })?;
    fault.shows(&format!("could not establish TLS: {error}"))?;
    assert_eq!((fault.well.count(DISCOVERY), fault.other.requests().len()), (asked, 0));
    fault.passes(|issuer| issuer.present(&good))
}

#[test]
fn f037_expired() -> Result<()> {
    let bad = |authority: &Authority| Ok(Bad::Certificate(authority.expired(&["127.0.0.1"])?));
    handshake("expired", bad, "the certificate has expired")
}

#[test]
fn f037_wrong_host() -> Result<()> {
    let bad = |authority: &Authority| Ok(Bad::Certificate(authority.server(&["idp.example", "127.0.0.2"])?));
    handshake("wrong_host", bad, "the certificate is for another host name")
}

#[test]
fn f037_self_signed() -> Result<()> {
    let bad = |_: &Authority| Ok(Bad::Certificate(self_signed(&["127.0.0.1"])?));
    handshake("self_signed", bad, "the certificate is signed by an unknown authority")
}

#[test]
fn f037_other_authority() -> Result<()> {
    // Of the same name, as an impostor's would be.
    let bad = |_: &Authority| Ok(Bad::Certificate(loopback(&Authority::new()?)?));
    handshake("impostor", bad, "the certificate's signature is wrong")
}

#[test]
fn f037_tls_1_0() -> Result<()> {
    // A ServerHello of TLS 1.0 with TLS_RSA_WITH_AES_128_CBC_SHA (RFC 2246, RFC 3268), whatever the client offers.
    let mut hello = vec![0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0x00, 0x2f, 0]);
    let error = "the server offers no version or cipher of TLS 1.2 or 1.3 that fits";
    handshake("tls_1_0", |_| Ok(Bad::Bytes(hello)), error)
}

#[test]
fn f037_tls_1_0_alert() -> Result<()> {
    // Alert protocol_version: what OpenSSL says where it is told to speak TLS 1.0 alone.
    let alert = vec![0x15, 3, 1, 0, 2, 2, 70];
    handshake("tls_1_0_alert", |_| Ok(Bad::Bytes(alert)), "the server refuses TLS 1.2 and 1.3")
}

#[test]
fn f037_no_tls() -> Result<()> {
    let plain = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    handshake("no_tls", |_| Ok(Bad::Bytes(plain)), "the server does not speak TLS on this port")
}
