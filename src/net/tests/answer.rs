//! Which answers are accepted: fault 38, and what 46 asks of sizes.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use pg_oidc_net::{FetchError, Fetcher, Phase, Request, Response};

use crate::support::{Authority, BODY, Server, Wire, answer, collect, fresh, get, good, timed};

const SHORT: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(3);

/// One byte at a time, for longer than any test waits.
fn drip(wire: &mut dyn Wire, bytes: &[u8]) {
    for byte in bytes.iter().cycle().take(1_000) {
        if wire.write_all(&[*byte]).is_err() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const GZIP: &str = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn f038_one_byte_at_a_time_ends_at_the_limit() {
    let head = Server::http(|_, wire| drip(wire, b"HTTP/1.1 200 OK\r\nX: y\r\n"));
    let body = Server::http(|_, wire| {
        wire.write_all(format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 900\r\n\r\n").as_bytes()).unwrap();
        drip(wire, b" ");
    });
    for (server, phase) in [(head, Phase::Answer), (body, Phase::Body)] {
        let (outcome, taken) = timed(Request { limit: SHORT, ..server.request() });
        assert_eq!(outcome, Err(FetchError::Timeout(phase)));
        assert!(taken < SHORT + SLACK, "{taken:?}");
    }
}

#[test]
fn f038_endless_chunks_end_at_the_cap() {
    let server = Server::http(|_, wire| {
        let head = format!("HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n");
        if wire.write_all(head.as_bytes()).is_ok() {
            while wire.write_all(b"400\r\n").and_then(|()| wire.write_all(&[b' '; 0x400])).is_ok()
                && wire.write_all(b"\r\n").is_ok()
            {}
        }
    });
    assert_eq!(get(server.request()), Err(FetchError::TooLarge(262_144)));
}

#[test]
fn f038_endless_tiny_parts_end_at_the_limit() {
    // None of these ever adds a byte to the body, or ends the head.
    for (head, part) in [
        (format!("HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n1;x="), "x"),
        (format!("HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n"), "0"),
        (String::new(), "HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\n".to_owned(), "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
        (
            "HTTP/1.1 200 OK\r\nX: ".to_owned(),
            "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
        ),
    ] {
        // Paced, because plain http without optimization is not what runs: hyper parses all that it can read
        // in one turn, there some 50 MB. The next test has TLS, which reads in small steps.
        let server = Server::http(move |_, wire| {
            let _ = wire.write_all(head.as_bytes());
            while (0..8).all(|_| wire.write_all(part.as_bytes()).is_ok()) {
                sleep(Duration::from_millis(1));
            }
        });
        let (outcome, taken) = timed(Request { limit: SHORT, ..server.request() });
        assert!(
            matches!(outcome, Err(FetchError::Timeout(_) | FetchError::BadAnswer(_))),
            "{part} {outcome:?}"
        );
        assert!(taken < SHORT + SLACK, "{part} {taken:?}");
    }
}

#[test]
fn f038_a_flood_delays_no_other() {
    let ours = Authority::new();
    let flood = Server::https(ours.server(|_| {}), |_, wire| {
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
        while wire.write_all(hints.as_bytes()).is_ok() {}
    });
    let good = Server::answering(good(""));
    let mut fetcher = Fetcher::start().unwrap();
    fetcher.submit(0, Request { limit: Duration::from_secs(60), ..flood.tls_request(&ours.pem()) }).unwrap();
    let start = Instant::now();
    while flood.heads().is_empty() {
        assert!(start.elapsed() < SLACK, "the flood never began");
        sleep(Duration::from_millis(1));
    }
    // Measured with optimization: 50 ms each while one or three servers flood the thread.
    for id in 1..=3 {
        fetcher.submit(id, good.request()).unwrap();
        let (answered, outcome) = collect(&mut fetcher, 1).remove(0);
        assert_eq!((answered, fresh(outcome)), (id, BODY.as_bytes().to_vec()));
    }
    fetcher.stop(Duration::from_secs(5));
}

#[test]
fn f038_the_cap_is_exact() {
    let server = Server::answering(good(""));
    let exact = Request { max_bytes: BODY.len(), ..server.request() };
    assert_eq!(fresh(get(exact.clone())), BODY.as_bytes());
    let less = Request { max_bytes: BODY.len() - 1, ..exact };
    assert_eq!(get(less), Err(FetchError::TooLarge(BODY.len() - 1)));
}

#[test]
fn f046_an_announced_giant_is_not_even_begun() {
    for length in [262_145, usize::MAX] {
        let server = Server::http(move |_, wire| {
            let _ = wire.write_all(&answer("200 OK", JSON, b"", length));
            let _ = wire.read(&mut [0]);
        });
        let (outcome, taken) = timed(server.request());
        assert!(
            matches!(outcome, Err(FetchError::TooLarge(262_144) | FetchError::BadAnswer(_))),
            "{outcome:?}"
        );
        assert!(taken < SLACK, "{taken:?}");
    }
}

#[test]
fn f038_gzip_counts_decompressed() {
    let fits = gzip(BODY.as_bytes());
    let server = Server::answering(answer("200 OK", GZIP, &fits, fits.len()));
    let exact = Request { max_bytes: BODY.len(), ..server.request() };
    assert!(fits.len() > BODY.len(), "the compressed length is not what counts");
    assert_eq!(fresh(get(exact.clone())), BODY.as_bytes());
    assert_eq!(
        get(Request { max_bytes: BODY.len() - 1, ..exact }),
        Err(FetchError::TooLarge(BODY.len() - 1))
    );

    let bomb = gzip(&vec![b' '; 16 << 20]);
    assert!(bomb.len() < 262_144, "it passes for small on the wire");
    let server = Server::answering(answer("200 OK", GZIP, &bomb, bomb.len()));
    let (outcome, taken) = timed(server.request());
    assert_eq!(outcome, Err(FetchError::TooLarge(262_144)));
    assert!(taken < SLACK, "{taken:?}");
}

#[test]
fn f038_broken_and_unknown_encodings() {
    let whole = gzip(BODY.as_bytes());
    let mut wrong = whole.clone();
    wrong[12] ^= 0xff;
    for bytes in [b"not gzip at all".to_vec(), whole[..whole.len() - 6].to_vec(), wrong] {
        let server = Server::answering(answer("200 OK", GZIP, &bytes, bytes.len()));
        assert_eq!(get(server.request()), Err(FetchError::BadAnswer("invalid gzip data")));
    }
    let twice = gzip(&whole);
    for encoding in ["br", "deflate", "zstd", "compress", "gzip, gzip", "x-unknown"] {
        let headers = format!("{JSON}Content-Encoding: {encoding}\r\n");
        let server = Server::answering(answer("200 OK", &headers, &twice, twice.len()));
        assert_eq!(get(server.request()), Err(FetchError::ContentEncoding), "{encoding}");
    }
    assert_eq!(
        fresh(get(Server::answering(good("Content-Encoding: identity\r\n")).request())),
        BODY.as_bytes()
    );
}

#[test]
fn f038_only_status_200() {
    for status in
        [201, 202, 203, 204, 205, 206, 207, 226, 400, 401, 403, 404, 410, 429, 500, 502, 503, 504, 599]
    {
        let server = Server::answering(answer(&format!("{status} X"), JSON, b"", 0));
        assert_eq!(get(server.request()), Err(FetchError::Status(status)));
        assert_eq!(server.connections(), 1, "no retry");
    }
}

#[test]
fn f038_status_304_only_for_an_etag() {
    let server = Server::answering("HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=90\r\n\r\n");
    assert_eq!(get(server.request()), Err(FetchError::Status(304)));
    let conditional = Request { etag: Some("W/\"v1\"".into()), ..server.request() };
    assert_eq!(get(conditional), Ok(Response::NotModified { max_age: Some(Duration::from_secs(90)) }));
    let heads = server.heads();
    assert!(!heads[0].to_lowercase().contains("if-none-match"), "{}", heads[0]);
    assert!(heads[1].contains("if-none-match: W/\"v1\"\r\n"), "{}", heads[1]);
    // A 200 is an answer to a conditional request as well.
    let changed = Request { etag: Some("\"v1\"".into()), ..Server::answering(good("")).request() };
    assert_eq!(fresh(get(changed)), BODY.as_bytes());
}

#[test]
fn f038_only_json() {
    let outcome = |headers: &str| get(Server::answering(answer("200 OK", headers, b"{}", 2)).request());
    for good in [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8;x=y",
        "Application/JSON",
        "application/jwk-set+json",
        "application/problem+json ; a=b",
    ] {
        assert_eq!(fresh(outcome(&format!("Content-Type: {good}\r\n"))), b"{}", "{good}");
    }
    for bad in [
        "text/html",
        "text/plain; x=application/json",
        "application/jsonp",
        "application/x-json",
        "application/+json",
        "application/json+xml",
        "/a+json",
        "json",
        "application / json",
        "application/octet-stream, application/json",
        "",
        "\u{e9}",
    ] {
        assert_eq!(outcome(&format!("Content-Type: {bad}\r\n")), Err(FetchError::ContentType), "{bad}");
    }
    assert_eq!(outcome(""), Err(FetchError::ContentType));
    let two = "Content-Type: text/html\r\nContent-Type: application/json\r\n";
    assert_eq!(outcome(two), Err(FetchError::ContentType));
}

#[test]
fn f038_truncated_and_malformed_answers() {
    let many = "X-Y: z\r\n".repeat(120);
    for bytes in [
        answer("200 OK", JSON, BODY.as_bytes(), BODY.len() + 1),
        format!("HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n3\r\n{{}}").into_bytes(),
        format!("HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
        format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}x").into_bytes(),
        good(&many).into_bytes(),
        good(&format!("X: {}\r\n", "y".repeat(1 << 20))).into_bytes(),
        b"HTTP/1.1 200".to_vec(),
        b"{\"keys\":[]}".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        Vec::new(),
    ] {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let outcome = get(Server::answering(bytes).request());
        assert!(matches!(outcome, Err(FetchError::BadAnswer(_))), "{start} {outcome:?}");
    }
    assert_eq!(fresh(get(Server::answering(good(&"X-Y: z\r\n".repeat(90))).request())), BODY.as_bytes());
}

#[test]
fn f038_a_body_that_breaks_off_is_not_called_gzip() {
    let chunked = format!("HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n");
    let compressed = gzip(BODY.as_bytes());
    let half = &compressed[..compressed.len() / 2];
    for bytes in [
        answer("200 OK", JSON, BODY.as_bytes(), BODY.len() + 1),
        format!("{chunked}3\r\n{{}}").into_bytes(),
        format!("{chunked}2\r\n{{}}\r\n").into_bytes(),
        answer("200 OK", GZIP, half, compressed.len()),
    ] {
        let error = get(Server::answering(bytes).request()).unwrap_err();
        assert_eq!(error, FetchError::BadAnswer("connection closed by the server"));
    }
    // The near miss: the connection ends well, and the compressed data do not.
    let cut = Server::answering(answer("200 OK", GZIP, half, half.len()));
    assert_eq!(get(cut.request()), Err(FetchError::BadAnswer("invalid gzip data")));
    // Not a chunk's size.
    let wrong = Server::answering(format!("{chunked}zz\r\n").into_bytes());
    assert_eq!(get(wrong.request()), Err(FetchError::BadAnswer("it breaks off or is not valid HTTP")));
}

#[test]
fn freshness_is_max_age_less_age() {
    let max_age = |headers: &str| match get(Server::answering(good(headers)).request()) {
        Ok(Response::Fresh { max_age, .. }) => max_age.map(|age| age.as_secs()),
        other => panic!("{other:?}"),
    };
    for (headers, seconds) in [
        ("", None),
        ("Cache-Control: public\r\n", None),
        ("Age: 10\r\n", None),
        ("Cache-Control: s-maxage=5\r\n", None),
        ("Cache-Control: max-age=600\r\n", Some(600)),
        ("Cache-Control: PUBLIC , Max-Age=\"600\" , must-revalidate\r\n", Some(600)),
        ("Cache-Control: max-age=600\r\nAge: 100\r\n", Some(500)),
        ("Cache-Control: max-age=600\r\nAge: 601\r\n", Some(0)),
        ("Cache-Control: max-age=600, max-age=300\r\n", Some(300)),
        ("Cache-Control: max-age=600\r\nCache-Control: no-cache\r\n", Some(0)),
        ("Cache-Control: no-store\r\n", Some(0)),
        ("Cache-Control: max-age=-1\r\n", Some(0)),
        ("Cache-Control: max-age\r\n", Some(0)),
        ("Cache-Control: max-age=1e9\r\n", Some(0)),
        ("Cache-Control: max-age=99999999999999999999999999\r\n", Some(1 << 31)),
        ("Cache-Control: max-age=18446744073709551615\r\nAge: 18446744073709551616\r\n", Some(0)),
    ] {
        assert_eq!(max_age(headers), seconds, "{headers}");
    }
}

#[test]
fn an_etag_is_kept_only_if_it_can_be_sent_back() {
    let etag = |headers: &str| match get(Server::answering(good(headers)).request()) {
        Ok(Response::Fresh { etag, .. }) => etag,
        other => panic!("{other:?}"),
    };
    assert_eq!(etag("ETag: \"v1\"\r\n").as_deref(), Some("\"v1\""));
    assert_eq!(etag("ETag: W/\"v1\"\r\n").as_deref(), Some("W/\"v1\""));
    assert_eq!(etag(""), None);
    assert_eq!(etag("ETag: \"a\"\r\nETag: \"b\"\r\n"), None);
    assert_eq!(etag("ETag: \"\u{e9}\"\r\n"), None);
    assert_eq!(etag(&format!("ETag: \"{}\"\r\n", "x".repeat(600))), None);
}

#[test]
fn the_request_says_who_we_are_and_no_more() {
    let server = Server::answering(good("Set-Cookie: planted=1; Path=/\r\n"));
    let request = Request { url: format!("http://127.0.0.1:{}/a/b?c=d#e", server.port), ..server.request() };
    fresh(get(request.clone()));
    fresh(get(request));
    let expected = format!(
        "GET /a/b?c=d HTTP/1.1\r\naccept: application/json, application/jwk-set+json\r\n\
         user-agent: pg_oidc/{}\r\naccept-encoding: gzip\r\nhost: 127.0.0.1:{}\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        server.port
    );
    assert_eq!(server.heads(), [expected.clone(), expected]);
}

#[test]
fn no_error_repeats_what_the_server_wrote() {
    let planted = "PLANTED";
    for bytes in [
        answer("500 PLANTED", JSON, planted.as_bytes(), planted.len()),
        answer("302 PLANTED", "Location: https://PLANTED/\r\n", planted.as_bytes(), planted.len()),
        answer("200 OK", "Content-Type: PLANTED/html\r\n", planted.as_bytes(), planted.len()),
        answer("200 OK", "Content-Encoding: PLANTED\r\n", planted.as_bytes(), planted.len()),
        answer("200 OK", GZIP, planted.as_bytes(), planted.len()),
        b"PLANTED PLANTED\r\n\r\n".to_vec(),
    ] {
        let error = get(Server::answering(bytes).request()).unwrap_err();
        assert!(!format!("{error} {error:?}").to_uppercase().contains(planted), "{error:?}");
        assert!(!error.to_string().ends_with('.'), "{error}");
    }
}
