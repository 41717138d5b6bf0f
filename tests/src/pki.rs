//! Certificates for tests, as Octavia makes them and as it would rather not see them.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509NameBuilder};

/// A CA that signs with its own key.
pub struct Authority {
    pub certificate: X509,
    key: PKey<Private>,
}

/// A certificate and its key.
pub struct Issued {
    pub certificate: X509,
    pub key: PKey<Private>,
}

/// What is special about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With a name in the SAN and both extended key usages, as Octavia's controller makes them.
    Octavia,
    /// X.509 version 1: no extensions at all.
    Version1,
    Expired,
    /// For servers alone.
    ServerOnly,
}

const DAY_S: i64 = 86_400;

impl Authority {
    pub fn new(name: &str) -> Result<Self, ErrorStack> {
        let key = key()?;
        let subject = subject(name)?;
        let mut builder = builder(&subject, &subject, &key, (-1, 30))?;
        builder.set_version(2)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key })
    }

    pub fn issue(&self, name: &str, kind: Kind) -> Result<Issued, ErrorStack> {
        let key = key()?;
        let days = if kind == Kind::Expired { (-30, -1) } else { (-1, 30) };
        let mut builder = builder(&subject(name)?, self.certificate.subject_name(), &key, days)?;
        if kind != Kind::Version1 {
            builder.set_version(2)?;
            let san = SubjectAlternativeName::new()
                .dns(name)
                .build(&builder.x509v3_context(Some(&self.certificate), None))?;
            builder.append_extension(san)?;
            let mut usage = ExtendedKeyUsage::new();
            usage.critical().server_auth();
            if kind != Kind::ServerOnly {
                usage.client_auth();
            }
            builder.append_extension(usage.build()?)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(Issued { certificate: builder.build(), key })
    }

    pub fn pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.certificate.to_pem()
    }

    pub fn key_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.key.rsa()?.private_key_to_pem()
    }
}

impl Issued {
    /// The certificate, then the key in PKCS#1, as in Octavia's `server.pem`.
    pub fn pem(&self) -> Result<Vec<u8>, ErrorStack> {
        Ok([self.certificate.to_pem()?, self.key.rsa()?.private_key_to_pem()?].concat())
    }
}

fn key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_rsa(Rsa::generate(2048)?)
}

fn subject(name: &str) -> Result<X509Name, ErrorStack> {
    let mut subject = X509NameBuilder::new()?;
    subject.append_entry_by_text("CN", name)?;
    Ok(subject.build())
}

/// Valid from and until so many days from now.
fn builder(
    subject: &X509Name,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
    (from, until): (i64, i64),
) -> Result<openssl::x509::X509Builder, ErrorStack> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs() as i64);
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let serial = serial.to_asn1_integer()?;
    let from = Asn1Time::from_unix(now + from * DAY_S)?;
    let until = Asn1Time::from_unix(now + until * DAY_S)?;
    let mut builder = X509::builder()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&from)?;
    builder.set_not_after(&until)?;
    Ok(builder)
}
