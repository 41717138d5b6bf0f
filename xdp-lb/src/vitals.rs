//! How the machine fares, and the versions of what serves on it: the kernel's files and the
//! programs' own words, in the shape of `GET /details` and `GET /info` (Octavia `amphora_info.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, io};

use agent_api::amphora::{Cpu, Disk, Failed, Memory, Traffic, Versions, Vitals};
use nix::sys::statvfs::statvfs;

use crate::child;

/// Octavia wants to be told; there is no ipvsadm here.
const NO_IPVSADM: &str = "none";
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", .path.display())]
    Read { path: &'static Path, error: io::Error },
    #[error("/proc/stat begins with {0:?}")]
    Stat(String),
    #[error("/proc/meminfo has no {0}")]
    Meminfo(&'static str),
    #[error("/proc/loadavg is {0:?}")]
    Loadavg(String),
    #[error("the file system of /: {0}")]
    Disk(io::Error),
    #[error("{}: what it says of its version is not understood: {said:?}", .program.display())]
    Version { program: PathBuf, said: String },
    #[error(transparent)]
    Program(#[from] child::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// Now; the interfaces are the caller's to know.
pub fn now(networks: BTreeMap<String, Traffic>) -> Result<Vitals, Error> {
    let stat = read("/proc/stat")?;
    Ok(Vitals {
        networks,
        cpu_count: cpu_count(&stat),
        cpu: cpu(&stat)?,
        memory: memory(&read("/proc/meminfo")?)?,
        disk: disk()?,
        load: load(&read("/proc/loadavg")?)?,
    })
}

/// From `/proc/stat`: CPUs that are online.
pub fn cpu_count(stat: &str) -> u32 {
    let numbered = |line: &&str| {
        let number = line.strip_prefix("cpu").and_then(|rest| rest.split(' ').next());
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    stat.lines().filter(numbered).map(|_| 1).sum()
}

/// From `/proc/stat`: ticks of all CPUs together, `total` over all columns.
pub fn cpu(stat: &str) -> Result<Cpu, Error> {
    let line = stat.lines().next().unwrap_or_default();
    let parse = || {
        let ticks = line.strip_prefix("cpu ")?;
        let ticks: Option<Vec<u64>> = ticks.split_whitespace().map(|it| it.parse().ok()).collect();
        let ticks = ticks?;
        // user, nice, system, idle, iowait, irq, softirq (proc(5)).
        let column = |at: usize| Some(ticks.get(at)?.to_string());
        let (user, system, soft_irq) = (column(0)?, column(2)?, column(6)?);
        Some(Cpu { total: ticks.iter().sum(), user, system, soft_irq })
    };
    parse().ok_or_else(|| Error::Stat(line.to_owned()))
}

/// Percent of the CPUs that the load of the last minute would take, and of the memory that is not available
/// to new processes.
pub fn utilization() -> Result<(f64, f64), Error> {
    let (stat, meminfo) = (read("/proc/stat")?, read("/proc/meminfo")?);
    let [minute, ..] = load(&read("/proc/loadavg")?)?;
    let cpu = 100.0 * minute.parse().unwrap_or(0.0) / f64::from(cpu_count(&stat).max(1));
    let [total, available] = ["MemTotal", "MemAvailable"].map(|name| kib(&meminfo, name));
    let (total, available) = (total?, available?);
    Ok((cpu, 100.0 * total.saturating_sub(available) as f64 / total.max(1) as f64))
}

fn kib(meminfo: &str, name: &'static str) -> Result<u64, Error> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.and_then(|it| it.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    number.ok_or(Error::Meminfo(name))
}

/// From `/proc/meminfo`, KiB. The swap that is used, where the stock agent gives what of it is
/// cached.
pub fn memory(meminfo: &str) -> Result<Memory, Error> {
    let row = |name| kib(meminfo, name);
    Ok(Memory {
        total: row("MemTotal")?,
        free: row("MemFree")?,
        buffers: row("Buffers")?,
        cached: row("Cached")?,
        swap_used: row("SwapTotal")?.saturating_sub(row("SwapFree")?),
        shared: row("Shmem")?,
        slab: row("Slab")?,
    })
}

/// From `/proc/loadavg`: over 1, 5 and 15 minutes.
pub fn load(loadavg: &str) -> Result<[String; 3], Error> {
    let mut words = loadavg.split_whitespace();
    let mut next = || {
        let word = words.next().filter(|word| word.parse::<f64>().is_ok());
        word.map(str::to_owned).ok_or_else(|| Error::Loadavg(loadavg.trim().to_owned()))
    };
    Ok([next()?, next()?, next()?])
}

/// Of `/`, bytes. What is available is less than what is not used: a part is root's.
fn disk() -> Result<Disk, Error> {
    let of = statvfs("/").map_err(|errno| Error::Disk(errno.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(of.fragment_size());
    let used = of.blocks().saturating_sub(of.blocks_free());
    Ok(Disk { used: bytes(used), available: bytes(of.blocks_available()) })
}

/// Programs, asked for their versions once; as long as one does not answer, each time.
#[derive(Debug)]
pub struct Programs {
    haproxy: PathBuf,
    keepalived: PathBuf,
    haproxy_version: OnceLock<String>,
    keepalived_version: OnceLock<String>,
}

impl Programs {
    pub fn new(haproxy: PathBuf, keepalived: PathBuf) -> Self {
        let (haproxy_version, keepalived_version) = (OnceLock::new(), OnceLock::new());
        Self { haproxy, keepalived, haproxy_version, keepalived_version }
    }

    /// Their versions, and the name of the machine.
    pub fn versions(&self) -> Result<Versions, Error> {
        Ok(Versions {
            hostname: read("/proc/sys/kernel/hostname")?.trim().to_owned(),
            haproxy_version: once(&self.haproxy_version, &self.haproxy, haproxy_version)?,
            keepalived_version: once(
                &self.keepalived_version,
                &self.keepalived,
                keepalived_version,
            )?,
            ipvsadm_version: NO_IPVSADM.to_owned(),
        })
    }
}

fn once(
    cached: &OnceLock<String>,
    program: &Path,
    version: fn(&str) -> Option<&str>,
) -> Result<String, Error> {
    if let Some(version) = cached.get() {
        return Ok(version.clone());
    }
    let said = child::run(None, Command::new(program).arg("-v"), b"", PATIENCE)?;
    let first = || said.lines().next().unwrap_or_default().to_owned();
    let version = version(&said)
        .ok_or_else(|| Error::Version { program: program.to_owned(), said: first() })?;
    Ok(cached.get_or_init(|| version.to_owned()).clone())
}

/// From `HAProxy version 2.6.12-1+deb12u2 2025/04/29 - https://haproxy.org/`, before 2.3
/// `HA-Proxy`. The controller splits it at its dots, and wants two numbers.
pub fn haproxy_version(said: &str) -> Option<&str> {
    let line = said.lines().find(|line| line.starts_with("HA"))?;
    let version = line.split_once(" version ")?.1.split_whitespace().next()?;
    begins_with_numbers(version).then_some(version)
}

/// From `Keepalived v2.2.7 (01/16,2022)`.
pub fn keepalived_version(said: &str) -> Option<&str> {
    let line = said.lines().find_map(|line| line.strip_prefix("Keepalived v"))?;
    let version = line.split_whitespace().next()?;
    begins_with_numbers(version).then_some(version)
}

fn begins_with_numbers(version: &str) -> bool {
    let mut parts = version.split('.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let begins = |part: &str| part.starts_with(|next: char| next.is_ascii_digit());
    parts.next().is_some_and(number) && parts.next().is_some_and(begins)
}

fn read(path: &'static str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| Error::Read { path: Path::new(path), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus() {
        let rows = [
            (
                "cpu  964449 206277 220617 1797934 9177 0 26233 2382 0 0\ncpu0 1 2 3 4 5 6 7\n",
                Ok((3_227_069, "964449", "220617", "26233")),
            ),
            ("cpu  1 2 3 4 5 6 7\n", Ok((28, "1", "3", "7"))),
            ("cpu  1 2 3 4 5 6\n", Err("/proc/stat begins with \"cpu  1 2 3 4 5 6\"")),
            ("cpu  1 2 3 x 5 6 7\n", Err("/proc/stat begins with \"cpu  1 2 3 x 5 6 7\"")),
            ("cpu0 1 2 3 4 5 6 7\n", Err("/proc/stat begins with \"cpu0 1 2 3 4 5 6 7\"")),
            ("", Err("/proc/stat begins with \"\"")),
        ];
        for (text, want) in rows {
            let got = cpu(text).map(|it| (it.total, it.user, it.system, it.soft_irq));
            let want = want.map(|(total, user, system, soft)| {
                (total, user.to_owned(), system.to_owned(), soft.to_owned())
            });
            assert_eq!(got.map_err(|error| error.to_string()), want.map_err(str::to_owned));
        }
    }

    #[test]
    fn counts_of_cpus() {
        let rows = [
            ("cpu  1 2\ncpu0 1 2\ncpu1 1 2\nintr 7\n", 2),
            ("cpu  1 2\ncpu0 1\ncpu12 1\ncpufreq 1\n", 2),
            ("", 0),
        ];
        for (stat, want) in rows {
            assert_eq!(cpu_count(stat), want, "{stat:?}");
        }
    }

    #[test]
    fn memories() {
        let text = "MemTotal:       1004096 kB\nMemFree:         251900 kB\nMemAvailable: 1 kB\n\
                    Buffers:           76204 kB\nCached:          45592 kB\nSwapCached:     3 kB\n\
                    SwapTotal:          1000 kB\nSwapFree:            900 kB\nShmem:  8788 kB\n\
                    Slab:             65196 kB\nHugePages_Total:       0\n";
        let got = memory(text)
            .map(|it| [it.total, it.free, it.buffers, it.cached, it.swap_used, it.shared, it.slab]);
        assert_eq!(got.unwrap(), [1_004_096, 251_900, 76_204, 45_592, 100, 8788, 65_196]);
        for (left_out, with, want) in [
            ("Cached", "cached", "/proc/meminfo has no Cached"),
            ("Slab:             65196 kB", "Slab: x kB", "/proc/meminfo has no Slab"),
        ] {
            let error = memory(&text.replace(left_out, with)).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn loads() {
        let rows = [
            ("2.78 1.57 1.29 8/136 24589\n", Ok(["2.78", "1.57", "1.29"])),
            ("2.78 1.57\n", Err("/proc/loadavg is \"2.78 1.57\"")),
            ("a b c\n", Err("/proc/loadavg is \"a b c\"")),
        ];
        for (text, want) in rows {
            let want = want.map(|it| it.map(str::to_owned)).map_err(str::to_owned);
            assert_eq!(load(text).map_err(|error| error.to_string()), want);
        }
    }

    #[test]
    fn edge_50_versions_of_haproxy() {
        let rows = [
            (
                "HAProxy version 2.6.12-1+deb12u2 2025/04/29 - https://haproxy.org/\nStatus: x\n",
                Some("2.6.12-1+deb12u2"),
            ),
            ("HA-Proxy version 1.8.27-493ce0b 2020/11/06\n", Some("1.8.27-493ce0b")),
            ("HAProxy version 3.1-dev5-1 2024/08/01\n", Some("3.1-dev5-1")),
            ("warning\nHAProxy version 2.4.22 x\n", Some("2.4.22")),
            ("HAProxy version 1:2.6.12 x\n", None),
            ("HAProxy version dev x\n", None),
            ("", None),
        ];
        for (said, want) in rows {
            assert_eq!(haproxy_version(said), want, "{said:?}");
        }
    }

    #[test]
    fn versions_of_keepalived() {
        let rows = [
            ("Keepalived v2.2.7 (01/16,2022)\n\nCopyright(C) 2001\n", Some("2.2.7")),
            ("Keepalived v2.0.10 (11/12,2018)", Some("2.0.10")),
            ("keepalived", None),
        ];
        for (said, want) in rows {
            assert_eq!(keepalived_version(said), want, "{said:?}");
        }
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let programs = Programs::new("/none/haproxy".into(), "/none/keepalived".into());
        let error = programs.versions().unwrap_err();
        assert!(error.to_string().starts_with("/none/haproxy does not start: "), "{error}");
        let programs = Programs::new("/bin/true".into(), "/none/keepalived".into());
        let want = "/bin/true: what it says of its version is not understood: \"\"";
        assert_eq!(programs.versions().unwrap_err().to_string(), want);
    }

    #[test]
    fn of_this_machine() {
        let Vitals { cpu_count, cpu, memory, disk, .. } = now(BTreeMap::new()).unwrap();
        assert!(cpu_count > 0 && cpu.total > 0 && memory.total > memory.free && disk.used > 0);
    }
}
