//! An OpenID issuer that does as it is told: serves a discovery document and a key set, or misbehaves.
//!
//! It listens on 127.0.0.1, over plain http or TLS, and counts what it is asked. Nothing in it waits longer
//! than `PATIENCE`, no thread of it is ever joined by a test but the one that accepts, and every answer ends
//! its connection, so a test that fails cannot hang on it.

mod behaviour;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

pub use behaviour::Behaviour;

use crate::tls::Leaf;

/// Where the discovery document is (OpenID Connect Discovery 1.0, section 4).
pub const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Where its `jwks_uri` points.
pub const JWKS: &str = "/jwks";

/// The longest that anything here waits: for bytes, for room to write, for the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running issuer. Dropped, it closes its port and lets go of every connection.
pub struct Issuer {
    url: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    door: Mutex<Option<JoinHandle<()>>>,
    hole: Mutex<Option<Hole>>,
}

/// A port that nobody serves, and the connections that fill its queue.
type Hole = (TcpListener, Vec<TcpStream>);

/// What the threads of an issuer share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified at every change of `state`.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tls: Option<Arc<ServerConfig>>,
    /// What every connection hears instead of an answer.
    greeting: Option<Vec<u8>>,
    documents: HashMap<String, Value>,
    behaviours: HashMap<String, Behaviour>,
    requests: Vec<Request>,
    connections: usize,
    /// Stop accepting.
    shut: bool,
    /// Let go of everything.
    over: bool,
}

/// One request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path, without a query.
    pub path: String,
    /// The request line and the headers, as they came.
    pub head: String,
    /// When its head had been read.
    pub at: Instant,
}

