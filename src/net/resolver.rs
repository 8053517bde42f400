//! Name resolution for one fetch.

use std::fmt;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::Phase;
use crate::progress::Progress;

/// Trying more addresses than this would not fit into the time limit anyway.
const MAX_ADDRESSES: usize = 16;

/// Asks the C library, as PostgreSQL itself does, so that /etc/hosts and nsswitch.conf hold here too.
///
/// `getaddrinfo` blocks, so tokio runs it on a thread of its blocking pool. That thread is spawned from the
/// runtime's thread and inherits its signal mask: every signal blocked, so that none is ever delivered to it.
/// The call cannot be cancelled: after a timeout it goes on until the C library gives up, touching nothing
/// of ours.
pub(crate) struct Resolver {
    pub(crate) progress: Progress,
    /// Drop every address that is not loopback: the request may go over plain http.
    pub(crate) loopback_only: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (progress, loopback_only) = (self.progress.clone(), self.loopback_only);
        Box::pin(async move {
            progress.enter(Phase::Resolve);
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(Unresolved::from)?;
            let wanted = found.filter(|address| !loopback_only || address.ip().is_loopback());
            let addresses: Vec<_> = wanted.take(MAX_ADDRESSES).collect();
            if addresses.is_empty() {
                return Err(Unresolved("no usable address".to_owned()).into());
            }
            progress.enter(Phase::Connect);
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Marks a failed resolution in the chain of errors that reqwest builds around it.
#[derive(Debug)]
pub(crate) struct Unresolved(pub(crate) String);

impl From<std::io::Error> for Unresolved {
    /// Keeps the C library's own words, such as "Name or service not known".
    fn from(error: std::io::Error) -> Self {
        let text = error.to_string();
        Self(text.rsplit(": ").next().unwrap_or(&text).to_owned())
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unresolved {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f039_a_plain_request_resolves_to_loopback_or_not_at_all() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = |name: &str, loopback_only| {
            let resolver = Resolver { progress: Progress::new(), loopback_only };
            runtime.block_on(resolver.resolve(name.parse().unwrap())).map(Iterator::count)
        };
        for (name, loopback_only) in [("127.0.0.1", true), ("127.0.0.1", false), ("169.254.169.254", false)] {
            assert_eq!(found(name, loopback_only).unwrap(), 1, "{name}");
        }
        let error = found("169.254.169.254", true).unwrap_err();
        assert_eq!(error.to_string(), "no usable address");
    }

    #[test]
    fn the_c_librarys_words_are_kept() {
        let words = "failed to lookup address information: Name or service not known";
        let error = std::io::Error::other(words);
        assert_eq!(Unresolved::from(error).to_string(), "Name or service not known");
    }
}
