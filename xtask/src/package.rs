//! The Debian package: a staged tree, made into `xdp-lb_<version>_<architecture>.deb`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fs, process::Command};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{build_ebpf, packages, process, setup};

#[derive(Args, Default)]
pub struct Options {
    /// Pack this binary, instead of building one as amphorae get it, which takes minutes
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Folder of the package [default: target]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

const DOC: &str = "usr/share/doc/xdp-lb";
const MAN: &str = "usr/share/man/man1";
const DEBIAN: &str = "xdp-lb/debian";

/// Where files of the workspace lie in the package; all of them are 0644.
const FILES: [(&str, &str); 11] = [
    ("xdp-lb/systemd/amphora-agent.service", "usr/lib/systemd/system/amphora-agent.service"),
    ("xdp-lb/systemd/amphora-netns.service", "usr/lib/systemd/system/amphora-netns.service"),
    (
        "xdp-lb/systemd/var-lib-octavia-certs.mount",
        "usr/lib/systemd/system/var-lib-octavia-certs.mount",
    ),
    (
        "xdp-lb/systemd/xdp-lb-heartbeat-relay.service",
        "usr/lib/systemd/system/xdp-lb-heartbeat-relay.service",
    ),
    ("xdp-lb/systemd/90-xdp-lb.conf", "usr/lib/sysctl.d/90-xdp-lb.conf"),
    ("xdp-lb/systemd/xdp-lb.example.conf", "usr/share/doc/xdp-lb/examples/xdp-lb.conf"),
    ("lb.example.toml", "usr/share/doc/xdp-lb/examples/lb.toml"),
    ("README.md", "usr/share/doc/xdp-lb/README.md"),
    ("xdp-lb/elements/README.md", "usr/share/doc/xdp-lb/amphora-image.md"),
    ("xdp-lb/debian/copyright", "usr/share/doc/xdp-lb/copyright"),
    ("xdp-lb/debian/changelog", "usr/share/doc/xdp-lb/changelog"),
];

/// What Debian wants to be compressed, of the above.
const COMPRESSED: [&str; 3] = ["README.md", "amphora-image.md", "changelog"];

/// What `xdp-lb completions` calls a shell, and where that shell looks.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/xdp-lb"),
    ("zsh", "usr/share/zsh/vendor-completions/_xdp-lb"),
    ("fish", "usr/share/fish/vendor_completions.d/xdp-lb.fish"),
];

/// Run by dpkg; 0755.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

pub fn run(options: &Options) -> Result<()> {
    make(options).map(|_| ())
}

/// Returns the package.
pub fn make(options: &Options) -> Result<PathBuf> {
    if process::find("dpkg-shlibdeps").is_none() {
        packages::install(&["dpkg-dev"])?;
    }
    let changes = Changes::read()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let out = options.out.clone().unwrap_or_else(|| process::workspace().join("target"));
    let stage = out.join("xdp-lb-package");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| stage.display().to_string())?;
    }
    stage_files(&stage, &binary)?;
    let architecture = process::output(Command::new("dpkg").arg("--print-architecture"))?;
    stage_control(&stage, &changes, &architecture)?;

    let package = out.join(format!("xdp-lb_{}_{architecture}.deb", changes.version));
    // The same tree becomes the same package, to the byte: no file is younger than the last change.
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.env("SOURCE_DATE_EPOCH", &changes.timestamp);
    dpkg.args(["--root-owner-group", "-Zxz", "--build"]).arg(&stage).arg(&package);
    process::output(&mut dpkg)?;
    fs::remove_dir_all(&stage).with_context(|| stage.display().to_string())?;
    let bytes = fs::metadata(&package).with_context(|| package.display().to_string())?.len();
    process::step(format!("{} has {} KiB", package.display(), bytes.div_ceil(1024)));
    Ok(package)
}

/// The last entry of the package's list of changes.
struct Changes {
    version: String,
    /// Seconds since 1970.
    timestamp: String,
}

impl Changes {
    fn read() -> Result<Self> {
        let file = process::workspace().join(DEBIAN).join("changelog");
        let field = |name: &str| {
            let mut parse = Command::new("dpkg-parsechangelog");
            process::output(parse.arg("--file").arg(&file).args(["--show-field", name]))
        };
        let changes = Self { version: field("Version")?, timestamp: field("Timestamp")? };
        ensure!(
            changes.version == env!("CARGO_PKG_VERSION"),
            "the last entry of {} is of {}, and this is {}",
            file.display(),
            changes.version,
            env!("CARGO_PKG_VERSION")
        );
        Ok(changes)
    }
}

fn build() -> Result<PathBuf> {
    setup::libraries()?;
    build_ebpf::run(&build_ebpf::Options::default())?;
    process::step("building xdp-lb as amphorae get it: four minutes on two processors");
    let build = ["build", "--quiet", "--profile=dist", "--package=xdp-lb", "--bin=xdp-lb"];
    process::run(process::cargo().args(build))?;
    Ok(process::workspace().join("target/dist/xdp-lb"))
}

