//! Whom a request trusts: the system's CA certificates, or those it brings, never both.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::FetchError;

/// The worker lives for months, and packages replace the system's certificates meanwhile.
const RELOAD_AFTER: Duration = Duration::from_secs(600);

/// The system's CA certificates, read at first need and now and then again.
///
/// `rustls-native-certs` reads the bundle that OpenSSL on this machine would (SSL_CERT_FILE and SSL_CERT_DIR
/// in the postmaster's environment included), and rustls' own webpki verifies. reqwest's built-in option,
/// the platform verifier, reads the same files on Linux but asks the operating system's verifier elsewhere
/// and would hide the precise reason of a refusal.
#[derive(Default)]
pub(crate) struct Trust {
    system: Mutex<Option<(Instant, Arc<RootCertStore>)>>,
}

impl Trust {
    /// The TLS settings for a request that brings `pem`, or that brings no certificate of its own.
    pub(crate) fn config(&self, pem: Option<&str>) -> Result<ClientConfig, FetchError> {
        let roots = match pem {
            Some(pem) => Arc::new(roots_in(pem)?),
            None => self.system()?,
        };
        // The provider is named here, so the process needs no default one and none can be put in its place.
        // The default versions are TLS 1.2 and 1.3; rustls has no others.
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| FetchError::Internal)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A resumed session skips the certificate, so one that has expired since would still pass.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn system(&self) -> Result<Arc<RootCertStore>, FetchError> {
        let mut kept = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, roots)) = kept.as_ref()
            && read.elapsed() < RELOAD_AFTER
        {
            return Ok(Arc::clone(roots));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(FetchError::NoSystemRoots);
        }
        let roots = Arc::new(roots);
        *kept = Some((Instant::now(), Arc::clone(&roots)));
        Ok(roots)
    }
}

/// At least one certificate, each of them usable: half a bundle is a mistake to report, not to work with.
fn roots_in(pem: &str) -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| FetchError::BadCa)?).map_err(|_| FetchError::BadCa)?;
    }
    if roots.is_empty() { Err(FetchError::BadCa) } else { Ok(roots) }
}
