//! Whether the kernel can run the program, and runs it well.

use std::fs;
use std::path::Path;

use super::{Facts, Finding};
use crate::kernel::mounted;

/// Atomic instructions that return what was there (kernel commit 5ffa25502b5a).
const LOADS: (u32, u32) = (5, 12);
/// The oldest on which it is tried.
const TRIED: (u32, u32) = (5, 15);
/// `NTF_EXT_MANAGED` (kernel commit 7482e3841d52).
const KEEPS_NEIGHBOURS: (u32, u32) = (5, 16);

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Of the first network namespace alone.
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

const NEWER: &str = "an amphora image with a newer kernel: upload it with the tag of [controller_worker] \
                     amp_image_tag, then `openstack loadbalancer failover`";

#[derive(Clone, Debug)]
pub struct Kernel {
    /// `6.1.0-28-amd64`.
    pub release: String,
    pub bpffs: bool,
    pub btf: bool,
    /// `net.core.bpf_jit_enable`; none where it cannot be read, as in another network namespace.
    pub jit: Option<u8>,
}

impl Kernel {
    pub fn look() -> Self {
        let jit = fs::read_to_string(JIT).ok().and_then(|text| text.trim().parse().ok());
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            bpffs: mounted(),
            btf: Path::new(BTF).exists(),
            jit,
        }
    }

    /// Major and minor, 0.0 of a release that is not understood.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(|it: char| !it.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => (0, 0),
        }
    }
}

pub fn version(facts: &Facts) -> Vec<Finding> {
    let release = &facts.kernel.release;
    let found = match facts.kernel.version() {
        version if version < LOADS => {
            let found = format!("{release} does not load the program, which needs 5.12");
            Finding::failure("", found, NEWER)
        }
        version if version < TRIED => {
            Finding::warning("", format!("{release} is older than 5.15, the oldest tried"), NEWER)
        }
        version if version < KEEPS_NEIGHBOURS => {
            let found =
                "before 5.16 the kernel does not keep neighbours fresh; the daemon asks for them";
            Finding::note("", format!("{release}: {found}"))
        }
        _ => Finding::ok("", release.clone()),
    };
    vec![found]
}

pub fn bpffs(facts: &Facts) -> Vec<Finding> {
    vec![if facts.kernel.bpffs {
        Finding::ok("/sys/fs/bpf", "mounted")
    } else {
        let found = "is not a BPF file system: nothing can be pinned, so nothing starts";
        let mend = "`mount -t bpf bpf /sys/fs/bpf`; `ip netns exec` hides it, --netns does not";
        Finding::failure("/sys/fs/bpf", found, mend)
    }]
}

pub fn jit(facts: &Facts) -> Vec<Finding> {
    let name = "net.core.bpf_jit_enable";
    vec![match facts.kernel.jit {
        Some(0) => {
            let found = "0: BPF is interpreted, many times slower, and may be refused";
            Finding::warning(name, found, format!("`sysctl -w {name}=1`"))
        }
        Some(value) => Finding::ok(name, value.to_string()),
        None => Finding::note(name, "not to be seen from this network namespace"),
    }]
}

pub fn btf(facts: &Facts) -> Vec<Finding> {
    vec![if facts.kernel.btf {
        Finding::ok(BTF, "there")
    } else {
        let found = "missing: tools that trace the kernel do without types; the program needs none";
        Finding::note(BTF, found).mended_by("a kernel with CONFIG_DEBUG_INFO_BTF")
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Note, Ok, Warning};
    use super::super::facts::tests::{said, well};
    use super::*;

    #[test]
    fn releases() {
        let rows = [
            ("6.18.5", Ok, "6.18.5"),
            ("6.1.0-28-amd64", Ok, "6.1.0-28-amd64"),
            ("5.16", Ok, "5.16"),
            ("5.15.0-130-generic", Note, "does not keep neighbours"),
            ("5.14.0-503.el9", Warning, "amp_image_tag"),
            ("5.10.0-33-amd64", Failure, "amp_image_tag"),
            ("2.6.78", Failure, "needs 5.12"),
            ("strange", Failure, "needs 5.12"),
        ];
        for (release, level, words) in rows {
            let mut facts = well();
            facts.kernel.release = release.to_owned();
            said(&version(&facts), &[(level, "", words)], release);
        }
    }

    #[test]
    fn files_of_the_kernel() {
        let mut facts = well();
        facts.kernel =
            Kernel { release: "6.18".to_owned(), bpffs: false, btf: false, jit: Some(0) };
        said(&bpffs(&facts), &[(Failure, "/sys/fs/bpf", "mount -t bpf")], "bpffs");
        said(&btf(&facts), &[(Note, BTF, "CONFIG_DEBUG_INFO_BTF")], "btf");
        said(&jit(&facts), &[(Warning, "net.core.bpf_jit_enable", "sysctl -w")], "jit");
        facts.kernel.jit = None;
        said(&jit(&facts), &[(Note, "net.core.bpf_jit_enable", "not to be seen")], "jit");
    }
}
