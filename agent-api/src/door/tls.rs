//! Who the amphora is to the controller, and which controllers it lets in.
//!
//! OpenSSL, not rustls: operators make client CAs of X.509 version 1 and client certificates without
//! extensions, which webpki refuses (rustls/webpki: `UnsupportedCertVersion`) and the stock agent, which
//! is OpenSSL under Python, takes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    SslAcceptor, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use tracing::{info, warn};

use crate::config::TlsMinimum;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: {error}", .path.display())]
    Pem { path: PathBuf, error: PemError },
    #[error("TLS: {0}")]
    Openssl(#[from] ErrorStack),
}

/// What is wrong with a file of PEM.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    #[error("holds no certificate")]
    NoCertificate,
    #[error("holds no private key: {0}")]
    NoKey(ErrorStack),
    #[error("the private key is not that of the certificate")]
    OtherKey,
    #[error("{0}")]
    Form(ErrorStack),
}

/// The files of the server's certificate and of the CAs of its clients, as last read.
///
/// They are looked at for every connection, as the stock server does, so a new certificate is served
/// from then on. Where a new one cannot be used the old one stays, and the log says so once.
pub struct Identity {
    certificate: PathBuf,
    client_ca: PathBuf,
    minimum: TlsMinimum,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    acceptor: SslAcceptor,
    /// Of the files that were looked at last, whether they could be used or not.
    seen: [Option<Stamp>; 2],
}

/// What changes when a file does: device, inode, size, and time of change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl Identity {
    /// Reads both files; fails where the server could not be started with them.
    pub fn load(certificate: &Path, client_ca: &Path, minimum: TlsMinimum) -> Result<Self, Error> {
        let seen = [stamp(certificate), stamp(client_ca)];
        let acceptor = acceptor(certificate, client_ca, minimum)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            client_ca: client_ca.to_owned(),
            minimum,
            loaded: Mutex::new(Loaded { acceptor, seen }),
        })
    }

    /// File of the server's certificate and key.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// For the next connection.
    pub fn acceptor(&self) -> SslAcceptor {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = [stamp(&self.certificate), stamp(&self.client_ca)];
        if seen != loaded.seen {
            loaded.seen = seen;
            match acceptor(&self.certificate, &self.client_ca, self.minimum) {
                Ok(acceptor) => {
                    info!("a new certificate or client CA is in use");
                    loaded.acceptor = acceptor;
                }
                Err(error) => warn!("the certificate in use stays: {error}"),
            }
        }
        loaded.acceptor.clone()
    }
}

/// Whether this would do as the server's certificate and key.
pub fn check(pem: &[u8]) -> Result<(), PemError> {
    parse(pem).map(drop)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let of = fs::metadata(path).ok()?;
    Some((of.dev(), of.ino(), of.size(), of.ctime(), of.ctime_nsec()))
}

fn acceptor(
    certificate: &Path,
    client_ca: &Path,
    minimum: TlsMinimum,
) -> Result<SslAcceptor, Error> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(match minimum {
        TlsMinimum::Tls12 => SslVersion::TLS1_2,
        TlsMinimum::Tls13 => SslVersion::TLS1_3,
    }))?;
    // A session that is resumed is not verified again, and nobody resumes one: a connection is a request.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_options(SslOptions::NO_TICKET);
    builder.set_num_tickets(0)?;

    let (leaf, chain, key) = parse(&read(certificate)?)
        .map_err(|error| Error::Pem { path: certificate.to_owned(), error })?;
    builder.set_certificate(&leaf)?;
    for above in chain {
        builder.add_extra_chain_cert(above)?;
    }
    builder.set_private_key(&key)?;

    let mut trusted = X509StoreBuilder::new()?;
    for anchor in certificates(&read(client_ca)?)
        .map_err(|error| Error::Pem { path: client_ca.to_owned(), error })?
    {
        trusted.add_cert(anchor)?;
    }
    // What stands in the file is trusted, also an intermediate whose root does not (Python 3.13 does so
    // too). Otherwise OpenSSL's own rules: a root of version 1 is a CA, a client certificate may be of
    // version 1, and need not say what it is for.
    trusted.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    builder.set_verify_cert_store(trusted.build())?;
    builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    Ok(builder.build())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::Read { path: path.to_owned(), error })
}

/// The server's certificate, what is above it, and its key.
fn parse(pem: &[u8]) -> Result<(X509, Vec<X509>, PKey<Private>), PemError> {
    let pem = apart(pem);
    let mut chain = certificates(&pem)?;
    let leaf = chain.remove(0);
    // No passphrase: without a callback OpenSSL asks for one on the terminal.
    let key = PKey::private_key_from_pem_callback(&pem, |_| Ok(0)).map_err(PemError::NoKey)?;
    let own = leaf.public_key().map_err(PemError::Form)?;
    if own.public_eq(&key) { Ok((leaf, chain, key)) } else { Err(PemError::OtherKey) }
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<X509>, PemError> {
    let found = X509::stack_from_pem(pem).map_err(PemError::Form)?;
    if found.is_empty() { Err(PemError::NoCertificate) } else { Ok(found) }
}

/// With a line end between a certificate and a key that were joined without one: OpenSSL only looks for
/// the beginning of a block at that of a line.
fn apart(pem: &[u8]) -> Vec<u8> {
    const SEAM: &[u8] = b"----------BEGIN";
    let mut whole = Vec::with_capacity(pem.len() + 8);
    for (at, byte) in pem.iter().enumerate() {
        if pem[at..].starts_with(b"-----BEGIN") && pem[..at].ends_with(b"-----") {
            whole.push(b'\n');
        }
        whole.push(*byte);
    }
    debug_assert!(!whole.windows(SEAM.len()).any(|window| window == SEAM));
    whole
}
