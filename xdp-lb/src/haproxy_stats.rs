//! HAProxy's own figures, from its stats socket: what its listeners, pools and members did and are.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// HAProxy answers at once, or hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A line of `show stat` (HAProxy management guide, 9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Frontend or backend: the listener's id, or `pool:listener`.
    pub proxy: String,
    /// `FRONTEND`, `BACKEND`, or the member's id.
    pub server: String,
    /// `OPEN`, `UP`, `UP 1/3`, `DOWN`, `MAINT`, `no check`, …
    pub status: String,
    /// 0 drains.
    pub weight: u32,
    /// Open now.
    pub sessions: u64,
    pub sessions_total: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Requests that were none.
    pub request_errors: u64,
}

/// All of them: frontends, backends and servers.
pub async fn rows(socket: &Path) -> io::Result<Vec<Row>> {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"show stat -1 -1 -1\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    let text = timeout(PATIENCE, asked).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(parse(&text))
}

/// By the names of the columns, which begin with `# `. Lines that are none are left out.
pub fn parse(csv: &str) -> Vec<Row> {
    let mut lines = csv.lines();
    let header = lines.next().unwrap_or_default().trim_start_matches("# ");
    let names: Vec<&str> = header.split(',').collect();
    // No column that is read here stands behind one of free text, which may hold commas.
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name| cells.get(names.iter().position(|it| *it == name)?).copied();
        let number = |name| cell(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (proxy, server) = (cell("pxname")?, cell("svname")?);
        Some(Row {
            proxy: proxy.to_owned(),
            server: server.to_owned(),
            status: cell("status")?.to_owned(),
            weight: u32::try_from(number("weight")).unwrap_or(u32::MAX),
            sessions: number("scur"),
            sessions_total: number("stot"),
            bytes_in: number("bin"),
            bytes_out: number("bout"),
            request_errors: number("ereq"),
        })
    };
    lines.filter(|line| !line.is_empty()).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,
f1,FRONTEND,,,2,3,50000,7,100,200,0,0,1,,,,,OPEN,,,
p1:f1,m1,0,0,1,1,,7,100,200,,0,,0,0,0,0,UP 1/3,0,1,
p1:f1,BACKEND,0,0,1,1,5000,7,100,200,0,0,,0,0,0,0,UP,1,1,

";

    #[test]
    fn rows_of_a_csv() {
        let row = |proxy: &str, server: &str, status: &str, weight, sessions, request_errors| Row {
            proxy: proxy.to_owned(),
            server: server.to_owned(),
            status: status.to_owned(),
            weight,
            sessions,
            sessions_total: 7,
            bytes_in: 100,
            bytes_out: 200,
            request_errors,
        };
        let want = [
            row("f1", "FRONTEND", "OPEN", 0, 2, 1),
            row("p1:f1", "m1", "UP 1/3", 0, 1, 0),
            row("p1:f1", "BACKEND", "UP", 1, 1, 0),
        ];
        assert_eq!(parse(SHOWN), want);
        assert_eq!(parse(""), []);
        assert_eq!(parse("# pxname\nf1\n"), []);
    }
}
