//! The client's side of TLS: whom it trusts, and who it says it is.

use super::secret::Secret;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use std::sync::Arc;

/// `tls_config`, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificates that are trusted; `None` is those of the system.
    pub ca: Option<Secret>,
    /// The client's own certificate.
    pub cert: Option<Secret>,
    /// Its key.
    pub key: Option<Secret>,
    /// What the server's certificate must be of, if not of the host that is asked.
    pub server_name: Option<ServerName<'static>>,
    /// Whether the server may have any certificate.
    pub insecure_skip_verify: bool,
    /// Which versions may be spoken.
    pub versions: Versions,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 alone.
    Only12,
    /// 1.3 alone.
    Only13,
}

impl Versions {
    fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        static ONLY_12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static ONLY_13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Versions::All => rustls::ALL_VERSIONS,
            Versions::Only12 => &ONLY_12,
            Versions::Only13 => &ONLY_13,
        }
    }
}

/// What the files of a [`TlsConfig`] hold at a time.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

/// Which key of `tls_config` is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `ca` or `ca_file`
    Ca,
    /// `cert` or `cert_file`
    Cert,
    /// `key` or `key_file`
    Key,
}

/// Why nothing can be asked over TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TlsError {
    /// What to look at.
    pub key: Key,
    /// What is wrong with it.
    pub message: String,
}

impl TlsConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn material(&self) -> Result<Material, TlsError> {
        let read = |key, secret: &Option<Secret>| {
            let text = secret.as_ref().map(Secret::read).transpose();
            text.map_err(|error| TlsError { key, message: error.to_string() })
        };
        Ok(Material {
            ca: read(Key::Ca, &self.ca)?,
            cert: read(Key::Cert, &self.cert)?,
            key: read(Key::Key, &self.key)?,
        })
    }

    /// Checks what the files hold.
    ///
    /// # Errors
    /// What is wrong with them, and which is.
    pub fn check(&self) -> Result<(), TlsError> {
        self.client(&self.material()?).map(drop)
    }

    /// How to ask a server, with these files.
    ///
    /// # Errors
    /// What is wrong with them, and which is.
    pub fn client(&self, material: &Material) -> Result<ClientConfig, TlsError> {
        let fault = |key, message: String| TlsError { key, message };
        let provider = Arc::new(ring::default_provider());
        let known = |certificates: Vec<_>| Trust::in_certificates(certificates, provider.clone());
        let trust = match &material.ca {
            // What is configured must be right, whether it is used or not.
            Some(pem) => certificates(pem).and_then(known).map_err(|e| fault(Key::Ca, e))?,
            // Who is asked without TLS does not suffer from it.
            None => of_system().and_then(known).unwrap_or_else(Trust::None),
        };
        let trust = if self.insecure_skip_verify { Trust::All } else { trust };
        let verifier = Arc::new(Verifier { trust, provider: provider.clone() });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions.list())
            .map_err(|e| fault(Key::Ca, e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (Some(cert), Some(key)) = (&material.cert, &material.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(cert).map_err(|e| fault(Key::Cert, e))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|e| fault(Key::Key, format!("holds no private key in PEM: {e}")))?;
        builder.with_client_auth_cert(chain, key).map_err(|e| fault(Key::Key, e.to_string()))
    }
}

/// The certificates of a PEM text, of which there must be one.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("holds a broken certificate: {error}")),
    }
}

/// The certificates that the system trusts.
fn of_system() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!("the system trusts no certificate{why}: set ca_file of tls_config"));
    }
    Ok(found.certs)
}

/// Which servers are trusted.
#[derive(Debug)]
enum Trust {
    /// Those whose certificate one of these vouches for, or who show one of these itself, as with Go: a
    /// certificate that one made for oneself often may vouch for others as well, and is refused as a
    /// server's own by the letter of the standard.
    Known { certificates: Vec<CertificateDer<'static>>, inner: Arc<WebPkiServerVerifier> },
    /// Every one: `insecure_skip_verify`.
    All,
    /// No one, for this reason.
    None(String),
}

impl Trust {
    fn in_certificates(
        certificates: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if added == 0 {
            return Err("holds no certificate that can be trusted".to_owned());
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Trust::Known { certificates, inner: inner.map_err(|error| error.to_string())? })
    }
}

/// Whether all that is wrong with a certificate is that it may vouch for others. This is looked at
/// after its time and before who signed it.
fn may_vouch(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Checks what a server shows.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (certificates, inner) = match &self.trust {
            Trust::Known { certificates, inner } => (certificates, inner),
            Trust::All => return Ok(ServerCertVerified::assertion()),
            Trust::None(why) => return Err(Error::General(why.clone())),
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if may_vouch(&error) && certificates.contains(end_entity) => {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&certificate, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
