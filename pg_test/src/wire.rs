//! A client that speaks the protocol by hand: it says what no real client would, and keeps all it hears.
//!
//! Version 3.0 of the protocol, formats as in the manual's chapter "Message Formats". Over the unix socket,
//! TCP, or TCP with TLS. Nothing here waits longer than `PATIENCE`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::bearer;
use crate::cluster::Cluster;
use crate::door::Door;
use crate::psql::Way;

/// The longest that a read or a write waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// Protocol 3.0 in a startup packet.
const VERSION: i32 = 0x0003_0000;
/// The code of an SSLRequest.
const SSL_REQUEST: i32 = 80_877_103;
/// More than any message that a login brings.
const LONGEST: usize = 1 << 20;

/// One message of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Authentication, by its number: 0 is "you are in", 3 asks for the password in clear text, 10 is SASL.
    Authentication(i32),
    /// The error that ends the connection.
    Error(Refused),
    /// The session waits for a query.
    Ready,
    /// Anything else, by its type.
    Other(u8),
}

/// "You are in."
pub const OK: Heard = Heard::Authentication(0);
/// "Your password, in clear text."
pub const ASKED: Heard = Heard::Authentication(3);

/// An ErrorResponse, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The message's body as it came.
    pub bytes: Vec<u8>,
}

impl Refused {
    /// All fields, each with its letter, in the order in which they came.
    pub fn fields(&self) -> Vec<(char, String)> {
        let fields = self.bytes.split(|byte| *byte == 0).filter_map(|field| field.split_first());
        fields.map(|(kind, text)| (char::from(*kind), String::from_utf8_lossy(text).into_owned())).collect()
    }

    /// One field: `S` severity, `C` SQLSTATE, `M` message, `F` file, `L` line, `R` routine; empty if absent.
    pub fn field(&self, letter: char) -> String {
        let found = self.fields().into_iter().find(|(kind, _)| *kind == letter);
        found.map(|(_, text)| text).unwrap_or_default()
    }
}

enum Channel {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection to a cluster.
pub struct Wire {
    channel: Channel,
}

impl Wire {
    /// Connects, and makes TLS with `Way::Tls` and `Way::Bearer`. No startup packet is sent yet.
    ///
    /// # Errors
    /// When there is no server, or no TLS with it.
    pub fn connect(cluster: &Cluster, way: Way) -> Result<Self> {
        Self::connect_with(cluster, way, false)
    }

    /// As [`Wire::connect`] over TLS, presenting the cluster's client certificate.
    ///
    /// # Errors
    /// When there is no server, or no TLS with it.
    pub fn connect_with_certificate(cluster: &Cluster) -> Result<Self> {
        Self::connect_with(cluster, Way::Tls, true)
    }

