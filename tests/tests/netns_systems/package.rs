//! The Debian package: what is in it, what it says of itself, and that it comes and goes without a trace.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;
use xdp_lb_tests::balancer::program;
use xdp_lb_tests::container::output;
use xdp_lb_tests::system::System;

use super::scripts::workspace;

/// All but the pages for man(1), which are as many as there are commands.
const CONTENTS: [(&str, &str); 15] = [
    ("-rw-r--r--", "./usr/lib/sysctl.d/90-xdp-lb.conf"),
    ("-rw-r--r--", "./usr/lib/systemd/system/amphora-agent.service"),
    ("-rw-r--r--", "./usr/lib/systemd/system/amphora-netns.service"),
    ("-rw-r--r--", "./usr/lib/systemd/system/var-lib-octavia-certs.mount"),
    ("-rw-r--r--", "./usr/lib/systemd/system/xdp-lb-heartbeat-relay.service"),
    ("-rw-r--r--", "./usr/share/bash-completion/completions/xdp-lb"),
    ("-rw-r--r--", "./usr/share/doc/xdp-lb/README.md.gz"),
    ("-rw-r--r--", "./usr/share/doc/xdp-lb/amphora-image.md.gz"),
    ("-rw-r--r--", "./usr/share/doc/xdp-lb/changelog.gz"),
    ("-rw-r--r--", "./usr/share/doc/xdp-lb/copyright"),
    ("-rw-r--r--", "./usr/share/doc/xdp-lb/examples/lb.toml"),
    ("-rw-r--r--", "./usr/share/doc/xdp-lb/examples/xdp-lb.conf"),
    ("-rw-r--r--", "./usr/share/fish/vendor_completions.d/xdp-lb.fish"),
    ("-rw-r--r--", "./usr/share/zsh/vendor-completions/_xdp-lb"),
    ("-rwxr-xr-x", "./usr/bin/xdp-lb"),
];
const MAN: &str = "./usr/share/man/man1/";

const FIELDS: [(&str, &str); 6] = [
    ("Package", "xdp-lb"),
    ("Version", env!("CARGO_PKG_VERSION")),
    ("Recommends", "haproxy, keepalived, nftables"),
    // Debian's package of the stock agent.
    ("Conflicts", "octavia-agent"),
    ("Replaces", "octavia-agent"),
    ("Section", "net"),
];

pub struct Package {
    pub file: PathBuf,
    _folder: TempDir,
}

impl Package {
    /// Of the binary that is tested.
    pub fn make() -> Result<Self> {
        let folder = TempDir::with_prefix("xdp-lb-package-")?;
        let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
        let mut xtask = Command::new(cargo);
        xtask.current_dir(workspace()).args(["xtask", "package", "--binary"]).arg(program());
        output(xtask.arg("--out").arg(folder.path()))?;
        let mut files = folder.path().read_dir()?;
        let file = files.next().context("nothing was made")??.path();
        anyhow::ensure!(files.next().is_none(), "more than {} was made", file.display());
        Ok(Self { file, _folder: folder })
    }

    fn dpkg_deb(&self, arguments: &[&str]) -> String {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg(arguments[0]).arg(&self.file).args(&arguments[1..]);
        output(&mut dpkg).expect("dpkg-deb")
    }

    pub fn has_what_it_must(&self) {
        let listed = self.dpkg_deb(&["--contents"]);
        let files = listed.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (mode, owner, name) = (words.next()?, words.next()?, words.nth(3)?);
            assert_eq!(owner, "root/root", "{line}");
            (!mode.starts_with('d')).then_some((mode, name))
        });
        let (pages, files): (BTreeSet<_>, BTreeSet<_>) =
            files.partition(|(_, name)| name.starts_with(MAN));
        assert_eq!(files, BTreeSet::from(CONTENTS));
        for page in ["xdp-lb", "xdp-lb-agent", "xdp-lb-run", "xdp-lb-heartbeat-relay"] {
            let name = format!("{MAN}{page}.1.gz");
            assert!(pages.contains(&("-rw-r--r--", name.as_str())), "{page} in {pages:?}");
        }
        assert!(pages.iter().all(|(_, name)| !name.contains("help")), "{pages:?}");

        for (field, want) in FIELDS {
            assert_eq!(self.dpkg_deb(&["--field", field]).trim(), want, "{field}");
        }
        let depends = self.dpkg_deb(&["--field", "Depends"]);
        for package in ["libc6 ", "libssl3", "iproute2"] {
            assert!(depends.contains(package), "{package} in {depends}");
        }

        let mut lintian = Command::new("lintian");
        lintian.args(["--allow-root", "--fail-on=error,warning", "--tag-display-limit=0"]);
        output(lintian.arg(&self.file)).expect("clean");
    }

    pub fn install(&self, system: &System) -> Result<()> {
        system.take(&self.file, "/tmp/xdp-lb.deb")?;
        system.run("apt-get", &["-qq", "update"])?;
        let install = ["-qq", "install", "--no-install-recommends", "/tmp/xdp-lb.deb"];
        system.run("apt-get", &install)?;
        Ok(())
    }

    pub fn comes_and_goes(&self, debian: &System) {
        let system = debian.try_clone().expect("a copy");
        self.install(&system).expect("installed");
        let version = system.run("xdp-lb", &["--version"]).expect("it runs");
        assert_eq!(version, format!("xdp-lb {}\n", env!("CARGO_PKG_VERSION")));
        let units = ["amphora-agent.service", "xdp-lb-heartbeat-relay.service"];
        for unit in units {
            let state = system.command("systemctl", &["is-enabled", unit]).output();
            let state = state.expect("systemctl").stdout;
            assert_eq!(String::from_utf8_lossy(&state), "disabled\n", "{unit}");
        }
        let complete = "source /usr/share/bash-completion/completions/xdp-lb && complete -p xdp-lb";
        system.run("bash", &["-c", complete]).expect("completions");

        system.run("systemctl", &["enable", units[0], units[1]]).expect("enabled");
        system.run("apt-get", &["-qq", "purge", "xdp-lb"]).expect("purged");
        let rest = ["/", "-xdev", "-regex", ".*\\(xdp-lb\\|amphora\\|octavia\\).*"];
        assert_eq!(system.run("find", &rest).expect("find"), "/tmp/xdp-lb.deb\n");
    }
}
