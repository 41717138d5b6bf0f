//! Debian's archive, asked for kernels: all releases of it at once, by apt with lists of its own, so that
//! the machine's stay as they are.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::modules;
use crate::programs::output;

/// In place of a version: the newest kernel there is.
pub const NEWEST: &str = "newest";

/// What of the archive has kernels, by the label of its part: the releases since Debian 11, with
/// backports, where several new series are at any time.
const SUITES: [(&str, &[&str]); 2] = [
    ("Debian", &["bookworm", "trixie", "trixie-backports"]),
    ("Debian-Security", &["bullseye-security", "bookworm-security", "trixie-security"]),
];

/// The kernels made for virtual machines: smaller, with all that these need.
const FLAVOUR: &str = "-cloud-amd64";
const PACKAGE: &str = "linux-image-";

/// What a kernel's release follows in the names of its packages. All is in the first; since 7.0 that only
/// depends on the others.
const PARTS: [&str; 4] = [PACKAGE, "linux-binary-", "linux-base-", "linux-modules-"];

/// Lists older than that are fetched again.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// `apt-get` and its lists in one folder.
pub struct Archive {
    directory: PathBuf,
    packages: Vec<String>,
}

/// A kernel as qemu wants it.
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    pub image: PathBuf,
    /// In the order in which they are to be loaded.
    pub modules: Vec<PathBuf>,
}

impl Archive {
    /// Fetches the lists of packages where they are old, or lack one of `versions`.
    pub fn open(directory: &Path, versions: &[String]) -> Result<Self> {
        let mut archive = Self { directory: directory.to_owned(), packages: Vec::new() };
        if !archive.is_fresh() {
            archive.update()?;
        }
        archive.packages = archive.list()?;
        if versions.iter().any(|version| archive.newest(version).is_err()) {
            archive.update()?;
            archive.packages = archive.list()?;
        }
        Ok(archive)
    }

    /// The newest package of a version: `6.1`, `6.18.12`.
    pub fn newest(&self, version: &str) -> Result<String> {
        let found = newest(&self.packages, version);
        found.with_context(|| format!("no {PACKAGE}{version}*{FLAVOUR} in Debian's archive"))
    }

    /// A kernel unpacked, from its package if it is not there yet.
    pub fn kernel(&self, package: &str) -> Result<Kernel> {
        let release = package.strip_prefix(PACKAGE).context("a kernel's package")?.to_owned();
        let kept = self.directory.join("kernels").join(&release);
        if !kept.exists() {
            self.unpack(&release, &kept)?;
        }
        Ok(Kernel {
            release,
            image: kept.join("vmlinuz"),
            modules: modules::kept(&kept.join("modules"))?,
        })
    }