fn stage_files(stage: &Path, binary: &Path) -> Result<()> {
    let installed = stage.join("usr/bin/xdp-lb");
    copy(binary, &installed, 0o755)?;
    process::run(Command::new("strip").args(["-R.comment", "-R.note"]).arg(&installed))?;

    for (from, to) in FILES {
        copy(&process::workspace().join(from), &stage.join(to), 0o644)?;
    }
    for (shell, to) in COMPLETIONS {
        let script = process::output(Command::new(binary).args(["completions", shell]))?;
        write(&stage.join(to), &format!("{script}\n"), 0o644)?;
    }
    let man = stage.join(MAN);
    process::run(Command::new(binary).arg("man").arg(&man))?;

    let pages = fs::read_dir(&man).with_context(|| man.display().to_string())?;
    let pages: Vec<_> = pages.map(|page| page.map(|page| page.path())).collect::<Result<_, _>>()?;
    for page in &pages {
        permit(page, 0o644)?;
    }
    let docs = COMPRESSED.iter().map(|name| stage.join(DOC).join(name));
    process::run(Command::new("gzip").args(["--best", "--no-name"]).args(pages).args(docs))
}

fn stage_control(stage: &Path, changes: &Changes, architecture: &str) -> Result<()> {
    let debian = process::workspace().join(DEBIAN);
    let text = fs::read_to_string(debian.join("control")).context("the control file")?;
    let values = [
        ("VERSION", changes.version.clone()),
        ("ARCHITECTURE", architecture.to_owned()),
        ("LIBRARIES", libraries(&stage.join("usr/bin/xdp-lb"))?),
        ("KIBIBYTES", kibibytes(stage)?.to_string()),
    ];
    write(&stage.join("DEBIAN/control"), &filled(&text, &values)?, 0o644)?;
    for script in SCRIPTS {
        copy(&debian.join(script), &stage.join("DEBIAN").join(script), 0o755)?;
    }
    let sums = sums(stage)?;
    write(&stage.join("DEBIAN/md5sums"), &sums, 0o644)
}

/// Each `@NAME@` replaced by its value.
fn filled(text: &str, values: &[(&str, String)]) -> Result<String> {
    let mut filled = text.to_owned();
    for (name, value) in values {
        let mark = format!("@{name}@");
        ensure!(filled.contains(&mark), "the control file has no {mark}");
        filled = filled.replace(&mark, value);
    }
    Ok(filled)
}

/// The packages with the shared libraries of a binary, and the versions it needs, as `Depends` has them.
fn libraries(binary: &Path) -> Result<String> {
    // It wants a source package around it; an empty one does.
    let source = binary.with_file_name("source");
    write(
        &source.join("debian/control"),
        "Source: xdp-lb\n\nPackage: xdp-lb\nArchitecture: any\n",
        0o644,
    )?;
    let mut shlibdeps = Command::new("dpkg-shlibdeps");
    shlibdeps.current_dir(&source).args(["-O", "-e../xdp-lb"]);
    let printed = process::output(&mut shlibdeps)?;
    fs::remove_dir_all(&source).with_context(|| source.display().to_string())?;
    match printed.strip_prefix("shlibs:Depends=") {
        Some(packages) => Ok(packages.to_owned()),
        None => bail!("dpkg-shlibdeps printed {printed:?}"),
    }
}

/// `Installed-Size`: each file in whole KiB, and one for each folder.
fn kibibytes(stage: &Path) -> Result<u64> {
    let mut sum = 0;
    for (path, metadata) in below(stage)? {
        if !path.starts_with(stage.join("DEBIAN")) {
            sum += if metadata.is_dir() { 1 } else { metadata.len().div_ceil(1024) };
        }
    }
    Ok(sum)
}

fn sums(stage: &Path) -> Result<String> {
    let files = below(&stage.join("usr"))?.into_iter().filter(|(_, metadata)| metadata.is_file());
    let names: Vec<_> = files
        .map(|(path, _)| path.strip_prefix(stage).map(Path::to_owned))
        .collect::<Result<_, _>>()?;
    let printed = process::output(Command::new("md5sum").current_dir(stage).args(names))?;
    Ok(printed + "\n")
}

/// All files and folders below a folder, in the order of their names.
fn below(folder: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let metadata = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        let is_dir = metadata.is_dir();
        found.push((path.clone(), metadata));
        if is_dir {
            found.extend(below(&path)?);
        }
    }
    Ok(found)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    make_folder_of(to)?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    permit(to, mode)
}

fn write(to: &Path, text: &str, mode: u32) -> Result<()> {
    make_folder_of(to)?;
    fs::write(to, text).with_context(|| to.display().to_string())?;
    permit(to, mode)
}

fn make_folder_of(file: &Path) -> Result<()> {
    let folder = file.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

fn permit(path: &Path, mode: u32) -> Result<()> {
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_filled() {
        let rows = [
            ("one", "Version: @A@\n", vec![("A", "1".into())], Ok("Version: 1\n")),
            ("twice", "@A@ @A@", vec![("A", "x".into())], Ok("x x")),
            ("none", "Version: 1", vec![("A", "x".into())], Err("the control file has no @A@")),
        ];
        for (name, text, values, want) in rows {
            let got = filled(text, &values).map_err(|error| error.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{name}");
        }
    }

    #[test]
    fn what_is_packed_is_there() {
        for (from, to) in FILES {
            assert!(process::workspace().join(from).is_file(), "{from}");
            assert!(!to.starts_with('/'), "{to}");
        }
        let is_packed = |name: &str| FILES.iter().any(|(_, to)| *to == format!("{DOC}/{name}"));
        assert!(COMPRESSED.iter().all(|name| is_packed(name)), "{COMPRESSED:?}");
    }
}
