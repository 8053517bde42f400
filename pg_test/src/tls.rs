//! Certificates for the tests: an authority of our own, and what it signs.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate authority that exists only in this process.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its private key, both PEM.
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

impl Authority {
    /// A fresh authority with a P-256 key.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "pg_oidc test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for these names and addresses.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn server(&self, names: &[&str]) -> Result<Leaf> {
        self.sign(params(names)?, "pg_oidc test server", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A server certificate for these names that has expired long ago.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn expired(&self, names: &[&str]) -> Result<Leaf> {
        let mut params = params(names)?;
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        self.sign(params, "pg_oidc test server", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate with this common name.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn client(&self, common_name: &str) -> Result<Leaf> {
        self.sign(CertificateParams::default(), common_name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Leaf> {
        let key = KeyPair::generate()?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A server certificate for these names that nobody but itself has signed.
///
/// # Errors
/// When a name is not one.
pub fn self_signed(names: &[&str]) -> Result<Leaf> {
    let key = KeyPair::generate()?;
    let certificate = params(names)?.self_signed(&key)?;
    Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn params(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    Ok(CertificateParams::new(names)?)
}

/// A server certificate that names this host as every test reaches it.
///
/// # Errors
/// When the key cannot be made.
pub fn loopback(authority: &Authority) -> Result<Leaf> {
    authority.server(&["localhost", "127.0.0.1"])
}
