//! What the caller asks for, and the checks it must pass before a socket is opened.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::FetchError;

/// A jwks_uri comes from the provider's discovery document; no real one comes near this length in bytes.
const MAX_URL: usize = 2_048;

/// One GET of one JSON document. Nothing else about the exchange can be chosen.
#[derive(Clone, Debug)]
pub struct Request {
    /// An https URL without user name and password.
    pub url: String,
    /// PEM with one or more CA certificates. They are then the only ones trusted for this request: a
    /// provider with a CA of its own gains nothing from, and is not exposed to, the public CAs.
    /// `None`: the system's CA certificates.
    pub ca_certificate: Option<String>,
    /// `http://[user:password@]host:port` of a proxy that serves CONNECT. TLS runs through it to the
    /// provider, so the proxy sees host names and sizes, nothing else. `None`: no proxy, whatever the
    /// environment says.
    pub proxy: Option<String>,
    /// Take plain http too, but only from a loopback address. For tests; such a request uses no proxy.
    pub allow_http: bool,
    /// The ETag of the copy the caller has; sent as If-None-Match (RFC 9110, section 13.1.2).
    pub etag: Option<String>,
    /// For the whole exchange, from name resolution to the last byte. Three fifths of it for the connection
    /// (name, TCP and TLS). It does not run while the request waits for a free place among those in flight.
    pub limit: Duration,
    /// The longest body accepted, in bytes, after decompression.
    pub max_bytes: usize,
}

/// A request whose parts are parsed and allowed.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) url: Url,
    /// Plain http: the host must be, and must resolve to, a loopback address.
    pub(crate) plain: bool,
    pub(crate) proxy: Option<Url>,
    pub(crate) etag: Option<HeaderValue>,
}

impl Target {
    pub(crate) fn of(request: &Request) -> Result<Self, FetchError> {
        if request.url.len() > MAX_URL {
            return Err(FetchError::BadUrl("it is too long"));
        }
        let url = Url::parse(&request.url).map_err(|_| FetchError::BadUrl("it cannot be parsed"))?;
        let plain = match url.scheme() {
            "https" => false,
            "http" if request.allow_http && is_loopback(&url) => true,
            "http" => return Err(FetchError::SchemeRefused("plain http")),
            _ => return Err(FetchError::SchemeRefused("a scheme other than https")),
        };
        if has_credentials(&url) {
            return Err(FetchError::BadUrl("it contains a user name or password"));
        }
        let proxy = match &request.proxy {
            Some(text) if !plain => Some(proxy(text)?),
            _ => None,
        };
        // An ETag that cannot be sent is as good as none: the answer is then a whole document.
        let etag = request.etag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok());
        Ok(Self { url, plain, proxy, etag })
    }
}

fn proxy(text: &str) -> Result<Url, FetchError> {
    let url = Url::parse(text).map_err(|_| FetchError::BadProxy)?;
    let bare = url.has_host() && url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if url.scheme() == "http" && bare { Ok(url) } else { Err(FetchError::BadProxy) }
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// "localhost" is allowed here because [`crate::resolver`] then drops every address that is not loopback.
fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, allow_http: bool, proxy: Option<&str>) -> Result<Target, FetchError> {
        Target::of(&Request {
            url: url.into(),
            ca_certificate: None,
            proxy: proxy.map(str::to_owned),
            allow_http,
            etag: None,
            limit: Duration::from_secs(5),
            max_bytes: 1,
        })
    }

    #[test]
    fn f039_only_https_passes() {
        assert!(target("https://idp.example/jwks", false, None).is_ok());
        for url in ["http://idp.example/jwks", "http://127.0.0.1/jwks", "http://169.254.169.254/latest"] {
            assert_eq!(
                target(url, false, None).err(),
                Some(FetchError::SchemeRefused("plain http")),
                "{url}"
            );
        }
        for url in
            ["file:///etc/passwd", "ftp://idp.example/", "data:application/json,{}", "unix:/x", "httpss://x"]
        {
            let refused = FetchError::SchemeRefused("a scheme other than https");
            assert_eq!(target(url, true, None).err(), Some(refused), "{url}");
        }
    }

    #[test]
    fn f039_plain_http_needs_permission_and_a_loopback_host() {
        for url in [
            "http://127.0.0.1:8080/",
            "http://127.9.9.9/",
            "http://[::1]:80/",
            "http://localhost/",
            "http://127.1/",
        ] {
            assert!(target(url, true, None).is_ok_and(|target| target.plain), "{url}");
        }
        for url in [
            "http://169.254.169.254/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
            "http://128.0.0.1/",
            "http://[::2]/",
            "http://[::ffff:10.0.0.1]/",
            "http://localhost.example/",
            "http://127.0.0.1.example/",
            "http://xlocalhost/",
        ] {
            assert_eq!(target(url, true, None).err(), Some(FetchError::SchemeRefused("plain http")), "{url}");
        }
    }

    #[test]
    fn bad_urls_are_refused() {
        for url in ["", "idp.example", "//idp.example", "https://", "https://a b/", "https://x:99999/"] {
            assert!(matches!(target(url, true, None), Err(FetchError::BadUrl(_))), "{url}");
        }
        for url in ["https://user@idp.example/", "https://user:pw@idp.example/", "https://:pw@idp.example/"] {
            let refused = FetchError::BadUrl("it contains a user name or password");
            assert_eq!(target(url, false, None).err(), Some(refused), "{url}");
        }
        let long = format!("https://idp.example/{}", "a".repeat(MAX_URL));
        assert_eq!(target(&long, false, None).err(), Some(FetchError::BadUrl("it is too long")));
        assert!(target(&long[..MAX_URL], false, None).is_ok());
    }

    #[test]
    fn f040_a_proxy_is_a_bare_http_url() {
        let url = "https://idp.example/";
        for proxy in ["http://proxy.example:3128", "http://user:pw@proxy.example:3128/", "http://[::1]:3128"]
        {
            assert!(target(url, false, Some(proxy)).is_ok_and(|target| target.proxy.is_some()), "{proxy}");
        }
        for proxy in [
            "",
            "proxy.example:3128",
            "https://proxy.example",
            "socks5://proxy.example",
            "http://p/x",
            "http://p?x",
        ] {
            assert_eq!(target(url, false, Some(proxy)).err(), Some(FetchError::BadProxy), "{proxy}");
        }
        assert!(
            target("http://127.0.0.1/", true, Some("http://p:1")).is_ok_and(|target| target.proxy.is_none())
        );
    }

    #[test]
    fn an_etag_that_cannot_be_a_header_is_dropped() {
        let mut request = Request {
            url: "https://idp.example/".into(),
            ca_certificate: None,
            proxy: None,
            allow_http: false,
            etag: Some("\"v1\"".into()),
            limit: Duration::from_secs(5),
            max_bytes: 1,
        };
        assert!(Target::of(&request).is_ok_and(|target| target.etag.is_some()));
        request.etag = Some("\"v1\"\r\nX-Planted: 1".into());
        assert!(Target::of(&request).is_ok_and(|target| target.etag.is_none()));
    }
}
