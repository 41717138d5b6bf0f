//! What the command line tells of itself, for shells and for man(1).

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// The script by which a shell completes `command`.
pub fn completions(shell: Shell, mut command: Command) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// Writes a page of section 1 for `command`, and for each command below it, into a folder that is there.
pub fn pages(command: Command, folder: &Path) -> io::Result<()> {
    // `help` has nothing to tell that the pages do not.
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
}
