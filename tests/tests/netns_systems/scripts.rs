//! All scripts that are shipped, as ShellCheck sees them; the Vagrantfile, as Vagrant does.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use xdp_lb_tests::container::output;

/// Folders all of whose files are scripts.
const FOLDERS: [&str; 6] = [
    "vagrant/provision",
    "xdp-lb/elements/xdp-lb-amphora/environment.d",
    "xdp-lb/elements/xdp-lb-amphora/extra-data.d",
    "xdp-lb/elements/xdp-lb-amphora/install.d",
    "xdp-lb/elements/xdp-lb-amphora/post-install.d",
    "xdp-lb/elements/xdp-lb-amphora/static/var/lib/octavia",
];
const FILES: [&str; 3] = ["xdp-lb/debian/postinst", "xdp-lb/debian/prerm", "xdp-lb/debian/postrm"];

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn netns_shellcheck_has_nothing_to_say() {
    let mut scripts: Vec<_> = FILES.iter().map(|file| workspace().join(file)).collect();
    for folder in FOLDERS {
        let entries = workspace().join(folder).read_dir().expect("a folder");
        scripts.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    output(Command::new("shellcheck").args(scripts)).expect("clean");
}

/// With each kernel; what is no kernel is refused.
#[test]
fn netns_vagrant_takes_its_file() {
    let home = TempDir::new().expect("a folder");
    let validate = |kernel: &str| {
        let mut vagrant = Command::new("vagrant");
        vagrant.arg("validate").current_dir(workspace().join("vagrant"));
        vagrant.env("VAGRANT_HOME", home.path()).env("VAGRANT_DOTFILE_PATH", home.path().join("."));
        vagrant.env("XDP_LB_KERNEL", kernel).env("XDP_LB_GUEST_OFFLOADS", "off");
        vagrant.env("VAGRANT_DEFAULT_PROVIDER", "libvirt");
        output(&mut vagrant).map_err(|error| error.to_string())
    };
    for kernel in ["5.15", "6.1", "6.12"] {
        let told = validate(kernel).expect("valid");
        assert!(told.contains("validated successfully"), "{kernel}: {told}");
    }
    let refused = validate("4.19").expect_err("no kernel of ours");
    assert!(refused.contains("XDP_LB_KERNEL is one of 5.15, 6.1, 6.12"), "{refused}");
}
