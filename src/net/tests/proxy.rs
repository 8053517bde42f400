//! Fault 40: the environment's proxies are ignored, only the one given is used.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use pg_oidc_net::{FetchError, Phase, Request};

use crate::support::{Authority, BODY, Server, fresh, get, good, in_child};

/// A proxy that answers CONNECT with `status` and, if that is 200, opens the tunnel.
fn proxy(status: &'static str) -> Server {
    Server::raw(move |stream| {
        let mut client = stream;
        let Some(head) = crate::support::read_head(&mut client) else { return };
        let to = head.split(' ').nth(1).unwrap_or_default().replace("localhost", "127.0.0.1");
        client.write_all(format!("HTTP/1.1 {status}\r\nX-Head: {}\r\n\r\n", head.len()).as_bytes()).unwrap();
        if !status.starts_with("200") {
            return;
        }
        let server = TcpStream::connect(to).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut &server, &mut &client);
    })
}

fn at(port: u16) -> Option<String> {
    Some(format!("http://user:secret@127.0.0.1:{port}"))
}

#[test]
fn f040_given_proxy_carries_tls() {
    let ours = Authority::new();
    let server = Server::https(ours.server(|_| {}), |_, wire| drop(wire.write_all(good("").as_bytes())));
    let proxy = proxy("200 Connection established");
    let request = Request { proxy: at(proxy.port), ..server.tls_request(&ours.pem()) };
    assert_eq!(fresh(get(request)), BODY.as_bytes());
    assert_eq!((proxy.connections(), server.connections()), (1, 1));
    // The proxy's word does not replace the provider's certificate.
    let other = Request { proxy: at(proxy.port), ..server.tls_request(&Authority::new().pem()) };
    assert_eq!(get(other), Err(FetchError::Tls("the certificate is signed by an unknown authority")));
    // Its user name and password go to it and to nobody else.
    assert!(server.heads().iter().all(|head| !head.to_lowercase().contains("authorization")));
}

#[test]
fn f040_proxy_gets_its_credentials_and_not_the_request() {
    let proxy = Server::http(|_, wire| drop(wire.write_all(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")));
    let target = Server::answering("");
    let request = Request { proxy: at(proxy.port), ..target.tls_request(&Authority::new().pem()) };
    let error = get(request).unwrap_err();
    assert_eq!(error, FetchError::Proxy("the proxy does not open a tunnel"));
    assert!(!error.to_string().contains("secret"));
    let head = proxy.heads().remove(0);
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", target.port)), "{head}");
    assert!(head.contains("Basic dXNlcjpzZWNyZXQ="), "{head}");
    assert_eq!(target.connections(), 0);
}

#[test]
fn f040_proxy_that_fails() {
    let server = Server::answering(good(""));
    let request = |proxy| Request { proxy, ..server.tls_request(&Authority::new().pem()) };
    for status in ["403 Forbidden", "502 Bad Gateway", "302 Found"] {
        let refused = Err(FetchError::Proxy("the proxy does not open a tunnel"));
        assert_eq!(get(request(at(proxy(status).port))), refused);
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(get(request(at(closed))), Err(FetchError::Proxy("connection refused")));
    let tarpit = Server::raw(|stream| {
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    });
    let slow = Request { limit: Duration::from_millis(400), ..request(at(tarpit.port)) };
    assert_eq!(get(slow), Err(FetchError::Timeout(Phase::Connect)));
    assert_eq!(get(request(Some("socks5://127.0.0.1:1".into()))), Err(FetchError::BadProxy));
    assert_eq!(server.connections(), 0, "never around the proxy");
    // Plain http stays on this machine and so needs none.
    assert_eq!(fresh(get(Request { proxy: at(closed), ..server.request() })), BODY.as_bytes());
}

#[test]
fn f040_environment_proxies_are_ignored() {
    let canary = Server::answering("HTTP/1.1 502 Canary\r\nContent-Length: 0\r\n\r\n");
    let url = format!("http://127.0.0.1:{}", canary.port);
    let names = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let mut environment: Vec<_> = names.iter().map(|name| (*name, url.as_str())).collect();
    environment.extend([("NO_PROXY", ""), ("no_proxy", "")]);
    in_child("proxy::child_fetches_directly", &environment);
    assert_eq!(canary.connections(), 0);
}

#[test]
#[ignore = "run by f040_environment_proxies_are_ignored"]
fn child_fetches_directly() {
    assert!(std::env::var("HTTPS_PROXY").is_ok());
    let ours = Authority::new();
    let server = Server::https(ours.server(|_| {}), |_, wire| drop(wire.write_all(good("").as_bytes())));
    assert_eq!(fresh(get(server.tls_request(&ours.pem()))), BODY.as_bytes());
    assert_eq!(fresh(get(Server::answering(good("")).request())), BODY.as_bytes());
}