    fn connect_with(cluster: &Cluster, way: Way, certificate: bool) -> Result<Self> {
        if way == Way::Socket {
            let stream = UnixStream::connect(cluster.folder().join(format!(".s.PGSQL.{}", cluster.port())))?;
            stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)))?;
            return Ok(Self { channel: Channel::Unix(stream) });
        }
        let mut stream = TcpStream::connect(("127.0.0.1", cluster.port()))?;
        stream.set_read_timeout(Some(PATIENCE)).and(stream.set_write_timeout(Some(PATIENCE)))?;
        stream.set_nodelay(true)?;
        if way == Way::Plain {
            return Ok(Self { channel: Channel::Tcp(stream) });
        }
        let mut request = 8i32.to_be_bytes().to_vec();
        request.extend(SSL_REQUEST.to_be_bytes());
        stream.write_all(&request)?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        ensure!(answer == *b"S", "the server answers {answer:?} to an SSLRequest");
        let session =
            ClientConnection::new(config(cluster, certificate)?, ServerName::try_from("127.0.0.1")?)?;
        Ok(Self { channel: Channel::Tls(Box::new(StreamOwned::new(session, stream))) })
    }

    /// Connects, introduces itself and gives the first message that comes back.
    ///
    /// # Errors
    /// As [`Wire::connect`], and when nothing comes.
    pub fn begin(cluster: &Cluster, way: Way, user: &str) -> Result<(Self, Heard)> {
        let mut wire = Self::connect(cluster, way)?;
        wire.startup(&[("user", user), ("database", "postgres")])?;
        let first = wire.hear()?.context("the server closed the connection at once")?;
        Ok((wire, first))
    }

    /// Logs in as this user with this password, as a well-behaved client does, and gives how it ended: with
    /// [`Heard::Ready`] or with an error.
    ///
    /// # Errors
    /// When the connection ends otherwise.
    pub fn log_in(cluster: &Cluster, way: Way, user: &str, password: &str) -> Result<Heard> {
        let (mut wire, first) = Self::begin(cluster, way, user)?;
        if first == ASKED {
            wire.password(password)?;
            return wire.outcome();
        }
        if first == Heard::Authentication(bearer::SASL) && Door::chosen()? == Door::Oauth {
            wire.sasl(&bearer::message(password))?;
            return wire.exchange().map(|ended| ended.heard);
        }
        Ok(first)
    }

    /// Sends a startup packet with these parameters.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn startup(&mut self, parameters: &[(&str, &str)]) -> Result<()> {
        let mut body = VERSION.to_be_bytes().to_vec();
        for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
            body.extend(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = i32::try_from(body.len() + 4)?;
        self.raw(&[&length.to_be_bytes(), body.as_slice()].concat())
    }

    /// Sends a password message as it should be.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn password(&mut self, text: &str) -> Result<()> {
        let body = [text.as_bytes(), &[0]].concat();
        self.message(b'p', i32::try_from(body.len() + 4)?, &body)
    }

    /// Sends a message of any type that claims any length, with any body.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn message(&mut self, kind: u8, length: i32, body: &[u8]) -> Result<()> {
        self.raw(&[&[kind], &length.to_be_bytes()[..], body].concat())
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = self.stream();
        stream.write_all(bytes)?;
        Ok(stream.flush()?)
    }

    /// Says that nothing more will come; what the server says can still be heard.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn end(&mut self) -> Result<()> {
        match &mut self.channel {
            Channel::Unix(stream) => stream.shutdown(Shutdown::Write)?,
            Channel::Tcp(stream) => stream.shutdown(Shutdown::Write)?,
            Channel::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()?;
                stream.sock.shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }

    /// The next message; None when the server has closed the connection.
    ///
    /// # Errors
    /// When nothing comes in time, or what comes is no message.
    pub fn hear(&mut self) -> Result<Option<Heard>> {
        let Some((kind, body)) = self.hear_bytes()? else { return Ok(None) };
        Ok(Some(match kind {
            b'R' => {
                let number = body.first_chunk().context("an authentication message without its number")?;
                Heard::Authentication(i32::from_be_bytes(*number))
            }
            b'E' => Heard::Error(Refused { bytes: body }),
            b'Z' => Heard::Ready,
            other => Heard::Other(other),
        }))
    }

    /// The next message, its type and its body; None when the server has closed the connection.
    ///
    /// # Errors
    /// As [`Wire::hear`].
    pub fn hear_bytes(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0; 5];
        if !self.fill(&mut head)? {
            return Ok(None);
        }
        let [kind, length @ ..] = head;
        let length = usize::try_from(i32::from_be_bytes(length))?;
        ensure!((4..LONGEST).contains(&length), "a message of {length} bytes");
        let mut body = vec![0; length - 4];
        ensure!(self.fill(&mut body)?, "the server broke off in a message");
        Ok(Some((kind, body)))
    }

    /// All messages until the server closes the connection.
    ///
    /// # Errors
    /// As [`Wire::hear`].
    pub fn hear_all(&mut self) -> Result<Vec<Heard>> {
        let mut all = Vec::new();
        while let Some(heard) = self.hear()? {
            all.push(heard);
        }
        Ok(all)
    }

    /// How the login ends: [`Heard::Ready`] or [`Heard::Error`].
    ///
    /// # Errors
    /// When the server closes the connection without either.
    pub fn outcome(&mut self) -> Result<Heard> {
        while let Some(heard) = self.hear()? {
            if matches!(heard, Heard::Ready | Heard::Error(_)) {
                return Ok(heard);
            }
        }
        bail!("the server closed the connection without a word")
    }

    /// False when the other side closed before the first byte.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.stream().read(rest) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A server that leaves without closing TLS, or with bytes of ours unread.
                Err(error) if is_end(error.kind()) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(done == 0 || done == bytes.len(), "the server broke off after {done} bytes");
        Ok(done == bytes.len())
    }

    fn stream(&mut self) -> &mut dyn Stream {
        match &mut self.channel {
            Channel::Unix(stream) => stream,
            Channel::Tcp(stream) => stream,
            Channel::Tls(stream) => stream.as_mut(),
        }
    }
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn config(cluster: &Cluster, certificate: bool) -> Result<Arc<ClientConfig>> {
    let pem =
        |name: &str| std::fs::read(cluster.file(name)).with_context(|| format!("could not read {name}"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("ca.pem")?)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(if certificate {
        let chain = vec![CertificateDer::from_pem_slice(&pem("client.pem")?)?];
        config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&pem("client.key")?)?)?
    } else {
        config.with_no_client_auth()
    }))
}
