//! A load balancer's container, looked into from outside.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::api;
use super::stack::Stack;
use crate::container;

/// Of the agent's processes, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is resident.
    pub rss: u64,
    /// The share of it that is theirs.
    pub pss: u64,
    /// What has neither a file nor a map behind it.
    pub own: u64,
}

pub struct Amphora<'a> {
    pub id: String,
    pub role: String,
    /// On the management network.
    pub address: String,
    stack: &'a Stack,
}

impl<'a> Amphora<'a> {
    /// From what the API tells of it.
    pub fn of(stack: &'a Stack, told: &Value) -> Result<Self> {
        Ok(Self {
            id: api::text(told, "id")?,
            role: api::text(told, "role")?,
            address: api::text(told, "lb_network_ip")?,
            stack,
        })
    }

    fn cgroup(&self) -> PathBuf {
        self.stack.amphora_cgroup(&self.id)
    }

    /// Runs a command inside that must succeed; what it prints.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        container::output(&mut container::inside(
            self.stack.amphora_pid(&self.id)?,
            program,
            arguments,
        ))
    }

    /// The machine is gone, from one moment to the next.
    pub fn kill(&self) -> Result<()> {
        let kill = self.cgroup().join("cgroup.kill");
        fs::write(&kill, "1").with_context(|| kill.display().to_string())
    }

    /// What `ip link` tells of the namespace that traffic goes through.
    pub fn links(&self) -> Result<String> {
        self.run("ip", &["-netns", "amphora-haproxy", "link", "show"])
    }

    pub fn memory(&self) -> Result<Memory> {
        let procs = self.cgroup().join("system.slice/amphora-agent.service/cgroup.procs");
        let pids = fs::read_to_string(&procs).with_context(|| procs.display().to_string())?;
        let mut memory = Memory::default();
        for pid in pids.lines() {
            let program = fs::read_to_string(format!("/proc/{pid}/comm"))?;
            // They are in the unit of the agent that started them, or in one of their own.
            if ["haproxy", "keepalived"].contains(&program.trim()) {
                continue;
            }
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            memory.rss += kib(&rollup, "Rss:");
            memory.pss += kib(&rollup, "Pss:");
            memory.own += kib(&rollup, "Anonymous:");
        }
        Ok(memory)
    }
}

fn kib(rollup: &str, key: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
