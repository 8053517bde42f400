//! How long a session may last: the column `session_limit` of providers and rules.

use rkyv::{Archive, Deserialize, Serialize};

use crate::row::{RowError, shown};

/// A compiled `session_limit`.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionLimit {
    /// No bound.
    None,
    /// As long as the token would be accepted.
    Token,
    /// This long after the login, in microseconds.
    After(i64),
}

/// When a session ends by itself, and which of the limits it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The first microsecond since the Unix epoch at which it is over.
    pub at: i64,
    /// The token has expired by then; else the time that the session was given is over.
    pub by_token: bool,
}

impl SessionLimit {
    /// `micros` is what PostgreSQL reads the text as, if it reads it as an interval.
    pub(crate) fn compile(text: &str, micros: Option<i64>) -> Result<SessionLimit, RowError> {
        match (text, micros) {
            ("none", _) => Ok(SessionLimit::None),
            ("token", _) => Ok(SessionLimit::Token),
            (_, Some(micros)) if micros > 0 => Ok(SessionLimit::After(micros)),
            (_, Some(_)) => Err(RowError::new("\"session_limit\" must be longer than 0")
                .hint("Write 'none' for sessions that are not ended by time.")),
            (other, None) => Err(RowError::new("\"session_limit\" must be 'token', 'none' or an interval")
                .detail(format!("It is {}.", shown(other)))
                .hint("Write for example '8 hours'.")),
        }
    }

    /// When a session ends that starts at `now` with a token that is accepted until `token_end`.
    pub(crate) fn end(self, now: i64, token_end: i64) -> Option<End> {
        match self {
            SessionLimit::None => None,
            SessionLimit::Token => Some(End { at: token_end, by_token: true }),
            SessionLimit::After(micros) => Some(End { at: now.saturating_add(micros), by_token: false }),
        }
    }
}

impl ArchivedSessionLimit {
    pub(crate) fn to_native(&self) -> SessionLimit {
        match self {
            ArchivedSessionLimit::None => SessionLimit::None,
            ArchivedSessionLimit::Token => SessionLimit::Token,
            ArchivedSessionLimit::After(micros) => SessionLimit::After(micros.to_native()),
        }
    }
}

/// The earlier of two ends.
pub(crate) fn tightest(one: Option<End>, other: Option<End>) -> Option<End> {
    one.into_iter().chain(other).min_by_key(|end| end.at)
}
