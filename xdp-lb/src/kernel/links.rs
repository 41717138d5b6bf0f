//! The program on interfaces: attached, taken over, replaced under traffic.

use std::fmt;
use std::fs;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use serde::{Deserialize, Serialize};

use super::{Error, Pins};

/// Where on an interface the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's stack, behind the driver.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What [`attach`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The link of an earlier start runs our program now; no packet met neither.
    TakenOver,
    New {
        mode: Mode,
        /// Why it is not native.
        refused: Option<String>,
    },
}

/// Puts the program on an interface, native where the driver can, else generic.
///
/// A link that is pinned for it already is given the program in one step (`bpf_link_update`), unless
/// its interface is gone and the name is another's by now.
pub fn attach(
    program: &mut Xdp,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
) -> Result<Attached, Error> {
    let failed = |error| Error::Attach { interface: interface.to_owned(), error };
    let pin = pins.link(interface);
    if pin.exists() {
        if take_over(program, &pin, ifindex).map_err(failed)? {
            return Ok(Attached::TakenOver);
        }
        remove(&pin)?;
    }
    let (mode, refused, link) = create(program, ifindex).map_err(failed)?;
    let link =
        FdLink::try_from(link).map_err(|_| Error::NoLink { interface: interface.to_owned() })?;
    link.pin(&pin).map_err(|error| Error::Pin { path: pin, error })?;
    Ok(Attached::New { mode, refused })
}

/// Puts a program in the place of whichever runs on an interface that has a link, in one step.
pub fn replace(program: &mut Xdp, pins: &Pins, interface: &str) -> Result<(), Error> {
    let not_ours = |error| Error::Link { interface: interface.to_owned(), error };
    let link = PinnedLink::from_pin(pins.link(interface)).map_err(not_ours)?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(not_ours)?;
    update(program, link).map_err(|error| Error::Attach { interface: interface.to_owned(), error })
}

/// Takes the program off an interface.
pub fn detach(pins: &Pins, interface: &str) -> Result<(), Error> {
    remove(&pins.link(interface))
}

fn remove(pin: &Path) -> Result<(), Error> {
    fs::remove_file(pin).map_err(|error| Error::File { path: pin.into(), error })
}

fn take_over(program: &mut Xdp, pin: &Path, ifindex: u32) -> Result<bool, ProgramError> {
    let Ok(link) = PinnedLink::from_pin(pin).map(FdLink::from) else {
        return Ok(false);
    };
    if link.info().ok().and_then(|info| interface_of(info.id())) != Some(ifindex) {
        return Ok(false);
    }
    let Ok(link) = XdpLink::try_from(link) else {
        return Ok(false);
    };
    update(program, link)?;
    Ok(true)
}

fn update(program: &mut Xdp, link: XdpLink) -> Result<(), ProgramError> {
    let id = program.attach_to_link(link)?;
    // Dropping what is taken closes the descriptor; the pin keeps the link.
    program.take_link(id)?;
    Ok(())
}

/// The interface of one of our open links, as `/proc` tells it: aya reads the rest of the kernel's
/// `bpf_link_info` only.
fn interface_of(link_id: u32) -> Option<u32> {
    let files = fs::read_dir("/proc/self/fdinfo").ok()?;
    let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    texts
        .filter(|text| field(text, "link_id") == Some(link_id))
        .find_map(|text| field(&text, "ifindex"))
}

fn field(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

fn create(
    program: &mut Xdp,
    ifindex: u32,
) -> Result<(Mode, Option<String>, XdpLink), ProgramError> {
    let (mode, refused, id) = match program.attach_to_if_index(ifindex, XdpMode::Driver) {
        Ok(id) => (Mode::Native, None, id),
        Err(error) if another_mode_would_fail_too(&error) => return Err(error),
        Err(error) => {
            let id = program.attach_to_if_index(ifindex, XdpMode::Skb)?;
            (Mode::Generic, Some(why(&error)), id)
        }
    };
    Ok((mode, refused, program.take_link(id)?))
}

fn another_mode_would_fail_too(error: &ProgramError) -> bool {
    // Another program is there; we may not; the interface is gone.
    matches!(errno(error), Some(libc::EBUSY | libc::EPERM | libc::ENODEV))
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(call) => call.io_error.raw_os_error(),
        _ => None,
    }
}

/// The kernel's own words, and what drivers mean by them.
pub fn why(error: &ProgramError) -> String {
    let meant = match errno(error) {
        Some(libc::EBUSY) => "another XDP program is attached",
        Some(libc::EOPNOTSUPP) => {
            "the driver has no native XDP, or an offload is on that it does not bear"
        }
        Some(libc::EINVAL | libc::ERANGE | libc::E2BIG) => "often the MTU, or offloads such as LRO",
        Some(libc::ENOMEM) => "often too few transmit queues",
        _ => return chain(error),
    };
    format!("{}: {meant}", chain(error))
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_fdinfo() {
        let text = "pos:\t0\nlink_type:\txdp\nlink_id:\t7\nprog_id:\t31\nifindex:\t12\n";
        for (name, want) in [("link_id", Some(7)), ("ifindex", Some(12)), ("link", None)] {
            assert_eq!(field(text, name), want, "{name}");
        }
    }
}
