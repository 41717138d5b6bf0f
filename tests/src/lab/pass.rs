//! The smallest XDP program, for the interface at the other end of a wire that XDP sends into.
//!
//! A veth whose peer has GRO on, but no program, takes what is redirected to it, but is not woken
//! for what comes by `XDP_TX`: the frames count as sent and lie in its ring (`veth_xdp_flush` in
//! `drivers/net/veth.c`; seen on 6.18). With a program both arrive.

use std::ffi::{CString, c_int};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc::{SYS_bpf, syscall};
use nix::net::if_::if_nametoindex;

// From `linux/bpf.h` and `linux/if_link.h`.
const BPF_PROG_LOAD: c_int = 5;
const BPF_OBJ_PIN: c_int = 6;
const BPF_LINK_CREATE: c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_PASS: i32 = 2;
const MOV64_IMMEDIATE: u8 = 0xb7;
const EXIT: u8 = 0x95;

#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
#[repr(C)]
struct Load {
    kind: u32,
    instructions_len: u32,
    instructions: u64,
    license: u64,
}

/// The same for `BPF_LINK_CREATE`.
#[repr(C)]
struct Link {
    program: u32,
    index: u32,
    attach: u32,
    flags: u32,
}

/// The same for `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    path: u64,
    program: u32,
    flags: u32,
}

/// Attaches a native program that passes everything to `dev` of the namespace the thread is in. It
/// stays until the link is closed.
pub fn attach(dev: &str) -> io::Result<OwnedFd> {
    let program = load()?;
    let link = Link {
        program: program.as_raw_fd() as u32,
        index: if_nametoindex(dev)?,
        attach: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: `Link` holds no addresses.
    unsafe { bpf(BPF_LINK_CREATE, &link) }
}

/// Pins the program as a file of a BPF file system, by which `ip link set` attaches it.
pub fn pin(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let program = load()?;
    let pin =
        Pin { path: path.as_ptr().addr() as u64, program: program.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the address is of `path`, which ends in zero and outlives the call; the kernel only
    // reads it, and makes no file descriptor: what it returns is its success alone.
    unsafe { bpf_call(BPF_OBJ_PIN, &pin) }.map(drop)
}

fn load() -> io::Result<OwnedFd> {
    let program = [
        Instruction { code: MOV64_IMMEDIATE, registers: 0, offset: 0, immediate: XDP_PASS },
        Instruction { code: EXIT, registers: 0, offset: 0, immediate: 0 },
    ];
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        instructions_len: program.len() as u32,
        instructions: program.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
    };
    // SAFETY: the two addresses are of `program`, of the length given, and of a literal that ends
    // in zero; the kernel only reads them, and both outlive the call.
    unsafe { bpf(BPF_PROG_LOAD, &load) }
}

/// A `bpf` call that makes a file descriptor.
///
/// # Safety
///
/// `attribute` is laid out as the kernel expects for `command`, and its addresses hold.
unsafe fn bpf<T>(command: c_int, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises.
    let fd = unsafe { bpf_call(command, attribute) }?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A `bpf` call, and what it returns.
///
/// # Safety
///
/// `attribute` is laid out as the kernel expects for `command`, and its addresses hold.
unsafe fn bpf_call<T>(command: c_int, attribute: &T) -> io::Result<c_int> {
    // SAFETY: the kernel reads no more than the size of `attribute`, and what that points to is
    // the caller's promise.
    let made = unsafe { syscall(SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>()) };
    match made {
        0.. => Ok(made as c_int),
        _ => Err(io::Error::last_os_error()),
    }
}
