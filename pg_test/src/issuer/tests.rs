//! 1. It serves what it was given, over http and TLS, and counts by path.
//! 2. Each behaviour is what it says, and ends when it is taken back.
//! 3. It closes, opens again, and goes away without waiting.

use std::io::ErrorKind;
use std::net::Shutdown;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::tls::{Authority, loopback};

const SOON: Duration = Duration::from_secs(10);

fn visit(issuer: &Issuer) -> TcpStream {
    let stream = TcpStream::connect(issuer.address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn ask(issuer: &Issuer, path: &str, headers: &str) -> TcpStream {
    let mut stream = visit(issuer);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).unwrap();
    stream
}

fn get_with(issuer: &Issuer, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    ask(issuer, path, headers).read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end..].to_vec())
}

fn get(issuer: &Issuer, path: &str) -> (String, Vec<u8>) {
    get_with(issuer, path, "")
}

fn misbehaving(behaviour: Behaviour) -> Issuer {
    let issuer = Issuer::start().unwrap();
    issuer.misbehave(JWKS, behaviour);
    issuer
}

#[test]
fn serves_and_counts() {
    let issuer = Issuer::start().unwrap();
    let (head, body) = get(&issuer, DISCOVERY);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"), "{head}");
    let discovery: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(discovery["issuer"], issuer.url());
    assert_eq!(discovery["jwks_uri"], format!("{}/jwks", issuer.url()));
    assert_eq!(get(&issuer, JWKS).1, br#"{"keys":[]}"#);
    issuer.set_jwks(json!({"keys": [1]}));
    assert_eq!(get(&issuer, "/jwks?x=y").1, br#"{"keys":[1]}"#);
    assert!(get(&issuer, "/other").0.starts_with("HTTP/1.1 404 "));
    assert_eq!(
        [issuer.count(DISCOVERY), issuer.count(JWKS), issuer.count("/other"), issuer.count("/")],
        [1, 2, 1, 0]
    );
    assert_eq!((issuer.connections(), issuer.requests()[3].header("HOST")), (4, Some("x")));
    assert!(issuer.wait(JWKS, 2, Duration::ZERO));
    assert!(!issuer.wait(JWKS, 3, Duration::from_millis(1)));
}

#[test]
fn serves_over_tls() {
    let authority = Authority::new().unwrap();
    let issuer = Issuer::start_tls(&loopback(&authority).unwrap()).unwrap();
    assert!(issuer.url().starts_with("https://127.0.0.1:"));
    let answer = tls(&issuer, &authority).unwrap();
    assert!(answer.ends_with("\r\n\r\n{\"keys\":[]}"), "{answer}");
    // Plain http at a TLS port is a connection and not a request.
    let mut plain = ask(&issuer, JWKS, "");
    plain.shutdown(Shutdown::Write).unwrap();
    let _ = plain.read_to_end(&mut Vec::new());
    assert_eq!((issuer.count(JWKS), issuer.connections()), (1, 2));
}

/// The outcome of a TLS connection that trusts this authority.
fn tls(issuer: &Issuer, authority: &Authority) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session =
        ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, visit(issuer));
    stream.write_all(b"GET /jwks HTTP/1.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map(|_| answer)
}

#[test]
fn presents_other_certificates() {
    let authority = Authority::new().unwrap();
    let good = loopback(&authority).unwrap();
    let issuer = Issuer::start_tls(&good).unwrap();
    let other = Authority::new().unwrap();
    for (bad, reason) in [
        (authority.expired(&["127.0.0.1"]).unwrap(), "expired"),
        (authority.server(&["localhost"]).unwrap(), "not valid for name"),
        (other.server(&["127.0.0.1"]).unwrap(), "BadSignature"),
        (crate::tls::self_signed(&["127.0.0.1"]).unwrap(), "UnknownIssuer"),
    ] {
        issuer.present(&bad).unwrap();
        let error = tls(&issuer, &authority).unwrap_err().to_string();
        assert!(error.contains(reason), "{error} instead of {reason}");
        issuer.present(&good).unwrap();
        assert!(tls(&issuer, &authority).unwrap().ends_with(r#"{"keys":[]}"#));
    }
    issuer.greet(&[0x15, 3, 1, 0, 2, 2, 70]);
    let error = tls(&issuer, &authority).unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    issuer.present(&good).unwrap();
    assert!(tls(&issuer, &authority).is_ok());
    assert_eq!((issuer.count(JWKS), issuer.connections()), (5, 10));
}

#[test]
fn hangs_until_it_is_gone() {
    let issuer = misbehaving(Behaviour::Hang);
    let mut stream = ask(&issuer, JWKS, "");
    assert!(issuer.wait(JWKS, 1, SOON));
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    assert!(get(&issuer, DISCOVERY).0.starts_with("HTTP/1.1 200 "), "other paths go on");
    issuer.behave(JWKS);
    assert!(get(&issuer, JWKS).0.starts_with("HTTP/1.1 200 "));
    stream.set_read_timeout(Some(SOON)).unwrap();
    let start = Instant::now();
    drop(issuer);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn holds_its_answer_back() {
    let issuer = misbehaving(Behaviour::Hold);
    let mut held = [ask(&issuer, JWKS, ""), ask(&issuer, JWKS, "")];
    assert!(issuer.wait(JWKS, 2, SOON));
    held[0].set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(held[0].read(&mut [0]).is_err(), "nothing comes yet");
    held[0].set_read_timeout(Some(SOON)).unwrap();
    issuer.behave(JWKS);
    for stream in &mut held {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(r#"{"keys":[]}"#), "{answer}");
    }
    let requests = issuer.requests();
    assert!(requests[0].at <= requests[1].at);
}

#[test]
fn takes_its_time() {
    let start = Instant::now();
    let issuer = misbehaving(Behaviour::Delay(Duration::from_millis(100)));
    assert_eq!(get(&issuer, JWKS).1, br#"{"keys":[]}"#);
    issuer.misbehave(JWKS, Behaviour::Drip(Duration::from_millis(1)));
    assert_eq!(get(&issuer, JWKS).1, br#"{"keys":[]}"#);
    assert!(start.elapsed() > Duration::from_millis(200));
    issuer.misbehave(JWKS, Behaviour::Drip(Duration::from_secs(60)));
    let mut byte = [0; 2];
    assert_eq!(ask(&issuer, JWKS, "").read(&mut byte).unwrap(), 1);
}

#[test]
fn answers_badly() {
    let head = |behaviour| get(&misbehaving(behaviour), JWKS).0;
    assert!(head(Behaviour::Status(503)).starts_with("HTTP/1.1 503 "));
    assert!(!head(Behaviour::Status(304)).contains("Content-"));
    let redirect = head(Behaviour::Redirect(302, "http://x/".into()));
    assert!(
        redirect.starts_with("HTTP/1.1 302 ") && redirect.contains("\r\nLocation: http://x/\r\n"),
        "{redirect}"
    );
    assert!(head(Behaviour::ContentType("text/html".into())).contains("\r\nContent-Type: text/html\r\n"));
    assert!(!head(Behaviour::ContentType(String::new())).contains("Content-Type"));
    let body = |behaviour| get(&misbehaving(behaviour), JWKS);
    assert_eq!(body(Behaviour::Truncated).1, br#"{"key"#);
    assert!(body(Behaviour::Truncated).0.contains("\r\nContent-Length: 5\r\n"));
    assert!(body(Behaviour::BreakOff).0.contains("\r\nContent-Length: 11\r\n"));
    assert_eq!(body(Behaviour::BreakOff).1, br#"{"key"#);
    assert_eq!(body(Behaviour::Body(b"[]".into())).1, b"[]");
    assert_eq!(body(Behaviour::Raw(b"x\r\n\r\ny".into())), ("x\r\n\r\n".to_owned(), b"y".to_vec()));
    let mut nothing = Vec::new();
    ask(&misbehaving(Behaviour::HangUp), JWKS, "").read_to_end(&mut nothing).unwrap();
    assert_eq!(nothing, b"");
}

#[test]
fn compresses() {
    let (head, bytes) = get(&misbehaving(Behaviour::Gzip), JWKS);
    assert!(head.contains("\r\nContent-Encoding: gzip\r\n"), "{head}");
    let mut body = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut body).unwrap();
    assert_eq!(body, r#"{"keys":[]}"#);
    let bomb = get(&misbehaving(Behaviour::GzipBomb(4 << 20)), JWKS).1;
    assert!(bomb.len() < 10_000, "{}", bomb.len());
    let mut blanks = Vec::new();
    flate2::read::GzDecoder::new(bomb.as_slice()).read_to_end(&mut blanks).unwrap();
    assert_eq!(blanks.len(), 4 << 20);
}

#[test]
fn sends_without_end() {
    let mut megabyte = vec![0; 1 << 20];
    let issuer = misbehaving(Behaviour::Endless);
    ask(&issuer, JWKS, "").read_exact(&mut megabyte).unwrap();
}

#[test]
fn knows_its_etag() {
    let headers = [("Cache-Control", "max-age=90"), ("ETag", "\"v1\"")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let issuer = misbehaving(Behaviour::Headers(headers));
    let (head, body) = get(&issuer, JWKS);
    assert!(head.contains("\r\nCache-Control: max-age=90\r\nETag: \"v1\"\r\n"), "{head}");
    assert_eq!(body, br#"{"keys":[]}"#);
    let (head, body) = get_with(&issuer, JWKS, "If-None-Match: \"v1\"\r\n");
    assert!(head.starts_with("HTTP/1.1 304 ") && head.contains("max-age=90"), "{head}");
    assert_eq!(body, b"");
    assert!(get_with(&issuer, JWKS, "If-None-Match: \"v0\"\r\n").0.starts_with("HTTP/1.1 200 "));
}

#[test]
fn closes_and_opens_again() {
    let issuer = Issuer::start().unwrap();
    let address = issuer.address;
    for _ in 0..3 {
        issuer.refuse();
        issuer.refuse();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        issuer.accept().unwrap();
        assert!(get(&issuer, JWKS).0.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!((issuer.count(JWKS), issuer.connections()), (3, 3));
    drop(issuer);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn swallows_and_opens_again() {
    let issuer = Issuer::start().unwrap();
    for _ in 0..2 {
        issuer.swallow().unwrap();
        let knock = TcpStream::connect_timeout(&issuer.address, Duration::from_millis(300));
        assert_eq!(knock.unwrap_err().kind(), ErrorKind::TimedOut);
        issuer.accept().unwrap();
        assert!(get(&issuer, JWKS).0.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!((issuer.count(JWKS), issuer.connections()), (2, 2));
}

#[test]
fn unfinished_requests_do_not_keep_it() {
    let issuer = Issuer::start().unwrap();
    let mut half = visit(&issuer);
    half.write_all(b"GET /jwks HTTP/1.1\r\n").unwrap();
    let silent = visit(&issuer);
    assert!(get(&issuer, DISCOVERY).0.starts_with("HTTP/1.1 200 "));
    let start = Instant::now();
    drop(issuer);
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(silent);
}
