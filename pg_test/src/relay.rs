//! Takes clients that know passwords only to the OAUTHBEARER door: what they send as a password goes on as a token.
//!
//! A client connects without TLS, on this machine; the relay makes TLS with the server. Everything before and after
//! the token passes as it is, so that the client hears what the server said.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bearer::{self, GIVEN_UP, SASL, SASL_CONTINUE};
use crate::client::trusting;
use crate::cluster::Cluster;
use crate::door::{Door, Lines};

/// The code of an SSLRequest and of a GSSENCRequest.
const ENCRYPTION: [i32; 2] = [80_877_103, 80_877_104];
/// AuthenticationCleartextPassword.
const ASKS: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];
/// More than any message before the session.
const LONGEST: usize = 1 << 17;

/// A relay to one cluster; dropped, it ends, and its connections with it.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    _end: oneshot::Sender<()>,
}

impl Relay {
    /// Starts one, on a port of its own.
    ///
    /// # Errors
    /// When there is no port, or the cluster has no authority.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let to = To {
            tls: TlsConnector::from(Arc::new(trusting(cluster)?)),
            port: cluster.port(),
            lines: (Door::chosen()? == Door::Oauth).then(|| Lines::of(cluster)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::spawn(async move {
                    while let Ok((client, _)) = listener.accept().await {
                        // What breaks off here is seen by the client, whose connection ends.
                        tokio::spawn(serve(client, to.clone()));
                    }
                });
                let _ = ended.await;
            });
        })?;
        Ok(Self { port, _end: end })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Where a relay leads.
#[derive(Clone)]
struct To {
    tls: TlsConnector,
    port: u16,
    /// Where the issuers are put that clients come with.
    lines: Option<Lines>,
}

impl To {
    /// A connection to the server, with this startup packet sent.
    async fn connect(&self, startup: &[u8]) -> Result<TlsStream<TcpStream>> {
        let mut server = TcpStream::connect(("127.0.0.1", self.port)).await?;
        server.set_nodelay(true)?;
        let [request, ..] = ENCRYPTION;
        server.write_all(&[8i32.to_be_bytes(), request.to_be_bytes()].concat()).await?;
        ensure!(server.read_u8().await? == b'S', "the server makes no TLS");
        let mut server = self.tls.connect(ServerName::try_from("127.0.0.1")?, server).await?;
        server.write_all(startup).await?;
        server.flush().await?;
        Ok(server)
    }

    /// Has the server expect this user with this token. False: it does so already.
    fn announce(&self, startup: &[u8], token: &[u8]) -> Result<bool> {
        match (&self.lines, user(startup), issuer(token)) {
            (Some(lines), Some(user), Some(issuer)) => lines.expect(&user, &issuer),
            _ => Ok(false),
        }
    }
}

async fn serve(mut client: TcpStream, to: To) -> Result<()> {
    client.set_nodelay(true)?;
    let startup = startup(&mut client).await?;
    let mut server = to.connect(&startup).await?;
    let mut token = None;
    loop {
        match authenticate(&mut client, &mut server, token.as_deref()).await? {
            Stage::Done => {
                return copy_bidirectional(&mut client, &mut server).await.map(drop).map_err(Into::into);
            }
            Stage::Gone => return Ok(()),
            Stage::Asked => {
                client.write_all(&ASKS).await?;
                let answer = message(&mut client).await?;
                let text = answer.get(5..).and_then(|rest| rest.strip_suffix(&[0])).context("no password")?;
                if to.announce(&startup, text)? {
                    // The server has chosen the line of this connection before.
                    server = to.connect(&startup).await?;
                } else {
                    send(&mut server, &bearer::initial(&bearer::message(&String::from_utf8_lossy(text)))?)
                        .await?;
                }
                token = Some(text.to_vec());
            }
        }
    }
}

/// The user that a startup packet names.
fn user(startup: &[u8]) -> Option<String> {
    let mut words = startup.get(8..)?.split(|byte| *byte == 0);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name == b"user" {
            return String::from_utf8(value.to_vec()).ok();
        }
    }
    None
}

/// The issuer that a token names.
fn issuer(token: &[u8]) -> Option<String> {
    let payload = token.split(|byte| *byte == b'.').nth(1)?;
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

/// The startup packet, or a cancel request, with its length.
async fn startup(client: &mut TcpStream) -> Result<Vec<u8>> {
    loop {
        let length = client.read_i32().await?;
        let mut packet = length.to_be_bytes().to_vec();
        packet.resize(usize::try_from(length)?.clamp(8, LONGEST), 0);
        client.read_exact(packet.get_mut(4..).unwrap_or_default()).await?;
        let code = packet.get(4..).and_then(|rest| rest.first_chunk()).map(|code| i32::from_be_bytes(*code));
        if !code.is_some_and(|code| ENCRYPTION.contains(&code)) {
            return Ok(packet);
        }
        client.write_all(b"N").await?;
    }
}

/// How far authentication has come.
enum Stage {
    /// The server asks for the token, and there is none.
    Asked,
    /// What follows is between the two.
    Done,
    /// The client left.
    Gone,
}

/// Goes between the two until the server is done with authentication, or asks for something.
async fn authenticate(
    client: &mut TcpStream,
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    token: Option<&[u8]>,
) -> Result<Stage> {
    loop {
        let message = message(server).await?;
        let kind = message.first().copied();
        let number =
            message.get(5..).and_then(|rest| rest.first_chunk()).map(|code| i32::from_be_bytes(*code));
        match (kind, number) {
            (Some(b'R'), Some(SASL)) if names_bearer(&message) => {
                let Some(token) = token else { return Ok(Stage::Asked) };
                send(server, &bearer::initial(&bearer::message(&String::from_utf8_lossy(token)))?).await?;
            }
            (Some(b'R'), Some(SASL_CONTINUE)) => send(server, GIVEN_UP).await?,
            _ => {
                if client.write_all(&message).await.is_err() {
                    return Ok(Stage::Gone);
                }
                if matches!(kind, Some(b'R' | b'E')) {
                    return Ok(Stage::Done);
                }
            }
        }
    }
}

fn names_bearer(message: &[u8]) -> bool {
    message.windows(bearer::MECHANISM.len()).any(|name| name == bearer::MECHANISM.as_bytes())
}

/// Sends a message of type `p`.
async fn send(server: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<()> {
    let length = i32::try_from(body.len() + 4)?.to_be_bytes();
    server.write_all(&[b"p", &length[..], body].concat()).await?;
    Ok(server.flush().await?)
}

/// The next message, whole.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await?;
    let length =
        message.get(1..).and_then(|rest| rest.first_chunk()).map(|length| i32::from_be_bytes(*length));
    let length = usize::try_from(length.unwrap_or_default())?;
    ensure!((4..LONGEST).contains(&length), "a message of {length} bytes");
    message.resize(length + 1, 0);
    from.read_exact(message.get_mut(5..).unwrap_or_default()).await?;
    Ok(message)
}
