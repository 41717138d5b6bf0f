//! The tenant's log of finished connections: the same lines as HAProxy's.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use serde_json::json;
use xdp_lb_tests::agent::{Agent, Options};
use xdp_lb_tests::clients::{download, upload};
use xdp_lb_tests::lab::FAMILIES;
use xdp_lb_tests::uploads::{LOAD_BALANCER, Speaks, uuid};

use super::world::{TCP, engine, frontend, haproxy, lab, port, servers};

/// For a line: a connection that is over is met by the next pass over the table.
const PATIENCE: Duration = Duration::from_secs(30);
/// As Octavia uploads it for a listener of TCP.
const FORMAT: &str = r"    log-format 92ff808fbb7e520983fb729ee4f1a5ea\ 40c52c12-68e1-5926-83e7-88107bce47cb\ %f\ %ci\ %cp\ %t\ -\ -\ %B\ %U\ %[ssl_c_verify]\ %{+Q}[ssl_c_s_dn]\ %b\ %s\ %Tt\ %tsc
";

/// By which the texts of two addresses may differ.
const ADDRESS_LENGTHS: u64 = 16;
/// Of a connection in each family, downloads and uploads.
const BYTES: [u64; 3] = [1, 1000, 3 << 20];

/// Of the same connections by one engine, sorted, the lines without what differs: the client's port, the
/// times, the member that has its turn; and the bytes. Those of a response name who asked the member, and of
/// a segment that is sent again only we know.
fn lines(options: Options, by: &str) -> Vec<(String, [u64; 2])> {
    let lab = lab();
    let _servers = servers(&lab);
    let mut agent = Agent::prepare(&lab, &lab.amphora, options).expect("an agent");
    let path = agent.folder().join("rsyslog/log");
    fs::create_dir(agent.folder().join("rsyslog")).expect("made");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    // HAProxy is nobody by then.
    fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("its permissions");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    agent.write_certificates().expect("written");
    agent.write_config().expect("written");
    agent.run().expect("it runs");
    agent.plug_vip(json!({})).expect("plugged");
    let config = haproxy(&agent, &[frontend(&lab, TCP, Speaks::Tcp)]);
    let config = config
        .replace("    timeout client 50000\n", &("    timeout client 50000\n".to_owned() + FORMAT));
    agent.serve(LOAD_BALANCER, &config).expect("served");
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some(by));

    // Read while they come: the socket holds ten, and HAProxy loses what is more.
    let reading = thread::spawn(move || {
        let mut lines = Vec::new();
        while lines.len() < 2 * FAMILIES.len() * BYTES.len() {
            let mut datagram = [0; 2048];
            let Ok(length) = socket.recv(&mut datagram) else { break };
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            // HAProxy's own words come by the other facility.
            if text.starts_with("<134>") {
                lines.push(without_chance(&text));
            }
        }
        lines
    });
    lab.client.netns.enter(|| {
        for family in FAMILIES {
            for bytes in BYTES {
                download(lab.vip(family, port(TCP)), bytes).expect("a response");
                upload(lab.vip(family, port(TCP)), bytes).expect("taken");
            }
        }
    });
    let mut lines = reading.join().expect("lines");
    assert_eq!(lines.len(), 2 * FAMILIES.len() * BYTES.len(), "{lines:?}\n{}", agent.log());
    lines.sort_unstable();
    lines
}

fn without_chance(text: &str) -> (String, [u64; 2]) {
    let (head, line) = text.split_once("]: ").expect("a program");
    assert!(head.contains(" haproxy["), "{text}");
    let mut words: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!(words.len(), 16, "{text}");
    let date = words[5].split(['/', ':', '.']).collect::<Vec<_>>();
    assert_eq!(date.len(), 7, "{text}");
    words[4].parse::<u16>().expect("a port");
    words[14].parse::<u64>().expect("milliseconds");
    let bytes = [words[9], words[8]].map(|word| word.parse().expect("bytes"));
    for at in [4, 5, 8, 9, 13, 14] {
        words[at] = "*";
    }
    (words.join(" "), bytes)
}

#[test]
fn netns_both_engines_write_the_same_log() {
    let ours = lines(Options { log: true, ..Options::default() }, "xdp");
    let haproxy = lines(Options { log: true, bpf: false, ..Options::default() }, "haproxy");
    for ((ours, by_us), (line, by_haproxy)) in ours.iter().zip(&haproxy) {
        assert_eq!(ours, line);
        assert!(line.contains(&uuid(TCP)), "{line}");
        for (ours, haproxy) in by_us.iter().zip(by_haproxy) {
            let may_differ = ADDRESS_LENGTHS + haproxy / 20;
            assert!(ours.abs_diff(*haproxy) <= may_differ, "{ours}, HAProxy {haproxy}: {line}");
        }
    }
}
