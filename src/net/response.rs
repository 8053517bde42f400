//! What an answer must look like, read from its status and headers, and the body's byte cap.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap, HeaderName};

use crate::FetchError;

/// Real ETags are a hash; one longer than this many bytes is not worth a place in a table.
const MAX_ETAG: usize = 512;

/// The largest value that RFC 9111, section 1.2.2, lets a cache keep in place of a greater one, in seconds.
const MAX_AGE: u64 = 1 << 31;

/// A good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Status 200: a whole document that calls itself JSON and has yet to be parsed.
    Fresh {
        /// At most [`crate::Request::max_bytes`] bytes, decompressed.
        body: Vec<u8>,
        /// For [`crate::Request::etag`] next time, quotes included.
        etag: Option<String>,
        /// See [`Response::NotModified`].
        max_age: Option<Duration>,
    },
    /// Status 304: the copy that the request's ETag names is still good.
    NotModified {
        /// How long the answer stays fresh by Cache-Control, less its Age (RFC 9111, sections 4.2.1 and 4.2.3).
        /// Zero for no-store and no-cache; `None` if Cache-Control says nothing. Not clamped: the caller does.
        max_age: Option<Duration>,
    },
}

/// An answer judged by its status and headers alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// The body may be read.
    Body {
        etag: Option<String>,
        max_age: Option<Duration>,
    },
    NotModified {
        max_age: Option<Duration>,
    },
}

impl Head {
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap, sent_etag: bool) -> Result<Self, FetchError> {
        match status.as_u16() {
            304 if sent_etag => return Ok(Self::NotModified { max_age: max_age(headers) }),
            304 => return Err(FetchError::Status(304)),
            status @ 300..400 => return Err(FetchError::Redirect(status)),
            200 => {}
            status => return Err(FetchError::Status(status)),
        }
        // reqwest removes the header when it decompresses; what is left was not decoded.
        if headers.get_all(header::CONTENT_ENCODING).iter().any(|value| value != "identity") {
            return Err(FetchError::ContentEncoding);
        }
        if !single(headers, header::CONTENT_TYPE).is_some_and(is_json) {
            return Err(FetchError::ContentType);
        }
        let etag = single(headers, header::ETAG).filter(|tag| tag.len() <= MAX_ETAG).map(str::to_owned);
        Ok(Self::Body { etag, max_age: max_age(headers) })
    }
}

/// The value of a header that may come only once, if it does and is plain text.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// `application/json`, `application/jwk-set+json` (RFC 7517, section 8.5) or any other `+json` (RFC 6839).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let named =
        essence == "application/json" || subtype.strip_suffix("+json").is_some_and(|name| !name.is_empty());
    named && token(kind) && token(subtype)
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut shortest: Option<u64> = None;
    for value in headers.get_all(header::CACHE_CONTROL) {
        // What cannot be read counts as stale (RFC 9111, section 4.2.1): we fetch more often, never less.
        let text = value.to_str().unwrap_or("no-cache");
        for directive in text.split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = match name.trim().to_ascii_lowercase().as_str() {
                "max-age" => delta_seconds(argument),
                "no-store" | "no-cache" => 0,
                _ => continue,
            };
            shortest = Some(shortest.map_or(seconds, |other| other.min(seconds)));
        }
    }
    let age = single(headers, header::AGE).map_or(0, delta_seconds);
    shortest.map(|seconds| Duration::from_secs(seconds.saturating_sub(age)))
}

/// Digits, in quotes or not; too many are [`MAX_AGE`], anything else zero.
fn delta_seconds(argument: &str) -> u64 {
    let digits = argument.trim().trim_matches('"');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    digits.parse::<u64>().unwrap_or(MAX_AGE).min(MAX_AGE)
}

/// Collects a body chunk by chunk and stops at the cap.
pub(crate) struct Body {
    bytes: Vec<u8>,
    limit: usize,
}

impl Body {
    /// `announced` is the Content-Length, if the body is not compressed: too long a body need not be begun.
    pub(crate) fn new(limit: usize, announced: Option<u64>) -> Result<Self, FetchError> {
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(FetchError::TooLarge(limit));
        }
        Ok(Self { bytes: Vec::new(), limit })
    }

    /// Checked before the copy, so that no more than the cap is ever kept.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), FetchError> {
        if chunk.len() > self.limit.saturating_sub(self.bytes.len()) {
            return Err(FetchError::TooLarge(self.limit));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
