//! One request and its answer, from the URL to the last byte, within one time limit.

use reqwest::header::{ACCEPT, IF_NONE_MATCH};
use reqwest::{Client, Proxy, redirect, retry};

use crate::progress::Progress;
use crate::request::Target;
use crate::resolver::Resolver;
use crate::response::{Body, Head};
use crate::trust::Trust;
use crate::{FetchError, Phase, Request, Response};

const USER_AGENT: &str = concat!("pg_oidc/", env!("CARGO_PKG_VERSION"));

const ACCEPTED: &str = "application/json, application/jwk-set+json";

/// Runs `request` to its end. Its time limit starts now.
pub(crate) async fn fetch(request: &Request, trust: &Trust) -> Result<Response, FetchError> {
    let progress = Progress::new();
    match tokio::time::timeout(request.limit, exchange(request, trust, &progress)).await {
        Ok(result) => result,
        // Connecting has a shorter limit of its own, so what was slow after it is the answer.
        Err(_) if progress.phase() == Phase::Connect => Err(FetchError::Timeout(Phase::Answer)),
        Err(_) => Err(FetchError::Timeout(progress.phase())),
    }
}

async fn exchange(request: &Request, trust: &Trust, progress: &Progress) -> Result<Response, FetchError> {
    let target = Target::of(request)?;
    let client = client(request, &target, trust, progress)?;
    let failed = |error: reqwest::Error| FetchError::of(&error, progress.phase(), target.proxy.is_some());

    let mut get = client.get(target.url.clone()).header(ACCEPT, ACCEPTED);
    if let Some(etag) = &target.etag {
        get = get.header(IF_NONE_MATCH, etag);
    }
    let mut answer = get.send().await.map_err(failed)?;

    let (etag, max_age) = match Head::of(answer.status(), answer.headers(), target.etag.is_some())? {
        Head::NotModified { max_age } => return Ok(Response::NotModified { max_age }),
        Head::Body { etag, max_age } => (etag, max_age),
    };
    progress.enter(Phase::Body);
    let mut body = Body::new(request.max_bytes, answer.content_length())?;
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        body.push(&chunk)?;
    }
    Ok(Response::Fresh { body: body.into_bytes(), etag, max_age })
}

/// A client for this request alone. Building one costs microseconds next to a TLS handshake; kept ones would
/// hold connections that servers close between two fetches, and a cache of CA texts that nothing bounds.
///
/// hyper bounds the headers: at most 100 of them, less than 1 MB in all.
fn client(
    request: &Request,
    target: &Target,
    trust: &Trust,
    progress: &Progress,
) -> Result<Client, FetchError> {
    let mut builder = Client::builder()
        .no_proxy() // not that of the environment; one given is added below
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .https_only(!target.plain)
        .user_agent(USER_AGENT)
        .connect_timeout(request.limit / 5 * 3)
        .dns_resolver(Resolver { progress: progress.clone(), loopback_only: target.plain })
        .tls_backend_preconfigured(trust.config(request.ca_certificate.as_deref())?);
    if let Some(url) = &target.proxy {
        builder = builder.proxy(Proxy::https(url.clone()).map_err(|_| FetchError::BadProxy)?);
    }
    builder.build().map_err(|_| FetchError::Internal)
}
