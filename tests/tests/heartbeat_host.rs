//! `xdp-lb heartbeat` as a process, on the loopback interface.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use agent_api::heartbeat::envelope;
use agent_api::heartbeat::sealed::Sealer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use xdp_lb_tests::balancer::program;

const KEY: &[u8] = b"insecure";
const PATIENCE: Duration = Duration::from_secs(20);

/// `xdp-lb heartbeat` under way. Dropped, it is gone.
struct Running {
    child: Child,
    /// What it said that it listens at.
    at: SocketAddr,
    said: BufReader<ChildStderr>,
}

impl Running {
    /// Starts it, and waits for its first line, which ends in, or holds behind `from`, its address.
    fn start(folder: &Path, words: &[&str]) -> Self {
        let mut child = command(folder, words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        let address = line.split_whitespace().find_map(|word| word.parse().ok());
        let at = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        Self { child, at, said }
    }

    /// Ends it as systemd does; the last line that it said.
    fn stop(mut self) -> String {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
        let lines: Vec<String> = self.said.by_ref().lines().map_while(Result::ok).collect();
        lines.last().cloned().unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("heartbeat").args(words).arg("--config").arg(folder.join("octavia.conf"));
    command.env("RUST_LOG", "info");
    command
}

/// With the controller's configuration.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let config =
        "[DEFAULT]\ntransport_url = rabbit://$nobody\n[health_manager]\nheartbeat_key = insecure\n";
    fs::write(folder.path().join("octavia.conf"), config).expect("a file");
    folder
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn message(id: &str) -> Vec<u8> {
    let stats = json!({"tx": 2, "rx": 1, "conns": 3, "totconns": 4, "ereq": 0});
    let members = json!({"m-up": "UP", "m-down": "DOWN 1/2", "m-off": "MAINT"});
    let message = json!({
        "id": id, "seq": 7, "ver": 3,
        "listeners": {"l": {"status": "OPEN", "stats": stats}},
        "pools": {"p:l": {"status": "UP", "members": members}},
    });
    serde_json::to_vec(&message).expect("JSON")
}

#[test]
fn a_relay_hands_on_what_is_authentic_once_over_restarts() {
    let folder = folder();
    let (amphora, manager) = (socket(), socket());
    let to = manager.local_addr().expect("an address").to_string();
    let state = folder.path().join("state.json");
    let state = state.to_str().expect("a path");
    let words = ["relay", "--bind", "127.0.0.1:0", "--to", &to, "--state", state];
    let message = message("a");
    let mut sealer = Sealer::new(KEY, "a", 1, [1; 32]).expect("a sealer");
    let mut seal = || sealer.seal(&message).expect("a datagram");
    let heard = || {
        let mut buffer = [0; 65_535];
        let length = manager.recv(&mut buffer).expect("a heartbeat");
        envelope::unwrap(&buffer[..length], KEY).expect("as Octavia takes it")
    };

    let relay = Running::start(folder.path(), &words);
    let (first, second, third) = (seal(), seal(), seal());
    let mut forged = second.clone();
    *forged.last_mut().expect("a byte") ^= 1;
    let plain = envelope::wrap(&message, KEY).expect("a datagram");
    // What is refused comes before what is not: so it is known to have been.
    for datagram in [&first, &first, &forged, &plain, &second] {
        amphora.send_to(datagram, relay.at).expect("sent");
    }
    assert_eq!((heard(), heard()), (message.clone(), message.clone()));
    let told = relay.stop();
    for part in ["handed on 2;", "not authentic 1,", "not sealed 1,", "replayed 1,"] {
        assert!(told.contains(part), "{part} in {told}");
    }

    let relay = Running::start(folder.path(), &words);
    for datagram in [&first, &second, &third] {
        amphora.send_to(datagram, relay.at).expect("sent");
    }
    assert_eq!(heard(), message);
    let told = relay.stop();
    for part in ["handed on 1;", "replayed 2,"] {
        assert!(told.contains(part), "{part} in {told}");
    }

    fs::write(state, "{").expect("written");
    let refused = command(folder.path(), &words).output().expect("it runs");
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("state.json") && why.contains("could come again"), "{why}");
}

#[test]
fn listen_tells_of_each() {
    let folder = folder();
    let amphora = socket();
    let words = ["listen", "--bind", "127.0.0.1:0", "--count", "3", "--json"];
    let mut listening = Running::start(folder.path(), &words);
    let sealed = Sealer::new(KEY, "b", 1, [1; 32]).and_then(|mut it| it.seal(&message("b")));
    let signed = envelope::wrap(&message("a"), KEY).expect("a datagram");
    for datagram in [&signed, &sealed.expect("a datagram"), &vec![0; 80]] {
        amphora.send_to(datagram, listening.at).expect("sent");
    }
    assert!(listening.child.wait().expect("it ends").success());
    let out = BufReader::new(listening.child.stdout.take().expect("a pipe"));
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
        .collect();
    let told = |line: &Value| {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        (text("envelope"), line["message"]["id"].as_str().map(str::to_owned), text("error"))
    };
    let some = |text: &str| Some(text.to_owned());
    let want = [
        (some("octavia"), some("a"), None),
        (some("sealed"), some("b"), None),
        (None, None, some("the signature is not that of the key")),
    ];
    assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), want);
}

#[test]
fn decode_shows_what_a_datagram_says() {
    let folder = folder();
    let file = folder.path().join("datagram");
    let shown = |datagram: &[u8]| {
        fs::write(&file, datagram).expect("written");
        let words = ["decode", file.to_str().expect("a path")];
        let output = command(folder.path(), &words).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let sealed = Sealer::new(KEY, "a", 1, [1; 32]).and_then(|mut it| it.seal(&message("a")));
    let sealed = sealed.expect("a datagram");
    let forged = envelope::wrap(&message("a"), b"other").expect("a datagram");
    let rows: [(&[u8], &[&str]); 3] = [
        (&sealed, &["sealed", "amphora a, message 7", "DOWN 1/2", "MAINT", "OPEN"]),
        (&forged, &["REFUSED: the signature is not that of the key", "amphora a, message 7"]),
        (&sealed[..80], &["NOT READ: it was not sealed with the key"]),
    ];
    for (datagram, parts) in rows {
        let shown = shown(datagram);
        for part in parts {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
