//! What may be connected to: reachable or not (36), trusted or not (37), where redirects lead (39).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use pg_oidc_net::{FetchError, Fetcher, Phase, Request};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

use crate::support::{Authority, BODY, Server, answer, collect, fresh, get, good, server_config, timed};

/// A limit short enough for a test, and what it may take on a busy machine.
const SHORT: Duration = Duration::from_millis(400);
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn f036_refused_connection() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::answering(good(""));
    assert_eq!(fresh(get(server.request())), BODY.as_bytes());
    let request = Request { url: format!("http://127.0.0.1:{closed}/"), ..server.request() };
    assert_eq!(get(request), Err(FetchError::Connect("connection refused")));
}

#[test]
fn f036_tarpit_ends_at_the_limit() {
    let tarpit = Server::raw(hold);
    for (request, phase) in
        [(tarpit.request(), Phase::Answer), (tarpit.tls_request(&Authority::new().pem()), Phase::Connect)]
    {
        let (outcome, taken) = timed(Request { limit: SHORT, ..request });
        assert_eq!(outcome, Err(FetchError::Timeout(phase)));
        assert!(taken < SHORT + SLACK, "{taken:?}");
    }
}

#[test]
fn f036_unreachable_address() {
    // TEST-NET-1 (RFC 5737): silence on most networks, an ICMP error on some.
    let request = Request {
        url: "https://192.0.2.1/".into(),
        ..Server::answering("").tls_request(&Authority::new().pem())
    };
    let (outcome, taken) = timed(Request { limit: SHORT, ..request });
    let expected = matches!(outcome, Err(FetchError::Timeout(Phase::Connect) | FetchError::Connect(_)));
    assert!(expected, "{outcome:?}");
    assert!(taken < SHORT + SLACK, "{taken:?}");
}

#[test]
fn f036_unknown_name() {
    let server = Server::answering(good(""));
    // RFC 6761: `.invalid` never exists. Without any name server the C library may take longer than we do.
    let request = Request { url: "https://idp.invalid/".into(), ..server.request() };
    let outcome = get(Request { limit: Duration::from_secs(2), ..request });
    let expected = matches!(outcome, Err(FetchError::Resolve(_) | FetchError::Timeout(Phase::Resolve)));
    assert!(expected, "{outcome:?}");
    let named = Request { url: format!("http://localhost:{}/", server.port), ..server.request() };
    assert_eq!(fresh(get(named)), BODY.as_bytes());
}

#[test]
fn f036_hanging_providers_delay_no_other() {
    let (tarpit, good) = (Server::raw(hold), Server::answering(good("")));
    let mut fetcher = Fetcher::start().unwrap();
    for id in 0..50 {
        fetcher.submit(id, tarpit.request()).unwrap();
    }
    fetcher.submit(50, good.request()).unwrap();
    let (id, outcome) = collect(&mut fetcher, 1).remove(0);
    assert_eq!((id, fresh(outcome)), (50, BODY.as_bytes().to_vec()));
    fetcher.stop(Duration::from_secs(5));
}

fn hold(mut stream: std::net::TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn f037_trusted_certificate_by_own_ca() {
    let ours = Authority::new();
    let server = Server::https(ours.server(|_| {}), |_, wire| drop(wire.write_all(good("").as_bytes())));
    assert_eq!(fresh(get(server.tls_request(&ours.pem()))), BODY.as_bytes());
    // A bundle with an old and a new authority, in any order, is how one is replaced.
    let other = Authority::new();
    for bundle in [other.pem() + &ours.pem(), format!("# new\n{}\n# old\n{}", ours.pem(), other.pem())] {
        assert_eq!(fresh(get(server.tls_request(&bundle))), BODY.as_bytes());
    }
    // The IP address is not in the certificate.
    let request =
        Request { url: format!("https://127.0.0.1:{}/", server.port), ..server.tls_request(&ours.pem()) };
    assert_eq!(get(request), Err(FetchError::Tls("the certificate is for another host name")));
}

#[test]
fn f037_untrusted_certificates() {
    let ours = Authority::new();
    let pem = ours.pem();
    let refused = |change: fn(&mut CertificateParams), reason: &'static str| {
        let server = Server::https(ours.server(change), |_, wire| drop(wire.write_all(good("").as_bytes())));
        assert_eq!(get(server.tls_request(&pem)), Err(FetchError::Tls(reason)));
        assert_eq!(server.heads(), [""; 0], "nothing is sent to a server that is not trusted");
    };
    refused(|params| params.not_after = date_time_ymd(2020, 1, 1), "the certificate has expired");
    refused(|params| params.not_before = date_time_ymd(4000, 1, 1), "the certificate is not valid yet");
    refused(
        |params| *params = CertificateParams::new(vec!["idp.example".to_owned()]).unwrap(),
        "the certificate is for another host name",
    );
    refused(
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        "the certificate is not for servers",
    );
}

