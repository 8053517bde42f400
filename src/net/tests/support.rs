//! Scripted servers on loopback, a small certificate authority, and one fetch at a time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pg_oidc_net::{FetchError, Fetcher, Request, Response};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub(crate) type Outcome = Result<Response, FetchError>;

/// No test server keeps a thread longer than this.
const SERVER_PATIENCE: Duration = Duration::from_secs(20);

/// A server's side of one connection.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// Listens until the process ends and runs the script for every connection, each on its own thread.
pub(crate) struct Server {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// The script gets the raw connection.
    pub(crate) fn raw(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, script) = (Arc::clone(&connections), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                stream.set_read_timeout(Some(SERVER_PATIENCE)).unwrap();
                stream.set_write_timeout(Some(SERVER_PATIENCE)).unwrap();
                let script = Arc::clone(&script);
                thread::spawn(move || script(stream));
            }
        });
        Self { port, connections, heads: Arc::default() }
    }

    /// The script gets the request's head, already read, and writes what it likes.
    pub(crate) fn http(script: impl Fn(&str, &mut dyn Wire) + Send + Sync + 'static) -> Self {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        let mut server = Self::raw(move |mut stream| speak(&mut stream, &seen, &script));
        server.heads = heads;
        server
    }

    /// The same over TLS.
    pub(crate) fn https(
        config: ServerConfig,
        script: impl Fn(&str, &mut dyn Wire) + Send + Sync + 'static,
    ) -> Self {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (seen, config) = (Arc::clone(&heads), Arc::new(config));
        let mut server = Self::raw(move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(session, stream);
            speak(&mut stream, &seen, &script);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        });
        server.heads = heads;
        server
    }

    /// Over http: always this answer.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::http(move |_, wire| {
            let _ = wire.write_all(&answer);
        })
    }

    /// A request to this server over plain http.
    pub(crate) fn request(&self) -> Request {
        Request {
            url: format!("http://127.0.0.1:{}/jwks", self.port),
            ca_certificate: None,
            proxy: None,
            allow_http: true,
            etag: None,
            limit: Duration::from_secs(5),
            max_bytes: 262_144,
        }
    }

    /// A request to this server over TLS that trusts `pem`.
    pub(crate) fn tls_request(&self, pem: &str) -> Request {
        Request {
            url: format!("https://localhost:{}/jwks", self.port),
            ca_certificate: Some(pem.to_owned()),
            allow_http: false,
            ..self.request()
        }
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The heads of the requests read so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn speak(wire: &mut dyn Wire, heads: &Mutex<Vec<String>>, script: &dyn Fn(&str, &mut dyn Wire)) {
    if let Some(head) = read_head(wire) {
        heads.lock().unwrap().push(head.clone());
        script(&head, wire);
    }
}

/// Up to and with the blank line; `None` when the peer goes away or is not speaking our language.
pub(crate) fn read_head(wire: &mut dyn Wire) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 16_384 || wire.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

pub(crate) const BODY: &str = r#"{"keys":[]}"#;

/// A good answer with these further header lines, each ended by CRLF.
pub(crate) fn good(headers: &str) -> String {
    let headers = format!("Content-Type: application/json\r\n{headers}");
    String::from_utf8(answer("200 OK", &headers, BODY.as_bytes(), BODY.len())).unwrap()
}

/// Any answer; `length` is what it announces.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8], length: usize) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Sleeps on the wake-up descriptor, as WaitLatchOrSocket does, until `count` results are there.
pub(crate) fn collect(fetcher: &mut Fetcher, count: usize) -> Vec<(u64, Outcome)> {
    let mut results = Vec::new();
    while results.len() < count {
        let mut waiting = [PollFd::new(fetcher.as_fd(), PollFlags::POLLIN)];
        let woken = poll(&mut waiting, PollTimeout::from(30_000u16)).unwrap();
        assert_eq!(woken, 1, "no wake-up after {} of {count} results", results.len());
        results.extend(fetcher.results());
        assert!(fetcher.is_alive(), "the fetcher thread has died");
    }
    results
}

/// One fetch, and how long it took.
pub(crate) fn timed(request: Request) -> (Outcome, Duration) {
    let mut fetcher = Fetcher::start().unwrap();
    let start = Instant::now();
    fetcher.submit(7, request).unwrap();
    let (id, outcome) = collect(&mut fetcher, 1).remove(0);
    let taken = start.elapsed();
    assert_eq!(id, 7);
    fetcher.stop(Duration::from_secs(5));
    (outcome, taken)
}

pub(crate) fn get(request: Request) -> Outcome {
    timed(request).0
}

pub(crate) fn fresh(outcome: Outcome) -> Vec<u8> {
    match outcome {
        Ok(Response::Fresh { body, .. }) => body,
        other => panic!("not a fresh answer: {other:?}"),
    }
}

/// A private authority, as a company has one.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        static FOUNDED: AtomicUsize = AtomicUsize::new(0);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let name = format!("Authority {}", FOUNDED.fetch_add(1, Ordering::SeqCst));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// The TLS settings of a server named `localhost`, after `change` has had its way with its certificate.
    pub(crate) fn server(&self, change: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        server_config(certificate.der().clone(), &key, rustls::DEFAULT_VERSIONS)
    }
}

pub(crate) fn server_config(
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: &KeyPair,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

/// Runs the ignored test `name` of this binary alone in a process of its own, with these variables set.
pub(crate) fn in_child(name: &str, environment: &[(&str, &str)]) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}
