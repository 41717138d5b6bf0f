//! The commands that the tasks call, and the Debian packages that bring them.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::{packages, process, releases, vm};

/// What a command is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    Test,
    Demo,
    Bench,
    Octavia,
    Vm,
}
use Purpose::{Bench, Demo, Octavia, Test, Vm};

#[derive(Args, Default)]
pub struct Options {
    /// What to set up for; everything when none is named
    #[arg(value_enum)]
    pub purposes: Vec<Purpose>,
}

struct Tool {
    command: &'static str,
    package: &'static str,
    purposes: &'static [Purpose],
}

const TOOLS: [Tool; 22] = [
    tool("ip", "iproute2", &[Test, Demo, Bench, Octavia, Vm]),
    tool("ethtool", "ethtool", &[Test, Demo, Bench, Octavia]),
    tool("bpftool", "bpftool", &[Test, Demo, Bench, Octavia]),
    tool("nft", "nftables", &[Test, Demo, Bench, Octavia]),
    tool("haproxy", "haproxy", &[Test, Demo, Bench, Octavia]),
    tool("keepalived", "keepalived", &[Test, Octavia]),
    tool("openssl", "openssl", &[Test, Octavia]),
    tool("systemctl", "systemd", &[Test, Octavia]),
    tool("mariadbd", "mariadb-server", &[Test, Octavia]),
    tool("rsyslogd", "rsyslog", &[Test, Octavia]),
    tool("ping", "iputils-ping", &[Test, Demo, Octavia]),
    tool("debootstrap", "debootstrap", &[Test]),
    tool("lintian", "lintian", &[Test]),
    tool("shellcheck", "shellcheck", &[Test]),
    // With the provider whose options the Vagrantfile has.
    tool("vagrant", "vagrant-libvirt", &[Test]),
    tool("ipvsadm", "ipvsadm", &[Octavia]),
    tool("curl", "curl", &[Demo, Octavia]),
    tool("tcpdump", "tcpdump", &[Demo, Octavia]),
    tool("iperf3", "iperf3", &[Bench]),
    tool("qemu-system-x86_64", "qemu-system-x86", &[Vm]),
    tool("depmod", "kmod", &[Vm]),
    tool("xz", "xz-utils", &[Vm]),
];

pub fn run(options: &Options) -> Result<()> {
    let purposes = match options.purposes.as_slice() {
        [] => Purpose::value_variants(),
        named => named,
    };
    if purposes.contains(&Vm) {
        vm::install_qemu()?;
    }
    install_missing(purposes)?;
    libraries()?;
    if purposes.iter().any(|purpose| [Test, Octavia].contains(purpose)) {
        releases::install()?;
    }
    mount_bpf()
}

/// The C library that the control program is built with, OpenSSL, and what finds it.
pub fn libraries() -> Result<()> {
    if has_openssl() {
        return Ok(());
    }
    packages::install(&["libssl-dev", "pkg-config"]).context("OpenSSL's headers are missing")?;
    ensure!(has_openssl(), "OpenSSL's headers are still missing after apt-get install");
    Ok(())
}

fn has_openssl() -> bool {
    // openssl-sys takes 1.1.1 too; with 3 the amphora's system has it in any case.
    let mut find = Command::new("pkg-config");
    find.args(["--atleast-version=3", "openssl"]);
    process::find("pkg-config").is_some() && find.status().is_ok_and(|status| status.success())
}

const fn tool(command: &'static str, package: &'static str, purposes: &'static [Purpose]) -> Tool {
    Tool { command, package, purposes }
}

fn install_missing(purposes: &[Purpose]) -> Result<()> {
    let missing = missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    let commands: Vec<_> = missing.iter().map(|tool| tool.command).collect();
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages::install(&packages)
        .with_context(|| format!("these commands are missing: {}", commands.join(" ")))?;

    let missing: Vec<_> = self::missing(purposes).iter().map(|tool| tool.command).collect();
    ensure!(missing.is_empty(), "still missing after apt-get install: {}", missing.join(" "));
    Ok(())
}

fn missing(purposes: &[Purpose]) -> Vec<&'static Tool> {
    wanted(purposes).filter(|tool| process::find(tool.command).is_none()).collect()
}

fn wanted(purposes: &[Purpose]) -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().filter(|tool| tool.purposes.iter().any(|purpose| purposes.contains(purpose)))
}

/// Pinned maps and programs live there; a container often starts without it.
fn mount_bpf() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    if is_bpf_mounted(&mounts) {
        return Ok(());
    }
    if !process::is_root() {
        bail!("/sys/fs/bpf is not mounted: run `mount -t bpf bpf /sys/fs/bpf` as root");
    }
    process::step("mounting /sys/fs/bpf");
    process::run(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
}

/// From lines `device folder type options 0 0` (proc(5)).
fn is_bpf_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next(), words.next()) == (Some("/sys/fs/bpf"), Some("bpf"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_its_tools() {
        let rows: [(&str, &[Purpose], &[&str]); 3] = [
            (
                "test",
                &[Test],
                &[
                    "ip",
                    "ethtool",
                    "bpftool",
                    "nft",
                    "haproxy",
                    "keepalived",
                    "openssl",
                    "systemctl",
                    "mariadbd",
                    "rsyslogd",
                    "ping",
                    "debootstrap",
                    "lintian",
                    "shellcheck",
                    "vagrant",
                ],
            ),
            ("bench", &[Bench], &["ip", "ethtool", "bpftool", "nft", "haproxy", "iperf3"]),
            ("none", &[], &[]),
        ];
        for (name, purposes, want) in rows {
            let commands: Vec<_> = wanted(purposes).map(|tool| tool.command).collect();
            assert_eq!(commands, want, "{name}");
        }
    }

    #[test]
    fn sees_the_bpf_mount() {
        let rows = [
            ("mounted", "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0", true),
            ("elsewhere", "bpf /run/bpf bpf rw,relatime 0 0", false),
            ("covered", "tmpfs /sys/fs/bpf tmpfs rw 0 0", false),
        ];
        for (name, mounts, want) in rows {
            assert_eq!(is_bpf_mounted(mounts), want, "{name}");
        }
    }
}
