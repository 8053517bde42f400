//! Takes clients that know passwords only to the OAUTHBEARER door: what they send as a password goes on as a token.
//!
//! A client connects without TLS, on this machine; the relay makes TLS with the server. Everything before and after
//! the token passes as it is, so that the client hears what the server said.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::bearer::{self, GIVEN_UP, SASL, SASL_CONTINUE};
use crate::client::trusting;
use crate::cluster::Cluster;

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
        let (tls, to) = (TlsConnector::from(Arc::new(trusting(cluster)?)), cluster.port());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::spawn(async move {
                    while let Ok((client, _)) = listener.accept().await {
                        // What breaks off here is seen by the client, whose connection ends.
                        tokio::spawn(serve(client, tls.clone(), to));
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

async fn serve(mut client: TcpStream, tls: TlsConnector, to: u16) -> Result<()> {
    client.set_nodelay(true)?;
    let startup = startup(&mut client).await?;
    let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
    server.set_nodelay(true)?;
    let [request, ..] = ENCRYPTION;
    server.write_all(&[8i32.to_be_bytes(), request.to_be_bytes()].concat()).await?;
    ensure!(server.read_u8().await? == b'S', "the server makes no TLS");
    let mut server = tls.connect(ServerName::try_from("127.0.0.1")?, server).await?;
    server.write_all(&startup).await?;
    server.flush().await?;
    if authenticate(&mut client, &mut server).await? {
        copy_bidirectional(&mut client, &mut server).await?;
    }
    Ok(())
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

/// Goes between the two until the server is done with authentication, or asks otherwise. False: the client left.
async fn authenticate(
    client: &mut TcpStream,
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<bool> {
    loop {
        let message = message(server).await?;
        let kind = message.first().copied();
        let number =
            message.get(5..).and_then(|rest| rest.first_chunk()).map(|code| i32::from_be_bytes(*code));
        match (kind, number) {
            (Some(b'R'), Some(SASL)) if names_bearer(&message) => {
                client.write_all(&ASKS).await?;
                let Ok(answer) = self::message(client).await else { return Ok(false) };
                let token =
                    answer.get(5..).and_then(|rest| rest.strip_suffix(&[0])).context("no password")?;
                let token = bearer::message(&String::from_utf8_lossy(token));
                send(server, &bearer::initial(&token)?).await?;
            }
            (Some(b'R'), Some(SASL_CONTINUE)) => send(server, GIVEN_UP).await?,
            _ => {
                client.write_all(&message).await?;
                if matches!(kind, Some(b'R' | b'E')) {
                    return Ok(true);
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
