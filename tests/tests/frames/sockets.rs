//! Real sockets for the rows that ask for one, in the network namespace of this thread, where every
//! address of the table is local.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::frames::world::{Flow, Held};

/// Makes every address of the table local to this network namespace.
pub fn own_all_addresses() {
    for command in [
        "link set lo up",
        "-4 route add local 198.51.0.0/16 dev lo",
        "-6 route add local 2001:db8::/32 dev lo",
    ] {
        let done = Command::new("ip").args(command.split(' ')).status();
        assert!(done.is_ok_and(|status| status.success()), "ip {command}");
    }
}

/// The sockets of a connection: it ends with them, and at once.
pub fn open(flow: &Flow, held: Held) -> Vec<Socket> {
    let vip = SocketAddr::new(flow.family.vip(flow.vip), flow.port);
    let client = SocketAddr::new(flow.client, flow.sport);
    match held {
        Held::Listening => vec![listening(vip)],
        Held::Requested => {
            let (listener, asking) = (listening(vip), bound(client));
            wait_for_data(&listener);
            asking.connect(&vip.into()).expect("a SYN+ACK");
            vec![listener, asking]
        }
        Held::Established => connected(vip, client).into(),
        Held::Finished => {
            let [mut ours, mut clients] = connected(vip, client);
            for socket in [&ours, &clients] {
                socket.set_linger(None).expect("SO_LINGER");
            }
            for (from, to) in [(0, 1), (1, 0)] {
                let ends = [&mut ours, &mut clients];
                ends[from].shutdown(Shutdown::Write).expect("a FIN");
                assert_eq!(ends[to].read(&mut [0]).expect("an end"), 0);
            }
            vec![ours, clients]
        }
        Held::Asking => {
            // Its queue is full with one connection: the next SYN is dropped.
            let listener = listening(client);
            listener.listen(0).expect("a shorter queue");
            let first = bound(SocketAddr::new(vip.ip(), 0));
            first.connect(&client.into()).expect("a SYN+ACK");
            let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut waiting, PollTimeout::from(5000_u16)), Ok(1));
            let asking = bound(vip);
            asking.set_nonblocking(true).expect("O_NONBLOCK");
            let error = asking.connect(&client.into()).expect_err("no SYN+ACK");
            assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
            assert_eq!(
                asking.peer_addr().expect_err("no peer yet").kind(),
                ErrorKind::NotConnected
            );
            vec![listener, first, asking]
        }
    }
}

/// The listener's end, and the client's.
fn connected(vip: SocketAddr, client: SocketAddr) -> [Socket; 2] {
    let (listener, clients) = (listening(vip), bound(client));
    clients.connect(&vip.into()).expect("a connection");
    let (ours, _) = listener.accept().expect("the same");
    at_once(&ours);
    [ours, clients]
}

fn listening(at: SocketAddr) -> Socket {
    let socket = bound(at);
    socket.listen(8).expect("a listener");
    socket
}

fn bound(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    // No interface has the address. That a route says it is ours is not enough for IPv6.
    if to.is_ipv6() {
        socket.set_freebind_v6(true).expect("IPV6_FREEBIND");
    }
    at_once(&socket);
    socket.bind(&to.into()).unwrap_or_else(|error| panic!("{to}: {error}"));
    socket
}

/// Nothing stays of the connection when it is closed, no TIME_WAIT either.
fn at_once(socket: &Socket) {
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Lets new connections stay requests until data comes, not just an ACK (tcp(7), TCP_DEFER_ACCEPT).
fn wait_for_data(listener: &Socket) {
    let seconds: libc::c_int = 60;
    // SAFETY: the option is an int, and the kernel reads it before this returns.
    let done = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "TCP_DEFER_ACCEPT: {}", std::io::Error::last_os_error());
}
