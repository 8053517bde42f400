//! Why a fetch failed: rich enough for an administrator, free of anything the other side wrote.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::resolver::Unresolved;

/// What a fetch was doing when its time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Resolving the host name, of the provider or of the proxy.
    Resolve,
    /// Opening the connection: TCP, the proxy's tunnel, TLS.
    Connect,
    /// Waiting for the status line and headers.
    Answer,
    /// Reading the body.
    Body,
}

/// Why there is no [`crate::Response`]. Displays as one clause in the style of PostgreSQL's log; every word
/// is ours or the C library's, never the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The URL cannot be used, and why.
    BadUrl(&'static str),
    /// The URL is not https (RFC 8414, section 2; OpenID Connect Discovery 1.0, section 4).
    SchemeRefused(&'static str),
    /// The PEM text holds no CA certificate, or one that cannot be used.
    BadCa,
    /// The system has no CA certificates and the request brought none.
    NoSystemRoots,
    /// The proxy is not a bare `http://host:port`.
    BadProxy,
    /// The name has no address, in the C library's words.
    Resolve(String),
    /// No TCP connection, and why.
    Connect(&'static str),
    /// The proxy cannot be reached or opens no tunnel, and why.
    Proxy(&'static str),
    /// TLS was refused, by us or by the server, and why.
    Tls(&'static str),
    /// The time limit ran out in this phase.
    Timeout(Phase),
    /// A 3xx status: redirects are never followed.
    Redirect(u16),
    /// Any other status that is not 200, and 304 where no ETag was sent.
    Status(u16),
    /// The content type is missing or not JSON.
    ContentType,
    /// A content encoding that was not asked for, or more than one.
    ContentEncoding,
    /// The body is longer than this many bytes after decompression.
    TooLarge(usize),
    /// The connection broke, or the answer is not HTTP, or its headers are too many or too long.
    BadAnswer(&'static str),
    /// The fetch ended without a result: a bug here or below, or the [`crate::Fetcher`] was stopped.
    Internal,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl(reason) => write!(f, "invalid URL: {reason}"),
            Self::SchemeRefused(what) => write!(f, "invalid URL: {what} is not allowed"),
            Self::BadCa => f.write_str("invalid CA certificate: not a usable PEM certificate"),
            Self::NoSystemRoots => f.write_str("could not find any CA certificates on this system"),
            Self::BadProxy => f.write_str("invalid proxy: it must be of the form http://host:port"),
            Self::Resolve(reason) => write!(f, "could not resolve the host name: {reason}"),
            Self::Connect(reason) => write!(f, "could not connect: {reason}"),
            Self::Proxy(reason) => write!(f, "could not connect through the proxy: {reason}"),
            Self::Tls(reason) => write!(f, "could not establish TLS: {reason}"),
            Self::Timeout(Phase::Resolve) => f.write_str("timeout while resolving the host name"),
            Self::Timeout(Phase::Connect) => f.write_str("timeout while connecting"),
            Self::Timeout(Phase::Answer) => f.write_str("timeout while waiting for the answer"),
            Self::Timeout(Phase::Body) => f.write_str("timeout while reading the body"),
            Self::Redirect(status) => {
                write!(f, "unexpected HTTP status {status}: redirects are not followed")
            }
            Self::Status(status) => write!(f, "unexpected HTTP status {status}"),
            Self::ContentType => f.write_str("unexpected content type: the answer is not JSON"),
            Self::ContentEncoding => f.write_str("unexpected content encoding: only gzip is accepted"),
            Self::TooLarge(limit) => write!(f, "the answer is longer than {limit} bytes"),
            Self::BadAnswer(reason) => write!(f, "could not read the answer: {reason}"),
            Self::Internal => f.write_str("the fetch ended without a result"),
        }
    }
}

impl Error for FetchError {}

impl FetchError {
    /// The kind of failure: snake_case, stable, for the audit.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadUrl(_) | Self::SchemeRefused(_) => "url_invalid",
            Self::BadCa | Self::NoSystemRoots => "ca_invalid",
            Self::BadProxy | Self::Proxy(_) => "proxy_failed",
            Self::Resolve(_) => "resolve_failed",
            Self::Connect(_) => "connect_failed",
            Self::Tls(_) => "tls_failed",
            Self::Timeout(_) => "timeout",
            Self::Redirect(_) | Self::Status(_) => "status_unexpected",
            Self::ContentType | Self::ContentEncoding | Self::TooLarge(_) | Self::BadAnswer(_) => {
                "answer_invalid"
            }
            Self::Internal => "internal_error",
        }
    }

    /// Reads the chain of errors that reqwest returns from connecting, sending or reading.
    pub(crate) fn of(error: &reqwest::Error, reached: Phase, by_proxy: bool) -> Self {
        if let Some(unresolved) = find(error, |error| error.downcast_ref::<Unresolved>()) {
            return Self::Resolve(unresolved.0.clone());
        }
        // Only the connection has a limit inside reqwest.
        if error.is_timeout() {
            return Self::Timeout(reached);
        }
        if let Some(tls) = find(error, |error| error.downcast_ref::<rustls::Error>()) {
            return Self::Tls(tls_reason(tls));
        }
        let reason = find(error, |error| error.downcast_ref::<io::Error>().and_then(io_reason));
        match (error.is_connect(), by_proxy) {
            // TLS would have said so: what is left without an I/O error is the proxy's own answer.
            (true, true) => Self::Proxy(reason.unwrap_or("the proxy does not open a tunnel")),
            (true, false) => Self::Connect(reason.unwrap_or("network error")),
            // What breaks off below the decoder is an error of hyper's, whether the body is compressed or not.
            (false, _)
                if error.is_decode()
                    && find(error, |error| error.downcast_ref::<hyper::Error>()).is_none() =>
            {
                Self::BadAnswer("invalid gzip data")
            }
            (false, _) => Self::BadAnswer(reason.unwrap_or("it breaks off or is not valid HTTP")),
        }
    }
}

/// The first thing that `look` finds along the chain. An `io::Error` hides what it was made of from `source()`.
fn find<'a, T>(
    error: &'a (dyn Error + 'static),
    look: impl Fn(&'a (dyn Error + 'static)) -> Option<T>,
) -> Option<T> {
    /// No chain of these libraries comes near; a cycle must not hang the thread.
    const DEPTH: usize = 32;
    let mut next = Some(error);
    for _ in 0..DEPTH {
        let current = next?;
        if let Some(found) = look(current) {
            return Some(found);
        }
        next = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    None
}

fn io_reason(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => "connection reset by the server",
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => "connection closed by the server",
        io::ErrorKind::HostUnreachable => "no route to the host",
        io::ErrorKind::NetworkUnreachable => "network is unreachable",
        io::ErrorKind::TimedOut => "connection timed out",
        io::ErrorKind::PermissionDenied => "not permitted on this system",
        io::ErrorKind::AddrNotAvailable => "no local address is available",
        _ => return None,
    })
}

fn tls_reason(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_reason(error),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server refuses TLS 1.2 and 1.3"
        }
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "no cipher in common with the server"
        }
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the server does not know this host name"
        }
        rustls::Error::AlertReceived(_) => "the server ended the handshake with an alert",
        rustls::Error::PeerIncompatible(_) => {
            "the server offers no version or cipher of TLS 1.2 or 1.3 that fits"
        }
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => {
            "the server does not speak TLS on this port"
        }
        rustls::Error::NoCertificatesPresented => "the server sent no certificate",
        _ => "the handshake failed",
    }
}

fn certificate_reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another host name"
        }
        CertificateError::UnknownIssuer => "the certificate is signed by an unknown authority",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not for servers"
        }
        CertificateError::BadSignature => "the certificate's signature is wrong",
        CertificateError::Revoked => "the certificate is revoked",
        CertificateError::BadEncoding => "the certificate cannot be parsed",
        _ => "the certificate is not acceptable",
    }
}
