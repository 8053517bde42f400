//! The ways in which an issuer answers.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::{PATIENCE, Request, Shared, State, Wire};

/// What an issuer does at a path instead of simply answering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Reads the request and never answers.
    Hang,
    /// Answers well, but only once the path behaves again: with the document of when it was asked.
    Hold,
    /// Closes the connection without an answer.
    HangUp,
    /// Answers well, but only after this time.
    Delay(Duration),
    /// Answers well, one byte at a time with this time between.
    Drip(Duration),
    /// Answers with this status and the usual body; 204 and 304 without one.
    Status(u16),
    /// Answers with this status and this Location.
    Redirect(u16, String),
    /// Answers well under this content type; an empty one: under none.
    ContentType(String),
    /// Answers well with further headers. With an ETag among them, a request whose If-None-Match is the same
    /// gets a 304.
    Headers(Vec<(String, String)>),
    /// Answers well, compressed.
    Gzip,
    /// Answers with so many bytes of blanks, compressed about a thousandfold.
    GzipBomb(usize),
    /// Sends chunks of blanks, without end.
    Endless,
    /// Sends the first half of the document as if it were all.
    Truncated,
    /// Announces the whole document and breaks off after its first half.
    BreakOff,
    /// Sends this body as JSON.
    Body(Vec<u8>),
    /// Sends these bytes and no others, status line included.
    Raw(Vec<u8>),
}

const OK: u16 = 200;
const NOT_FOUND: u16 = 404;
const JSON: &str = "application/json";

/// An error means that the other side has gone.
pub(super) fn answer(
    shared: &Shared,
    wire: &mut dyn Wire,
    request: &Request,
    document: Option<&Value>,
    behaviour: Option<&Behaviour>,
) -> io::Result<()> {
    let status = if document.is_some() { OK } else { NOT_FOUND };
    let body = document.map(Value::to_string).unwrap_or_default().into_bytes();
    let half = body.get(..body.len() / 2).unwrap_or_default();
    let good = || message(status, &[("Content-Type", JSON)], &body, body.len());
    let bytes = match behaviour {
        None => good(),
        Some(Behaviour::Hang) => {
            shared.pause(PATIENCE);
            return Ok(());
        }
        Some(Behaviour::Hold) => {
            let held = |state: &State| state.behaviours.get(&request.path) == Some(&Behaviour::Hold);
            if !shared.wait(PATIENCE, |state| state.over || !held(state)) || shared.lock().over {
                return Ok(());
            }
            good()
        }
        Some(Behaviour::HangUp) => return Ok(()),
        Some(Behaviour::Delay(time)) => {
            if shared.pause(*time) {
                return Ok(());
            }
            good()
        }
        Some(Behaviour::Drip(time)) => return drip(shared, wire, &good(), *time),
        Some(Behaviour::Status(status @ (204 | 304))) => message(*status, &[], b"", 0),
        Some(Behaviour::Status(status)) => message(*status, &[("Content-Type", JSON)], &body, body.len()),
        Some(Behaviour::Redirect(status, to)) => message(*status, &[("Location", to)], b"", 0),
        Some(Behaviour::ContentType(none)) if none.is_empty() => message(status, &[], &body, body.len()),
        Some(Behaviour::ContentType(other)) => message(status, &[("Content-Type", other)], &body, body.len()),
        Some(Behaviour::Headers(further)) => with_headers(request, status, further, &body),
        Some(Behaviour::Gzip) => compressed(&body)?,
        Some(Behaviour::GzipBomb(length)) => compressed(&vec![b' '; *length])?,
        Some(Behaviour::Endless) => return endless(shared, wire),
        Some(Behaviour::Truncated) => message(status, &[("Content-Type", JSON)], half, half.len()),
        Some(Behaviour::BreakOff) => message(status, &[("Content-Type", JSON)], half, body.len()),
        Some(Behaviour::Body(other)) => message(OK, &[("Content-Type", JSON)], other, other.len()),
        Some(Behaviour::Raw(bytes)) => bytes.clone(),
    };
    wire.write_all(&bytes)?;
    wire.flush()
}

/// A whole answer that announces `length`.
fn message(status: u16, headers: &[(&str, &str)], body: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} {}\r\n", if status == OK { "OK" } else { "Scripted" });
    for (name, value) in headers {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    if !matches!(status, 204 | 304) {
        bytes.push_str(&format!("Content-Length: {length}\r\n"));
    }
    bytes.push_str("Connection: close\r\n\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn with_headers(request: &Request, status: u16, further: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut headers: Vec<(&str, &str)> =
        further.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let etag = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("etag")).map(|(_, value)| *value);
    if etag.is_some() && request.header("if-none-match") == etag {
        return message(304, &headers, b"", 0);
    }
    headers.push(("Content-Type", JSON));
    message(status, &headers, body, body.len())
}

fn compressed(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body)?;
    let bytes = encoder.finish()?;
    Ok(message(OK, &[("Content-Type", JSON), ("Content-Encoding", "gzip")], &bytes, bytes.len()))
}

fn drip(shared: &Shared, wire: &mut dyn Wire, bytes: &[u8], time: Duration) -> io::Result<()> {
    let start = Instant::now();
    for byte in bytes {
        wire.write_all(&[*byte])?;
        wire.flush()?;
        if shared.pause(time) || start.elapsed() > PATIENCE {
            return Ok(());
        }
    }
    Ok(())
}

fn endless(shared: &Shared, wire: &mut dyn Wire) -> io::Result<()> {
    let start = Instant::now();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    wire.write_all(head.as_bytes())?;
    while !shared.pause(Duration::ZERO) && start.elapsed() < PATIENCE {
        wire.write_all(chunk.as_bytes())?;
    }
    Ok(())
}
