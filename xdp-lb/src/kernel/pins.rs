//! Where things are pinned: `/sys/fs/bpf/xdp-lb/<name>/`, each map under its own name, the program
//! as `program`, an interface's link as `link_<interface>`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent_api::Name;
use nix::sys::statfs::{FsType, statfs};

const BPFFS: &str = "/sys/fs/bpf";
const BPFFS_MAGIC: FsType = FsType(libc::BPF_FS_MAGIC);
const PROGRAM: &str = "program";
const LINK: &str = "link_";
const STAGES: &str = "STAGES_";
const CAPTURE: &str = "CAPTURE_";

/// The directory of one load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins(PathBuf);

impl Pins {
    pub fn of(name: &Name) -> Self {
        Self(Path::new(BPFFS).join("xdp-lb").join(name.as_str()))
    }

    pub fn directory(&self) -> &Path {
        &self.0
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn program(&self) -> PathBuf {
        self.0.join(PROGRAM)
    }

    /// Name of the stages of one program.
    pub fn stages(program_id: u32) -> String {
        format!("{STAGES}{program_id}")
    }

    /// Name of the stages of a capture's program. Another, for the daemon removes those of the programs
    /// before its own, and may not know that a capture has taken the place of that.
    pub fn capture(program_id: u32) -> String {
        format!("{CAPTURE}{program_id}")
    }

    /// Removes all stages but those of one program.
    pub fn retain_stages(&self, name: &str) -> io::Result<()> {
        self.retain(STAGES, name)
    }

    /// Removes what captures left that were killed, but for the stages of one.
    pub fn retain_capture(&self, name: &str) -> io::Result<()> {
        self.retain(CAPTURE, name)
    }

    fn retain(&self, prefix: &str, name: &str) -> io::Result<()> {
        for file in self.files()?.iter().filter(|file| file.starts_with(prefix) && *file != name) {
            fs::remove_file(self.0.join(file))?;
        }
        Ok(())
    }

    /// bpffs refuses dots, interfaces are often called `eth1.100`, and none has a colon.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.0.join(format!("{LINK}{}", interface.replace('.', ":")))
    }

    pub fn exist(&self) -> bool {
        self.0.is_dir()
    }

    /// The interfaces that have a link.
    pub fn interfaces(&self) -> io::Result<Vec<String>> {
        let interface = |file: &String| Some(file.strip_prefix(LINK)?.replace(':', "."));
        Ok(self.files()?.iter().filter_map(interface).collect())
    }

    /// Creates the directory.
    pub fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)
    }

    /// Removes all that is pinned, links first: from then on no packet meets the program.
    pub fn remove(&self) -> io::Result<()> {
        let (links, rest): (Vec<_>, Vec<_>) =
            self.files()?.into_iter().partition(|file| file.starts_with(LINK));
        for file in links.iter().chain(&rest) {
            fs::remove_file(self.0.join(file))?;
        }
        fs::remove_dir(&self.0)
    }

    fn files(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// Whether there is a BPF file system where everything is pinned. `ip netns exec` hides it.
pub fn mounted() -> bool {
    statfs(BPFFS).is_ok_and(|of| of.filesystem_type() == BPFFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let pins = Pins::of(&Name::try_from("web".to_owned()).unwrap());
        for (interface, want) in [
            ("eth1", "/sys/fs/bpf/xdp-lb/web/link_eth1"),
            ("eth1.100", "/sys/fs/bpf/xdp-lb/web/link_eth1:100"),
        ] {
            assert_eq!(pins.link(interface), Path::new(want));
        }
    }
}
