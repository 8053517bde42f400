//! The certified OpenID provider (npm `oidc-provider`), run on loopback for the demo and the tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::keeper::Keeper;
use crate::{tools, workspace};

/// The audience of its tokens. As a resource indicator (RFC 8707) it must be an absolute URI.
pub const AUDIENCE: &str = "https://warehouse.example";
/// How long it may take to start: it makes an RSA key first.
const START: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The secret of every client. It guards nothing: the provider listens on loopback and ends with us.
pub const SECRET: &str = "a-secret-that-guards-nothing-on-loopback";

/// The folder of the provider's package.
pub fn folder() -> PathBuf {
    workspace().join("pg_test/provider")
}

/// A client of the provider: a job that gets tokens with its id as `sub`.
#[derive(Debug, Clone)]
pub struct Client(Map<String, Value>);

/// A provider to be started.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    clients: Vec<Value>,
    lifetime: Option<u32>,
}

/// A running provider. Dropped, it ends.
#[derive(Debug)]
pub struct Provider {
    issuer: String,
    requests: Arc<Mutex<Vec<String>>>,
    _keeper: Keeper,
}

impl Client {
    /// A client whose tokens are signed with `RS256` and have no claims of their own.
    pub fn new(id: &str) -> Self {
        Self(Map::new()).with("id", json!(id)).with("secret", json!(SECRET))
    }

    /// Has its tokens signed with `RS256`, `ES256` or `EdDSA`.
    #[must_use]
    pub fn algorithm(self, algorithm: &str) -> Self {
        self.with("algorithm", json!(algorithm))
    }

    /// Puts these claims into its tokens: an object.
    #[must_use]
    pub fn claims(self, claims: Value) -> Self {
        self.with("claims", claims)
    }

    /// Gives its tokens another audience than [`AUDIENCE`]: an absolute URI.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        self.with("audience", json!(audience))
    }

    /// Lets its tokens look as if they had been issued so many seconds ago.
    #[must_use]
    pub fn age(self, seconds: u32) -> Self {
        self.with("age", json!(seconds))
    }

    fn with(mut self, member: &str, value: Value) -> Self {
        self.0.insert(member.to_owned(), value);
        self
    }
}

impl Builder {
    /// Adds a client.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.push(Value::Object(client.0));
        self
    }

    /// Sets how many seconds a token lives; an hour where it is not set.
    #[must_use]
    pub fn lifetime(mut self, seconds: u32) -> Self {
        self.lifetime = Some(seconds);
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(self) -> Result<Provider> {
        let lifetime = self.lifetime.unwrap_or(3600);
        let setup = json!({ "audience": AUDIENCE, "clients": self.clients, "lifetime": lifetime });
        let script = folder().join("server.mjs");
        let script = script.to_str().context("the path of this project is not UTF-8")?;
        let mut keeper = Keeper::over_program(&tools::node()?, &[script, &setup.to_string()])?;
        let stdout = keeper.stdout().context("the provider has no standard output")?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let issuer = listen(stdout, Arc::clone(&requests));
        let issuer = issuer.recv_timeout(START).context("the OpenID provider did not start")?;
        Ok(Provider { issuer, requests, _keeper: keeper })
    }
}

/// Reads what the provider says, for as long as it runs: its issuer once, then each request.
fn listen(stdout: impl Read + Send + 'static, requests: Arc<Mutex<Vec<String>>>) -> Receiver<String> {
    let (found, issuer) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("issuer", url)) => {
                    let _ = found.send(url.to_owned());
                }
                Some(("request", what)) => {
                    requests.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
                }
                _ => {}
            }
        }
    });
    issuer
}

impl Provider {
    /// A provider without clients yet.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its issuer identifier, as in `http://127.0.0.1:41234`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// All requests it has had so far, as in `GET /jwks`.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for an access token by client credentials (RFC 6749, 4.4).
    ///
    /// # Errors
    /// When the provider does not give one.
    pub fn token(&self, client: &str) -> Result<String> {
        let host = self.issuer.strip_prefix("http://").context("the issuer is not on loopback")?;
        let credentials = STANDARD.encode(format!("{client}:{SECRET}"));
        let body = "grant_type=client_credentials";
        let request = format!(
            "POST /token HTTP/1.0\r\nHost: {host}\r\nAuthorization: Basic {credentials}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(host).context("could not reach the OpenID provider")?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("the OpenID provider did not answer")?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        match body.get("access_token").and_then(Value::as_str) {
            Some(token) => Ok(token.to_owned()),
            None => bail!("the OpenID provider gave no token: {answer}"),
        }
    }
}
