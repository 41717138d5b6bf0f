//! Certificates and their dates: the agent's, those it trusts, and the tenants'.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use agent_api::AgentConfig;
use agent_api::door::tls;
use jiff::Timestamp;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::x509::X509;

use super::{Facts, Finding};

/// A file of PEM, and what is in it.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub path: PathBuf,
    pub whose: Whose,
    /// None where there is no certificate in it, as in a list of revoked ones.
    pub dates: Result<Vec<Dates>, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// What the controller is shown.
    Agent,
    /// What the controller's must be signed by.
    ClientCa,
    Tenant,
    /// A tenant's that a listener is to be served with, and that is not there.
    Lost,
}

/// When a certificate holds, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dates {
    pub subject: String,
    pub begins_s: i64,
    pub ends_s: i64,
}

const DAY_S: i64 = 86_400;
/// Octavia's housekeeping gives an amphora a new one 14 days before the old one ends (`[house_keeping]
/// cert_expiry_buffer`): by then it has not.
const AGENT_SOON_S: i64 = 7 * DAY_S;
const SOON_S: i64 = 14 * DAY_S;

const ROTATE: &str = "`openstack loadbalancer amphora failover AMPHORA`, and octavia-housekeeping running, \
                      whose [house_keeping] cert_interval renews it";
const RENEW_CA: &str = "a new [haproxy_amphora] client_ca on the controllers, then `openstack loadbalancer \
                        failover`";
const UPLOAD: &str = "the owner: a renewed one in Barbican, then `openstack loadbalancer listener set \
                      --default-tls-container-ref`";
/// The controller alone has them.
const REPLACE: &str =
    "`openstack loadbalancer failover`: tenants' keys are in memory, and gone after a reboot";

pub fn look(config: &AgentConfig) -> Vec<Certificates> {
    let own =
        [(&config.agent_server_cert, Whose::Agent), (&config.agent_server_ca, Whose::ClientCa)];
    let own = own.into_iter().map(|(path, whose)| read(path, whose));
    let tenants = folders(&config.base_cert_dir).into_iter().flat_map(|folder| folders(&folder));
    let tenants = tenants.filter(|path| path.extension().is_some_and(|it| it == "pem"));
    let tenants = tenants.map(|path| read(&path, Whose::Tenant));
    let lost = lost(config).into_iter().map(|path| read(&path, Whose::Lost));
    own.chain(tenants).chain(lost).collect()
}

/// What the uploaded configurations of HAProxy name, and is not there.
fn lost(config: &AgentConfig) -> BTreeSet<PathBuf> {
    let folders = folders(&config.base_path).into_iter();
    let texts = folders.filter_map(|folder| fs::read_to_string(folder.join("haproxy.cfg")).ok());
    let named = texts.flat_map(|text| named(&text, &config.base_cert_dir));
    named.filter(|path| !path.exists()).collect()
}

/// Files below a folder, each a word.
fn named(text: &str, folder: &Path) -> BTreeSet<PathBuf> {
    let paths = text.split_whitespace().map(Path::new);
    paths.filter(|path| path.starts_with(folder)).map(Path::to_owned).collect()
}

/// What is in a folder, in order; nothing where there is none.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn read(path: &Path, whose: Whose) -> Certificates {
    let dates = fs::read(path).map_err(|error| error.to_string()).and_then(|pem| {
        if whose == Whose::Agent {
            tls::check(&pem).map_err(|error| error.to_string())?;
        }
        let certificates = X509::stack_from_pem(&pem).map_err(|error| error.to_string())?;
        certificates.iter().map(|it| dates_of(it).map_err(|error| error.to_string())).collect()
    });
    Certificates { path: path.to_owned(), whose, dates }
}

fn dates_of(certificate: &X509) -> Result<Dates, ErrorStack> {
    let last = certificate.subject_name().entries().last();
    let last = last.and_then(|entry| entry.data().to_string().ok());
    Ok(Dates {
        // A tenant's text, for a terminal.
        subject: last.map_or_else(|| "it".to_owned(), |name| name.escape_debug().to_string()),
        begins_s: seconds(certificate.not_before())?,
        ends_s: seconds(certificate.not_after())?,
    })
}

fn seconds(time: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since.days) * DAY_S + i64::from(since.secs))
}

pub fn dates(facts: &Facts) -> Vec<Finding> {
    let now_s = facts.clock.now_s;
    facts.certificates.iter().flat_map(|file| examine(file, now_s)).collect()
}

