//! The door as a process of its own, and a client that shows what certificate it likes.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion};
use tempfile::TempDir;

use crate::pki::{Authority, Issued, Kind};

/// What certificates of the amphora are made out to.
pub const AMPHORA: &str = "2fb5067a-1d18-5a82-80f6-079512bfcd7b";

/// Whom the amphora and its controller trust.
pub struct Trust {
    pub server_ca: Authority,
    pub client_ca: Authority,
}

impl Trust {
    pub fn new() -> Result<Self> {
        let (server_ca, client_ca) = (Authority::new("server-ca")?, Authority::new("client-ca")?);
        Ok(Self { server_ca, client_ca })
    }

    /// TLS on a stream to `amphora`, with this certificate shown, if any.
    pub fn connect(
        &self,
        stream: TcpStream,
        amphora: &str,
        shown: Option<&Issued>,
    ) -> Result<SslStream<TcpStream>> {
        self.connect_up_to(stream, amphora, shown, SslVersion::TLS1_3)
    }

    /// The same, by no newer a version.
    pub fn connect_up_to(
        &self,
        stream: TcpStream,
        amphora: &str,
        shown: Option<&Issued>,
        newest: SslVersion,
    ) -> Result<SslStream<TcpStream>> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        // Old versions are off in Debian's OpenSSL unless one asks for them by this.
        builder.set_cipher_list("ALL:@SECLEVEL=0")?;
        builder.set_min_proto_version(None)?;
        builder.set_max_proto_version(Some(newest))?;
        builder.cert_store_mut().add_cert(self.server_ca.certificate.clone())?;
        builder.set_verify(SslVerifyMode::PEER);
        if let Some(Issued { certificate, key }) = shown {
            builder.set_certificate(certificate)?;
            builder.set_private_key(key)?;
        }
        let connector = builder.build().configure()?.use_server_name_indication(false);
        Ok(connector.connect(amphora, stream)?)
    }
}

/// A process `xdp-lb-door`, killed when dropped.
pub struct Process {
    child: Child,
    pub port: u16,
    folder: TempDir,
    pub trust: Trust,
}

/// What came back, or an error where nothing did.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

impl Process {
    /// By a configuration of its own in a folder of its own. `program` is the `xdp-lb-door` to run.
    pub fn start(program: &Path) -> Result<Self> {
        let folder = TempDir::with_prefix("xdp-lb-door-")?;
        let trust = Trust::new()?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("server.pem"), trust.server_ca.issue(AMPHORA, Kind::Octavia)?.pem()?)?;
        fs::write(at("client_ca.pem"), trust.client_ca.pem()?)?;
        fs::write(at("amphora-agent.conf"), config(folder.path()))?;
        let mut child = Command::new(program)
            .arg("--config")
            .arg(at("amphora-agent.conf"))
            .arg("--control")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(at("log"))?)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut line = String::new();
        let out = child.stdout.take().context("its output is piped")?;
        BufReader::new(out).read_line(&mut line)?;
        let port = line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok());
        let process = Self { child, port: port.unwrap_or(0), folder, trust };
        ensure!(port.is_some(), "the door did not open: {}", process.log());
        Ok(process)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The most memory that it ever had, in KiB.
    pub fn memory_peak_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")).context("VmHWM")?;
        Ok(peak.trim().parse()?)
    }

    /// Gives it another certificate.
    pub fn rotate(&self, kind: Kind) -> Result<Issued> {
        Ok(self.trust.server_ca.issue(AMPHORA, kind)?)
    }

    /// A connection on which this certificate was shown, if any.
    pub fn connect(&self, shown: Option<&Issued>) -> Result<SslStream<TcpStream>> {
        self.connect_up_to(shown, SslVersion::TLS1_3)
    }

    /// The same, by no newer a version.
    pub fn connect_up_to(
        &self,
        shown: Option<&Issued>,
        newest: SslVersion,
    ) -> Result<SslStream<TcpStream>> {
        self.trust.connect_up_to(self.dial()?, AMPHORA, shown, newest)
    }

    /// A connection without a word.
    pub fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// One request and its response.
    pub fn ask(&self, shown: &Issued, method: &str, path: &str, body: &[u8]) -> Result<Response> {
        let mut stream = self.connect(Some(shown))?;
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")?;
        stream.write_all(body)?;
        response(stream)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that comes until the end of the connection.
pub fn response(mut stream: impl Read) -> Result<Response> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{read:?}: {text}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Response { status: status.context("a status")?, body: body.to_owned() })
}

/// An `amphora-agent.conf` whose files are all in this folder; any port.
pub fn config(folder: &Path) -> String {
    let at = |name: &str| -> String {
        let path: PathBuf = folder.join(name);
        path.display().to_string()
    };
    format!(
        "[DEFAULT]\n[haproxy_amphora]\nbase_path = {}\nbase_cert_dir = {}\nbind_host = 127.0.0.1\n\
         bind_port = 0\n[health_manager]\ncontroller_ip_port_list = 127.0.0.1:5555\n\
         heartbeat_key = insecure\n[amphora_agent]\nagent_server_cert = {}\nagent_server_ca = {}\n\
         amphora_id = {AMPHORA}\n[controller_worker]\nloadbalancer_topology = SINGLE\n",
        at("octavia"),
        at("octavia/certs"),
        at("server.pem"),
        at("client_ca.pem"),
    )
}