impl Request {
    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Issuer {
    /// Starts an issuer on plain http, with an empty key set.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// Starts an issuer on https with this certificate (see [`crate::tls::loopback`]).
    ///
    /// # Errors
    /// When no port is to be had or the certificate and the key do not fit.
    pub fn start_tls(leaf: &Leaf) -> Result<Self> {
        Self::start_with(Some(config(leaf)?))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for an issuer")?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        let (shared, door, hole) = (Arc::default(), Mutex::default(), Mutex::default());
        let issuer = Self { url, address, shared, door, hole };
        issuer.change(|state| state.tls = tls);
        issuer.set(DISCOVERY, issuer.discovery());
        issuer.set_jwks(json!({ "keys": [] }));
        issuer.listen(listener);
        Ok(issuer)
    }

    /// Its issuer identifier, as in `https://127.0.0.1:41234`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The discovery document it starts with, to change and [`Issuer::set`].
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}{JWKS}", self.url),
            "authorization_endpoint": format!("{}/auth", self.url),
            "token_endpoint": format!("{}/token", self.url),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
        })
    }

    /// Serves this document at `path` from now on. What was set nowhere is 404.
    pub fn set(&self, path: &str, document: Value) {
        self.change(|state| state.documents.insert(path.to_owned(), document));
    }

    /// Serves this key set from now on.
    pub fn set_jwks(&self, jwks: Value) {
        self.set(JWKS, jwks);
    }

    /// Misbehaves at `path` from the next request on.
    pub fn misbehave(&self, path: &str, behaviour: Behaviour) {
        self.change(|state| state.behaviours.insert(path.to_owned(), behaviour));
    }

    /// Behaves again at `path`.
    pub fn behave(&self, path: &str) {
        self.change(|state| state.behaviours.remove(path));
    }

    /// Presents another certificate from the next connection on.
    ///
    /// # Errors
    /// When the certificate and the key do not fit.
    pub fn present(&self, leaf: &Leaf) -> Result<()> {
        let config = config(leaf)?;
        self.change(|state| (state.tls, state.greeting) = (Some(config), None));
        Ok(())
    }

    /// Answers the first bytes of every connection with these and no others, whatever they were: neither TLS nor
    /// http, until [`Issuer::present`].
    pub fn greet(&self, bytes: &[u8]) {
        self.change(|state| state.greeting = Some(bytes.to_vec()));
    }

    /// How many requests for `path` there have been. Each counts once its head is read, before its answer.
    pub fn count(&self, path: &str) -> usize {
        self.lock().requests.iter().filter(|request| request.path == path).count()
    }

    /// All requests there have been, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// How many connections there have been, those that failed in the TLS handshake included.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Waits until there have been `count` requests for `path`, at most `limit`; whether there have.
    pub fn wait(&self, path: &str, count: usize, limit: Duration) -> bool {
        self.shared.wait(limit, |state| {
            state.requests.iter().filter(|request| request.path == path).count() >= count
        })
    }

    /// Closes the port: connections are refused from now on, not just dropped. Those open go on.
    pub fn refuse(&self) {
        *self.hole.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(door) = door else { return };
        self.change(|state| state.shut = true);
        // The thread sits in accept(): one last visitor lets it see.
        let visited = TcpStream::connect_timeout(&self.address, PATIENCE).is_ok();
        if visited {
            let _ = door.join();
        }
    }

    /// Opens the port again, the same one.
    ///
    /// # Errors
    /// When somebody else has taken it meanwhile.
    pub fn accept(&self) -> Result<()> {
        self.refuse();
        self.listen(TcpListener::bind(self.address).context("the issuer's port is taken")?);
        Ok(())
    }

    /// Keeps the port but leaves every knock unanswered, as a firewall does that drops packets.
    ///
    /// # Errors
    /// When somebody else has taken the port meanwhile, or the kernel answers for us all the same.
    pub fn swallow(&self) -> Result<()> {
        /// More than the shortest queue of any kernel.
        const QUEUE: usize = 16;
        const KNOCK: Duration = Duration::from_millis(200);
        self.refuse();
        let listening = async {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(self.address)?;
            socket.listen(1)?.into_std()
        };
        let listener = tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(listening);
        let (listener, mut knocks) = (listener.context("the issuer's port is taken")?, Vec::new());
        // Nobody accepts: once the queue is full, the kernel drops what comes.
        while let Ok(knock) = TcpStream::connect_timeout(&self.address, KNOCK) {
            knocks.push(knock);
            ensure!(knocks.len() < QUEUE, "the queue of the issuer's port has no end");
        }
        *self.hole.lock().unwrap_or_else(PoisonError::into_inner) = Some((listener, knocks));
        Ok(())
    }

    fn listen(&self, listener: TcpListener) {
        self.change(|state| state.shut = false);
        let shared = Arc::clone(&self.shared);
        let door = thread::spawn(move || {
            for stream in listener.incoming() {
                let mut state = shared.lock();
                if state.shut {
                    return;
                }
                let Ok(stream) = stream else { continue };
                state.connections += 1;
                drop(state);
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.receive(stream));
            }
        });
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = Some(door);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) {
        change(&mut self.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.change(|state| state.over = true);
        self.refuse();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until `reached`, at most `limit`; whether it is.
    fn wait(&self, limit: Duration, reached: impl Fn(&State) -> bool) -> bool {
        let end = Instant::now() + limit.min(PATIENCE);
        let mut state = self.lock();
        while !reached(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Lets time pass; true as soon as the issuer is gone.
    fn pause(&self, time: Duration) -> bool {
        self.wait(time, |state| state.over)
    }

    /// One connection, from the first byte to the last. Errors end it: the other side has gone.
    fn receive(&self, mut stream: TcpStream) {
        let timeouts = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)));
        if timeouts.and(stream.set_nodelay(true)).is_err() {
            return;
        }
        let (tls, greeting) = {
            let state = self.lock();
            (state.tls.clone(), state.greeting.clone())
        };
        if let Some(greeting) = greeting {
            let heard = stream.read(&mut [0; 4_096]).and_then(|_| stream.write_all(&greeting));
            // Closed with bytes unread it would be reset, and the greeting lost: the other side goes first.
            let _ = heard.and_then(|()| stream.read_to_end(&mut Vec::new()));
            return;
        }
        let Some(config) = tls else {
            self.answer(&mut stream);
            return;
        };
        let Ok(session) = ServerConnection::new(config) else { return };
        let mut stream = StreamOwned::new(session, stream);
        self.answer(&mut stream);
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }

    fn answer(&self, wire: &mut dyn Wire) {
        let Some(head) = head(wire) else { return };
        let target = head.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let request = Request { path, head, at: Instant::now() };
        let mut state = self.lock();
        state.requests.push(request.clone());
        let document = state.documents.get(&request.path).cloned();
        let behaviour = state.behaviours.get(&request.path).cloned();
        drop(state);
        self.changed.notify_all();
        let _ = behaviour::answer(self, wire, &request, document.as_ref(), behaviour.as_ref());
    }
}

fn config(leaf: &Leaf) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// The issuer's side of a connection.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// Up to and with the blank line.
fn head(wire: &mut dyn Wire) -> Option<String> {
    /// More than any client of ours sends.
    const LONGEST: usize = 16_384;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > LONGEST || wire.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.extend_from_slice(&byte);
    }
    String::from_utf8(head).ok()
}