/// Of a file, the certificate that ends first, and each that is not valid.
fn examine(file: &Certificates, now_s: i64) -> Vec<Finding> {
    let about = file.path.display().to_string();
    let (soon_s, mend) = match file.whose {
        Whose::Agent => (AGENT_SOON_S, ROTATE),
        Whose::ClientCa => (SOON_S, RENEW_CA),
        Whose::Tenant => (SOON_S, UPLOAD),
        Whose::Lost => (SOON_S, REPLACE),
    };
    let dates = match &file.dates {
        Ok(dates) => dates,
        Err(why) => {
            return vec![Finding::failure(&about, format!("is not to be used: {why}"), mend)];
        }
    };
    let of = |Dates { subject, begins_s, ends_s }: &Dates| {
        let days = (ends_s - now_s) / DAY_S;
        if now_s >= *ends_s {
            let found = format!("{subject} has expired on {}", date(*ends_s));
            Finding::failure(&about, found, mend)
        } else if now_s < *begins_s {
            let found = format!(
                "{subject} is valid from {} on, and the clock says {}",
                date(*begins_s),
                date(now_s)
            );
            let mend =
                "the right time: `timedatectl`; where the clock is right, the one who issued it";
            Finding::failure(&about, found, mend)
        } else if ends_s - now_s < soon_s {
            let found = format!("{subject} expires on {}, in {days} days", date(*ends_s));
            Finding::warning(&about, found, mend)
        } else {
            Finding::ok(&about, format!("{subject} is valid until {}", date(*ends_s)))
        }
    };
    let mut found: Vec<_> = dates.iter().map(of).collect();
    found.dedup_by(|a, b| a.level == super::Level::Ok && b.level == super::Level::Ok);
    found
}

fn date(at_s: i64) -> String {
    Timestamp::from_second(at_s).map_or_else(
        |_| format!("{at_s} s since 1970"),
        |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Ok, Warning};
    use super::super::facts::tests::{said, well};
    use super::*;

    const NOW_S: i64 = 1_764_000_000;

    fn days(begins: i64, ends: i64) -> Dates {
        let at = |days| NOW_S + days * DAY_S;
        Dates { subject: "amp".to_owned(), begins_s: at(begins), ends_s: at(ends) }
    }

    #[test]
    fn dates_against_the_clock() {
        use Whose::{Agent, ClientCa, Tenant};
        let rows = [
            ("good", Agent, vec![days(-1, 30)], vec![(Ok, "valid until 2025-12-24 16:00 UTC")]),
            ("not rotated", Agent, vec![days(-25, 5)], vec![(Warning, "octavia-housekeeping")]),
            ("soon rotated", Agent, vec![days(-20, 10)], vec![(Ok, "valid until")]),
            ("expired", Agent, vec![days(-30, -1)], vec![(Failure, "amphora failover")]),
            ("the clock is behind", Agent, vec![days(1, 30)], vec![(Failure, "timedatectl")]),
            ("a CA", ClientCa, vec![days(-1, 10)], vec![(Warning, "client_ca")]),
            ("a tenant's", Tenant, vec![days(-1, 13)], vec![(Warning, "in 13 days")]),
            ("a tenant's, expired", Tenant, vec![days(-9, 0)], vec![(Failure, "Barbican")]),
            (
                "one of a chain",
                Tenant,
                vec![days(-9, 90), days(-9, 80), days(-9, -1)],
                vec![(Ok, "valid until"), (Failure, "has expired")],
            ),
            ("no certificate", Tenant, vec![], vec![]),
        ];
        for (row, whose, in_file, want) in rows {
            let mut facts = well();
            facts.clock.now_s = NOW_S;
            let path = PathBuf::from("/a.pem");
            facts.certificates = vec![Certificates { path, whose, dates: Result::Ok(in_file) }];
            let want: Vec<_> = want.iter().map(|(level, it)| (*level, "/a.pem", *it)).collect();
            said(&dates(&facts), &want, row);
        }
    }

    #[test]
    fn a_file_that_is_none() {
        let mut facts = well();
        facts.certificates = vec![read(Path::new("/none.pem"), Whose::Agent)];
        said(&dates(&facts), &[(Failure, "/none.pem", "No such file")], "none");
        facts.certificates = vec![read(Path::new("/none.pem"), Whose::Lost)];
        said(&dates(&facts), &[(Failure, "/none.pem", "loadbalancer failover")], "lost");
    }

    #[test]
    fn files_that_are_named() {
        let text =
            "    bind 10.0.0.1:443 ssl crt-list /c/lb/l.pem ca-file /c/lb/a.pem\n    bind /c2/x\n";
        let want: Vec<_> = ["/c/lb/a.pem", "/c/lb/l.pem"].map(PathBuf::from).into();
        assert_eq!(named(text, Path::new("/c")).into_iter().collect::<Vec<_>>(), want);
    }
}
