//! Where an amphora keeps what: the names and places that Octavia, its image and operators know.

use std::path::{Path, PathBuf};

/// The places, from `[haproxy_amphora] base_path` and `base_cert_dir`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    base: PathBuf,
    certs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new("/var/lib/octavia", "/var/lib/octavia/certs")
    }
}

impl Paths {
    /// Of a base path, and of the folder for certificates, which need not be below it.
    pub fn new(base: impl Into<PathBuf>, certs: impl Into<PathBuf>) -> Self {
        Self { base: base.into(), certs: certs.into() }
    }

    /// Octavia's `base_path`.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Octavia's `base_cert_dir`: certificates and keys of tenants, by load balancer.
    pub fn certs(&self) -> &Path {
        &self.certs
    }

    /// What the door was told that stands in no other file. 0600.
    pub fn document(&self) -> PathBuf {
        self.base.join("xdp-lb.json")
    }

    /// The directory of a load balancer. 0755.
    pub fn load_balancer(&self, load_balancer: &str) -> PathBuf {
        self.base.join(load_balancer)
    }

    /// The HAProxy configuration of a load balancer, as uploaded. 0600.
    pub fn haproxy(&self, load_balancer: &str) -> PathBuf {
        self.load_balancer(load_balancer).join("haproxy.cfg")
    }

    /// The last one that was refused, under the name that the stock agent gives it. 0600.
    pub fn haproxy_rejected(&self, load_balancer: &str) -> PathBuf {
        self.load_balancer(load_balancer).join("haproxy.cfg.new-failed")
    }

    /// HAProxy's socket for statistics.
    pub fn haproxy_socket(&self, load_balancer: &str) -> PathBuf {
        self.base.join(format!("{load_balancer}.sock"))
    }

    /// Where HAProxy finds the state of its servers after a reload.
    pub fn haproxy_state(&self, load_balancer: &str) -> PathBuf {
        self.load_balancer(load_balancer).join("servers-state")
    }

    /// The directory of what follows. 0700.
    pub fn certificates(&self, load_balancer: &str) -> PathBuf {
        self.certs.join(load_balancer)
    }

    /// A certificate with its key, a CA, a CRL or a list of certificates of a load balancer. 0600.
    pub fn certificate(&self, load_balancer: &str, file: &str) -> PathBuf {
        self.certificates(load_balancer).join(file)
    }

    /// The directory of those of UDP and SCTP listeners. 0755.
    pub fn lvs_directory(&self) -> PathBuf {
        self.base.join("lvs")
    }

    /// The keepalived configuration of a UDP or SCTP listener, as uploaded. 0644.
    pub fn lvs(&self, listener: &str) -> PathBuf {
        self.lvs_directory().join(format!("octavia-keepalivedlvs-{listener}.conf"))
    }

    /// The check that keepalived of a UDP listener would run.
    pub fn udp_check(&self) -> PathBuf {
        self.base.join("lvs/check/udp_check.sh")
    }

    /// The keepalived configuration of VRRP, as uploaded. 0644.
    pub fn vrrp(&self) -> PathBuf {
        self.base.join("vrrp/octavia-keepalived.conf")
    }

    /// The script by which VRRP asks whether this amphora is well. 0755.
    pub fn vrrp_check(&self) -> PathBuf {
        self.base.join("vrrp/check_script.sh")
    }
}