#[test]
fn f037_unknown_authorities() {
    let (ours, other) = (Authority::new(), Authority::new());
    let unknown = Err(FetchError::Tls("the certificate is signed by an unknown authority"));
    let server = Server::https(other.server(|_| {}), |_, _| {});
    assert_eq!(get(server.tls_request(&ours.pem())), unknown);
    // The system's certificates do not help a private authority either.
    assert_eq!(get(Request { ca_certificate: None, ..server.tls_request("") }), unknown);

    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let server = Server::https(server_config(own.der().clone(), &key, rustls::DEFAULT_VERSIONS), |_, _| {});
    assert_eq!(get(server.tls_request(&ours.pem())), unknown);
}

#[test]
fn f037_bad_ca_certificates() {
    let ours = Authority::new();
    let server = Server::https(ours.server(|_| {}), |_, wire| drop(wire.write_all(good("").as_bytes())));
    let (pem, key) = (ours.pem(), KeyPair::generate().unwrap().serialize_pem());
    let cut = &pem[..pem.len() / 2];
    let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for bad in ["", "nonsense", &key, cut, hollow, &format!("{pem}{hollow}"), &format!("{pem}{cut}")] {
        assert_eq!(get(server.tls_request(bad)), Err(FetchError::BadCa), "{bad}");
    }
    assert_eq!(server.connections(), 0);
    assert_eq!(fresh(get(server.tls_request(&format!("{key}{pem}")))), BODY.as_bytes());
}

#[test]
fn f037_tls_versions() {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = server_config(own.der().clone(), &key, &[version]);
        let server = Server::https(config, |_, wire| drop(wire.write_all(good("").as_bytes())));
        assert_eq!(fresh(get(server.tls_request(&own.pem()))), BODY.as_bytes());
    }
    // A server of the past: alert protocol_version, or a ServerHello that says TLS 1.0 and a CBC cipher.
    let mut hello = vec![0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0x00, 0x2f, 0]);
    for (bytes, reason) in [
        (vec![0x15, 3, 1, 0, 2, 2, 70], "the server refuses TLS 1.2 and 1.3"),
        (hello, "the server offers no version or cipher of TLS 1.2 or 1.3 that fits"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "the server does not speak TLS on this port"),
    ] {
        let server = Server::raw(move |mut stream| {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(&bytes);
            hold(stream);
        });
        assert_eq!(get(server.tls_request(&own.pem())), Err(FetchError::Tls(reason)));
    }
}

#[test]
fn f037_no_session_is_resumed() {
    let ours = Authority::new();
    let (tell, told) = mpsc::channel();
    let config = std::sync::Arc::new(ours.server(|_| {}));
    let server = Server::raw(move |stream| {
        let session = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream);
        if crate::support::read_head(&mut stream).is_some() {
            tell.send(stream.conn.handshake_kind()).unwrap();
            let _ = stream.write_all(good("").as_bytes());
            let _ = stream.flush();
        }
    });
    let mut fetcher = Fetcher::start().unwrap();
    for id in 0..3 {
        fetcher.submit(id, server.tls_request(&ours.pem())).unwrap();
        fresh(collect(&mut fetcher, 1).remove(0).1);
        // A resumption would let a certificate pass that has expired since; a retry request is no matter.
        assert_ne!(told.recv().unwrap(), Some(rustls::HandshakeKind::Resumed));
    }
    assert_eq!(server.connections(), 3, "no connection is kept");
}

#[test]
fn f039_redirects_are_not_followed() {
    let trap = Server::answering(good(""));
    for status in [300u16, 301, 302, 303, 305, 307, 308] {
        for to in [
            format!("http://127.0.0.1:{}/", trap.port),
            format!("https://127.0.0.1:{}/", trap.port),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "file:///etc/passwd".to_owned(),
            "/jwks".to_owned(),
        ] {
            let headers = format!("Location: {to}\r\nContent-Type: application/json\r\n");
            let server = Server::answering(answer(&format!("{status} Over There"), &headers, b"{}", 2));
            assert_eq!(get(server.request()), Err(FetchError::Redirect(status)));
            assert_eq!(server.connections(), 1);
        }
    }
    assert_eq!(trap.connections(), 0);
    // A Location on a 200 is only a header.
    assert_eq!(
        fresh(get(Server::answering(good("Location: https://x.example/\r\n")).request())),
        BODY.as_bytes()
    );
}

#[test]
fn f039_plain_http_needs_permission() {
    let server = Server::answering(good(""));
    let refused = Request { allow_http: false, ..server.request() };
    assert_eq!(get(refused), Err(FetchError::SchemeRefused("plain http")));
    assert_eq!(server.connections(), 0);
    assert_eq!(fresh(get(server.request())), BODY.as_bytes());
}

#[test]
fn f036_server_that_hangs_up() {
    let server = Server::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4_096]);
    });
    assert!(matches!(get(server.request()), Err(FetchError::BadAnswer(_))));
    let outcome = get(server.tls_request(&Authority::new().pem()));
    let expected = matches!(
        outcome,
        Err(FetchError::Connect("connection closed by the server" | "connection reset by the server"))
    );
    assert!(expected, "{outcome:?}");
}
