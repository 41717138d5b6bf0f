//! TLS, of a `bind` or a `server`.

use std::collections::BTreeSet;
use std::slice::Iter;

use super::values::Value;
use super::words::Line;
use crate::paths::Paths;
use crate::refused::Refused;

/// Files are names in the folder of the load balancer's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    pub enabled: bool,
    /// The list of a listener's certificates.
    pub crt_list: Option<String>,
    pub certificate: Option<String>,
    /// All certificates of the load balancer, for the names that they are made out to.
    pub folder: bool,
    pub ca: Option<String>,
    pub crl: Option<String>,
    pub verify: Option<String>,
    /// Passes the name on that the client asked for.
    pub sni: Option<String>,
    pub ciphers: Option<String>,
    pub cipher_suites: Option<String>,
    pub alpn: Option<String>,
    /// Versions that are off, in whatever order they are written.
    pub without: BTreeSet<String>,
}

impl Tls {
    /// Takes an option and its value, if it is one of these.
    pub fn option(
        &mut self,
        option: &str,
        rest: &mut Iter<'_, &str>,
        line: &Line,
        (load_balancer, paths): (&str, &Paths),
    ) -> Result<bool, Refused> {
        let mut value = || {
            let text =
                rest.next().ok_or_else(|| line.refused(format!("`{option}` has no value")))?;
            Ok::<_, Refused>(Value::of(line, text))
        };
        let (slot, told) = match option {
            "ssl" => {
                self.enabled = true;
                return Ok(true);
            }
            "no-sslv3" | "no-tlsv10" | "no-tlsv11" | "no-tlsv12" | "no-tlsv13" => {
                self.without.insert(option.to_owned());
                return Ok(true);
            }
            "crt-list" => (&mut self.crt_list, value()?.certificate(load_balancer, paths)?),
            "crt" => (&mut self.certificate, value()?.certificate(load_balancer, paths)?),
            "ca-file" => (&mut self.ca, value()?.certificate(load_balancer, paths)?),
            "crl-file" => (&mut self.crl, value()?.certificate(load_balancer, paths)?),
            "verify" => {
                let known = ["none", "optional", "required"];
                let value = value()?;
                let found = known.iter().find(|word| **word == value.text);
                let wrong = || line.refused("`verify` is none, optional or required");
                (&mut self.verify, (*found.ok_or_else(wrong)?).to_owned())
            }
            "sni" => {
                let value = value()?;
                if value.text != "ssl_fc_sni" {
                    return Err(line.refused("`sni` is ssl_fc_sni"));
                }
                (&mut self.sni, value.text.to_owned())
            }
            "ciphers" => (&mut self.ciphers, value()?.of_characters("a list of ciphers", is_list)?),
            "ciphersuites" => {
                (&mut self.cipher_suites, value()?.of_characters("a list of ciphers", is_list)?)
            }
            "alpn" => (&mut self.alpn, value()?.of_characters("a list of protocols", is_list)?),
            _ => return Ok(false),
        };
        match slot.replace(told) {
            None => Ok(true),
            Some(_) => Err(line.refused(format!("`{option}` is there twice"))),
        }
    }
}

/// Of OpenSSL's names of ciphers, and of protocols.
pub fn is_list(next: char) -> bool {
    next.is_ascii_alphanumeric() || "-_:+!@=.,/".contains(next)
}
