//! A member that answers ICMP and SCTP by hand.

use std::io;
use std::net::{Shutdown, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use xdp_lb_tests::lab::{Family, Host};

/// Answers each packet of a protocol with those that `answer` makes of it, without IP headers,
/// until dropped.
pub struct Responder {
    /// What came in.
    pub heard: Receiver<Vec<u8>>,
    /// Raw; its calls are the same.
    socket: UdpSocket,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub type Answer = fn(&[u8]) -> Vec<Vec<u8>>;

impl Responder {
    pub fn start(host: &Host, family: Family, protocol: Protocol, answer: Answer) -> Self {
        let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = host.netns.enter(|| Socket::new(domain, Type::RAW, Some(protocol))).unwrap();
        let (socket, stop) = (UdpSocket::from(socket), Arc::new(AtomicBool::new(false)));
        let (tell, heard) = channel();
        let (served, stopped) = (socket.try_clone().unwrap(), stop.clone());
        let serving = move || {
            while !stopped.load(Ordering::SeqCst) {
                // The peer is gone, or the socket shut down.
                let _ = serve(&served, family, answer, &tell);
            }
        };
        let thread = Some(std::thread::spawn(serving));
        Self { heard, socket, stop, thread }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it; the error is that of a socket without a connection.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    socket: &UdpSocket,
    family: Family,
    answer: Answer,
    tell: &Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut packet = [0; 2048];
    let (length, from) = socket.recv_from(&mut packet)?;
    let header = if family == Family::V4 { usize::from(packet[0] & 15) * 4 } else { 0 };
    let message = &packet[header..length.max(header)];
    for reply in answer(message) {
        socket.send_to(&reply, from)?;
    }
    // Whoever started it may not want to know.
    let _ = tell.send(message.to_vec());
    Ok(())
}

/// SCTP's checksum by long division, most significant bit first, of the packet as RFC 9260 has it:
/// each byte's bits turned round, and the remainder's in the end.
pub fn crc32c_by_division(packet: &[u8]) -> u32 {
    let mut remainder: u32 = !0;
    for byte in packet {
        for bit in 0..8 {
            let next = u32::from(byte >> bit & 1);
            let out = remainder >> 31 ^ next;
            remainder = (remainder << 1) ^ if out == 1 { 0x1edc_6f41 } else { 0 };
        }
    }
    !remainder.reverse_bits()
}
