//! Just enough of a URL (RFC 3986) to know that keys come from where nobody can change them on the way.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::row::{RowError, shown};

/// What may be in a URL beside scheme, host, port and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    Allowed,
    Refused,
}

/// Checks an absolute https URL; plain http only to a loopback host and only with `allow_http`.
pub(crate) fn check(
    column: &str,
    url: &str,
    longest: usize,
    query: Query,
    allow_http: bool,
) -> Result<(), RowError> {
    let refuse = |detail: &str| Err(RowError::new(format!("\"{column}\" is not acceptable")).detail(detail));
    if url.len() > longest {
        return refuse(&format!("It has {} bytes; at most {longest} are allowed.", url.len()));
    }
    // Nothing outside printable ASCII, and nothing that some parsers read in another way.
    if !url
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>' | b'^' | b'`'))
    {
        return refuse("It holds a blank, a control character, or another character that no URL has.");
    }
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => {
            return Err(RowError::new(format!("\"{column}\" must be an https URL"))
                .detail(format!("It is {}.", shown(url))));
        }
    };
    if rest.contains('#') {
        return refuse("It has a fragment (\"#\").");
    }
    if query == Query::Refused && rest.contains('?') {
        return refuse("It has a query (\"?\"), which an issuer never has (OpenID Connect Core, section 2).");
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return refuse("It holds a user name or a password.");
    }
    let Some(host) = host(authority) else {
        return refuse("It has no valid host and port.");
    };
    let acceptable = secure || (allow_http && is_loopback(host));
    if !acceptable {
        return Err(RowError::new(format!("\"{column}\" must be an https URL"))
            .detail(format!("It is {}.", shown(url)))
            .hint(
                "Plain http is only for issuers on a loopback address, in tests, with pg_oidc.allow_http on.",
            ));
    }
    Ok(())
}

/// The host of an authority without user information, if host and port are sound.
fn host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, port.strip_prefix(':').or_else(|| port.is_empty().then_some("0"))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "0")),
    };
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (!host.is_empty() && host.bytes().all(sound) && digits && port.parse::<u16>().is_ok()).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}
