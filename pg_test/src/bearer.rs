//! The client's part of SASL OAUTHBEARER (RFC 7628), as PostgreSQL 18 carries it.
//!
//! psql cannot hand over a token that is there already, and no driver here knows the mechanism at all.

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::psql::Way;
use crate::wire::{Heard, Wire};

/// The name of the mechanism.
pub const MECHANISM: &str = "OAUTHBEARER";
/// AuthenticationSASL: the server names its mechanisms.
pub const SASL: i32 = 10;
/// AuthenticationSASLContinue: here, why it does not go on.
pub const SASL_CONTINUE: i32 = 11;
/// The client's last word after an error (RFC 7628, section 3.2.3).
pub const GIVEN_UP: &[u8] = b"\x01";

/// How a login at this door ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What the server said of the error in the exchange, JSON (RFC 7628, section 3.2.2).
    pub challenge: Option<String>,
    /// [`Heard::Ready`] or [`Heard::Error`].
    pub heard: Heard,
}

/// The first message of the exchange, which hands the token over.
pub fn message(token: &str) -> Vec<u8> {
    with_auth(&format!("Bearer {token}"))
}

/// The first message with whatever stands for the `Authorization` header; nothing asks for the provider (discovery).
pub fn with_auth(auth: &str) -> Vec<u8> {
    format!("n,,\x01auth={auth}\x01\x01").into_bytes()
}

/// The body of a SASLInitialResponse.
///
/// # Errors
/// When the data is longer than the protocol can say.
pub fn initial(data: &[u8]) -> Result<Vec<u8>> {
    let length = i32::try_from(data.len())?;
    Ok([MECHANISM.as_bytes(), &[0], &length.to_be_bytes(), data].concat())
}

impl Wire {
    /// Sends a SASLInitialResponse for the mechanism.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn sasl(&mut self, data: &[u8]) -> Result<()> {
        let body = initial(data)?;
        self.message(b'p', i32::try_from(body.len() + 4)?, &body)
    }

    /// Sends a SASLResponse.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn sasl_answer(&mut self, data: &[u8]) -> Result<()> {
        self.message(b'p', i32::try_from(data.len() + 4)?, data)
    }

    /// Logs in as this user with this token, as a well-behaved client does.
    ///
    /// # Errors
    /// When the server does not ask for OAUTHBEARER, or the connection ends without a word.
    pub fn bear(cluster: &Cluster, way: Way, user: &str, token: &str) -> Result<Ended> {
        let (mut wire, first) = Self::begin(cluster, way, user)?;
        ensure!(first == Heard::Authentication(SASL), "{first:?} instead of a SASL exchange");
        wire.sasl(&message(token))?;
        wire.exchange()
    }

    /// The rest of the exchange after the first message of the client.
    ///
    /// # Errors
    /// When the connection ends without a word.
    pub fn exchange(&mut self) -> Result<Ended> {
        let mut challenge = None;
        loop {
            let (kind, body) = self.hear_bytes()?.context("the server closed the connection")?;
            let number = body.first_chunk().map(|number| i32::from_be_bytes(*number));
            match (kind, number) {
                (b'R', Some(SASL_CONTINUE)) => {
                    let text = body.get(4..).unwrap_or_default();
                    challenge = Some(String::from_utf8(text.to_vec())?);
                    self.sasl_answer(GIVEN_UP)?;
                }
                (b'E', _) => {
                    let heard = Heard::Error(crate::wire::Refused { bytes: body });
                    return Ok(Ended { challenge, heard });
                }
                (b'Z', _) => return Ok(Ended { challenge, heard: Heard::Ready }),
                _ => {}
            }
        }
    }
}
