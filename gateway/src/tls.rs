//! TLS 1.3 of a listener (RFC 8446): certificates read from files, and read again when
//! they change.
//!
//! Promises: what is in force stays in force until the new files are whole and fit
//! together, and then is in force for every new connection, while those that are there
//! go on; a client certificate that would not be taken any more can be told from one
//! that would. Never: a private key in an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use risiti_config::ClientCertificates;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::access::Stamp;

/// What is wrong with a listener's files, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} of listener {listener}: {path}: {what}")]
pub struct TlsError {
    listener: String,
    key: &'static str,
    path: PathBuf,
    what: String,
}

/// TLS as one listener has it.
pub struct Tls {
    listener: String,
    files: risiti_config::Tls,
    loaded: RwLock<Arc<Loaded>>,
    seen: Mutex<Vec<Option<Stamp>>>,
    trouble: Mutex<Option<TlsError>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// What the files say together.
struct Loaded {
    server: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// Reads the files of a listener.
    ///
    /// # Errors
    /// One of them can't be read, or they do not fit together.
    pub fn open(listener: &str, files: &risiti_config::Tls) -> Result<Self, TlsError> {
        // Before they are read: what is written meanwhile is seen as a change.
        let seen = stamps(files);
        let loaded = Loader { listener, files }.load()?;
        Ok(Self {
            listener: listener.to_owned(),
            files: files.clone(),
            loaded: RwLock::new(Arc::new(loaded)),
            seen: Mutex::new(seen),
            trouble: Mutex::new(None),
        })
    }

    /// A connection that waits for its client to begin.
    ///
    /// # Errors
    /// The library's: its configuration does not fit together.
    pub fn accept(&self) -> Result<ServerConnection, rustls::Error> {
        ServerConnection::new(self.loaded.read().server.clone())
    }

    /// Looks whether a file has changed, and puts them in force; `always`: even if
    /// none seems to have. True: they are. Reads files: for a blocking thread.
    pub fn refresh(&self, always: bool) -> bool {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock();
        // A file half written is looked at again, though its stamp is known.
        if *seen == now && !always && self.trouble.lock().is_none() {
            return false;
        }
        let changed = *seen != now;
        *seen = now;
        let loader = Loader {
            listener: &self.listener,
            files: &self.files,
        };
        match loader.load() {
            Ok(loaded) => {
                *self.loaded.write() = Arc::new(loaded);
                *self.trouble.lock() = None;
                if changed {
                    tracing::info!(listener = self.listener, "its certificates were read");
                }
                true
            }
            Err(error) => {
                let mut known = self.trouble.lock();
                if known.as_ref() != Some(&error) {
                    tracing::error!("{error}; what was in force stays");
                }
                *known = Some(error);
                false
            }
        }
    }

    /// What a person has to look at.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        let error = trouble.as_ref()?;
        Some(format!("{error}; what was in force stays"))
    }

    /// Who a client is by the certificate that it has shown in its handshake.
    #[must_use]
    pub fn client(self: &Arc<Self>, connection: &ServerConnection) -> Option<PeerCertificate> {
        let chain = connection.peer_certificates()?;
        let name = common_name(chain.first()?)?;
        Some(PeerCertificate {
            name,
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            tls: self.clone(),
        })
    }
}

/// A client's certificate, verified in its handshake.
pub struct PeerCertificate {
    name: String,
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<Tls>,
}

impl std::fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PeerCertificate").field(&self.name).finish()
    }
}

impl PeerCertificate {
    /// The common name of its subject (RFC 5280, section 4.1.2.6; X.520).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it would be taken now: by an authority that is trusted, not revoked, in
    /// its time. A resumed session shows it without a new look (RFC 8446, section 2.2).
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        let loaded = self.tls.loaded.read().clone();
        let (Some(clients), Some((leaf, rest))) = (&loaded.clients, self.chain.split_first())
        else {
            return false;
        };
        clients
            .verify_client_cert(leaf, rest, UnixTime::now())
            .is_ok()
    }
}

/// The one common name of a certificate's subject; none if it has none or several.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    (names.next().is_none() && !name.is_empty()).then(|| name.to_owned())
}

fn stamps(files: &risiti_config::Tls) -> Vec<Option<Stamp>> {
    [Some(&files.certificate_file), Some(&files.key_file)]
        .into_iter()
        .chain([files.client_ca_file.as_ref(), files.crl_file.as_ref()])
        .flatten()
        .map(|path| Stamp::now(path).ok().flatten())
        .collect()
}

/// Reads the files of one listener.
struct Loader<'a> {
    listener: &'a str,
    files: &'a risiti_config::Tls,
}

impl Loader<'_> {
    fn load(&self) -> Result<Loaded, TlsError> {
        let provider = Arc::new(default_provider());
        let certificates: Vec<CertificateDer<'static>> =
            self.read("certificate_file", &self.files.certificate_file)?;
        let path = &self.files.key_file;
        let key = PrivateKeyDer::from_pem_file(path).map_err(|error| {
            self.wrong(
                "key_file",
                path,
                &format!("{error}; write the private key of certificate_file there, as PEM"),
            )
        })?;
        let clients = self.clients(&provider)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.wrong("certificate_file", path, &error.to_string()))?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
            None => builder.with_no_client_auth(),
        };
        let server = builder
            .with_single_cert(certificates, key)
            .map_err(|error| {
                let what = format!("{error}; it has to be the key of certificate_file, whose first certificate is the gateway's own");
                self.wrong("key_file", path, &what)
            })?;
        Ok(Loaded {
            server: Arc::new(server),
            clients,
        })
    }

    fn clients(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let Some(path) = &self.files.client_ca_file else {
            return Ok(None);
        };
        let mut roots = RootCertStore::empty();
        for certificate in self.read("client_ca_file", path)? {
            roots
                .add(certificate)
                .map_err(|error| self.wrong("client_ca_file", path, &error.to_string()))?;
        }
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        if let Some(path) = &self.files.crl_file {
            let lists: Vec<CertificateRevocationListDer<'static>> = self.read("crl_file", path)?;
            // An authority of which there is no list has revoked nothing.
            builder = builder.with_crls(lists).allow_unknown_revocation_status();
        }
        if self.files.client_certificates == ClientCertificates::Optional {
            builder = builder.allow_unauthenticated();
        }
        let path = self.files.crl_file.as_ref().unwrap_or(path);
        let verifier = builder
            .build()
            .map_err(|error| self.wrong("crl_file", path, &error.to_string()))?;
        Ok(Some(verifier))
    }

    /// Every item of that kind in a file; there must be one.
    fn read<T: PemObject>(&self, key: &'static str, path: &Path) -> Result<Vec<T>, TlsError> {
        let items: Result<Vec<T>, _> = T::pem_file_iter(path).and_then(Iterator::collect);
        match items {
            Ok(items) if !items.is_empty() => Ok(items),
            Ok(_) => Err(self.wrong(key, path, "nothing of that kind stands there as PEM")),
            Err(error) => Err(self.wrong(key, path, &error.to_string())),
        }
    }

    fn wrong(&self, key: &'static str, path: &Path, what: &str) -> TlsError {
        TlsError {
            listener: self.listener.to_owned(),
            key,
            path: path.to_owned(),
            what: what.to_owned(),
        }
    }
}