    /// Keeps the kernel itself and the modules that are needed; appears in one step.
    fn unpack(&self, release: &str, kept: &Path) -> Result<()> {
        let parts = PARTS.map(|part| format!("{part}{release}"));
        let parts = parts.iter().filter(|part| self.packages.contains(part));
        let kernels = self.directory.join("kernels");
        fs::create_dir_all(&kernels)?;
        let scratch = tempfile::tempdir_in(&kernels)?;
        let (tree, made) = (scratch.path().join("tree"), scratch.path().join("made"));
        for part in parts {
            eprintln!("fetching {part}");
            let folder = scratch.path().join(part);
            fs::create_dir(&folder)?;
            output(self.apt("apt-get")?.args(["download", part]).current_dir(&folder))?;
            let deb = fs::read_dir(&folder)?.next().context("apt-get downloaded nothing")??;
            output(Command::new("dpkg-deb").arg("--extract").arg(deb.path()).arg(&tree))?;
        }
        fs::create_dir(&made)?;
        let images =
            [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
        let image = images.iter().map(|image| tree.join(image)).find(|image| image.exists());
        fs::copy(image.context("no vmlinuz in its packages")?, made.join("vmlinuz"))?;
        modules::keep(&tree, release, &made.join("modules"))?;
        fs::rename(made, kept)?;
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        let stamp = fs::metadata(self.sources()).and_then(|file| file.modified());
        stamp.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FRESH))
    }

    /// Where the machine's own lists come from, there are the other releases' as well.
    fn update(&self) -> Result<()> {
        eprintln!("fetching the lists of Debian's kernels");
        let targets = ["indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"];
        let targets = output(Command::new("apt-get").args(targets))?;
        let mut lines = String::new();
        for (label, suites) in SUITES {
            let mut repositories = targets.lines().filter_map(|line| line.split_once(' '));
            let Some((uri, _)) = repositories.find(|(_, of)| *of == label) else { continue };
            for suite in suites {
                lines += &format!("deb [arch=amd64] {uri} {suite} main\n");
            }
        }
        ensure!(
            !lines.is_empty(),
            "apt-get knows no part of Debian's archive: see sources.list(5)"
        );
        let apt = self.apt("apt-get")?;
        fs::write(self.sources(), lines)?;
        let updated = output({ apt }.args(["--quiet", "update"]));
        if updated.is_err() {
            // Not fresh, so that it is tried again.
            fs::remove_file(self.sources())?;
        }
        updated.map(drop)
    }

    fn list(&self) -> Result<Vec<String>> {
        let names = output(self.apt("apt-cache")?.args(["pkgnames", "linux-"]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn sources(&self) -> PathBuf {
        self.directory.join("apt/sources.list")
    }

    /// `apt-get` or `apt-cache` on these lists alone.
    fn apt(&self, program: &str) -> Result<Command> {
        let apt = self.directory.join("apt");
        fs::create_dir_all(apt.join("lists/partial"))?;
        fs::create_dir_all(apt.join("cache/archives/partial"))?;
        let mut command = Command::new(program);
        let set = |name: &str, value: &str| format!("--option={name}={value}");
        command
            .arg(set("Dir::Etc::sourcelist", &self.sources().to_string_lossy()))
            .arg(set("Dir::Etc::sourceparts", "/dev/null"))
            .arg(set("Dir::State::lists", &apt.join("lists").to_string_lossy()))
            .arg(set("Dir::Cache", &apt.join("cache").to_string_lossy()))
            // Files in folders that only root may enter.
            .arg(set("APT::Sandbox::User", "root"))
            .arg(set("Acquire::Languages", "none"))
            .arg(set("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"));
        Ok(command)
    }
}

fn newest(packages: &[String], version: &str) -> Option<String> {
    let is_of = |release: &str| {
        let rest = if version == NEWEST { Some("") } else { release.strip_prefix(version) };
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    let is_candidate = |package: &&String| {
        package.strip_prefix(PACKAGE).and_then(|it| it.strip_suffix(FLAVOUR)).is_some_and(
            // Without a digit it is a package that only depends on another.
            |release| is_of(release) && release.split('.').count() > 2 && !release.contains("~rc"),
        )
    };
    packages.iter().filter(is_candidate).max_by(|a, b| by_numbers(a, b)).cloned()
}

/// Numbers by what they say, the rest by its letters: 6.9 is before 6.12.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let words = |text: &str| {
        let mut words = vec![(String::new(), None::<u64>)];
        for letter in text.chars() {
            match (letter.to_digit(10), words.last_mut()) {
                (Some(digit), Some((_, number))) => {
                    *number = Some(number.unwrap_or(0).saturating_mul(10) + u64::from(digit));
                }
                (None, Some((letters, None))) => letters.push(letter),
                _ => words.push((letter.to_string(), None)),
            }
        }
        words
    };
    words(a).cmp(&words(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_version() {
        let packages = [
            "linux-image-cloud-amd64",
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-51-amd64",
            "linux-image-6.12.99+deb13-cloud-amd64",
            "linux-image-6.12.118+deb13-cloud-amd64",
            "linux-image-7.2.13+deb14-cloud-amd64",
            "linux-image-7.10.1+deb14-cloud-amd64",
            "linux-image-7.11~rc3-cloud-amd64",
        ];
        let packages = packages.map(str::to_owned);
        for (version, want) in [
            ("6.1", Some("linux-image-6.1.0-50-cloud-amd64")),
            ("6.12", Some("linux-image-6.12.118+deb13-cloud-amd64")),
            ("6.12.99", Some("linux-image-6.12.99+deb13-cloud-amd64")),
            ("5.15", None),
            (NEWEST, Some("linux-image-7.10.1+deb14-cloud-amd64")),
        ] {
            assert_eq!(newest(&packages, version).as_deref(), want, "{version}");
        }
    }
}
