//! HAProxy's own figures, from its stats socket: what its listeners, pools and members did and are.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// HAProxy answers at once, or hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Workers that leave and are asked: one for each reload within a connection's life.
const LEAVING_MAX: usize = 32;
/// What follows each answer where they are many.
const PROMPT: &[u8] = b"\n> ";
/// A worker that has been told to leave and has connections still is asked this often, and held so long.
const HELD_PAUSE: Duration = Duration::from_millis(20);
const HELD_MAX: Duration = Duration::from_millis(500);
/// Ten thousand members are some 5 MiB.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A worker process of HAProxy, whose counters began at 0 when it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worker {
    pub pid: u32,
    /// Seconds since 1970; 0 where it does not say (before HAProxy 2.5).
    pub started_s: u64,
}

/// A line of `show stat` (HAProxy management guide, 9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub worker: Worker,
    /// The worker takes no new connections: after a reload it ends with its last one, and its word on
    /// members is old.
    pub leaving: bool,
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

/// All of the worker that serves: frontends, backends and servers.
pub async fn rows(socket: &Path) -> io::Result<Vec<Row>> {
    Ok(parse(&ask(socket, "show info;show stat -1 -1 -1").await?, false))
}

/// Those of the workers that ended for a reload and have connections still, by way of their master. None
/// where there is no such master.
pub async fn leaving(master: &Path) -> Vec<Row> {
    let shown = ask(master, "show proc").await.unwrap_or_default();
    let asked = leavers(&shown).take(LEAVING_MAX).map(async |pid| {
        let command = format!("@!{pid} show info;@!{pid} show stat -1 -1 -1");
        // It may have ended meanwhile.
        parse(&ask(master, &command).await.unwrap_or_default(), true)
    });
    join_all(asked).await.concat()
}

/// Of `show proc`: process ids of workers that have seen a reload.
fn leavers(shown: &str) -> impl Iterator<Item = u32> {
    shown.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (pid, kind, reloads) = (words.next()?, words.next()?, words.next()?);
        let left = kind == "worker" && reloads.parse::<u32>().ok()? > 0;
        if left { pid.parse().ok() } else { None }
    })
}

/// A connection to the worker that serves when it is opened. It is one of the worker's own: the worker does
/// not end while it is open, and so can be asked after a reload what it had counted in the end.
#[derive(Debug)]
pub struct Held(UnixStream);

impl Held {
    pub async fn open(socket: &Path) -> io::Result<Self> {
        let opened = async {
            let mut held = Self(UnixStream::connect(socket).await?);
            // Without it the first answer ends the connection.
            held.ask("prompt").await?;
            Ok(held)
        };
        timeout(PATIENCE, opened).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// What it has counted, to be asked when it has been told to leave: once it has no connections any more,
    /// or when others would wait for its end. Nothing where it ended all the same.
    pub async fn last_rows(mut self) -> Vec<Row> {
        let began = Instant::now();
        let mut last = Vec::new();
        while let Ok(Ok(rows)) = timeout(PATIENCE, self.rows()).await {
            let is_idle = rows.iter().all(|row| row.server != "FRONTEND" || row.sessions == 0);
            last = rows;
            if is_idle || began.elapsed() > HELD_MAX {
                break;
            }
            sleep(HELD_PAUSE).await;
        }
        last
    }

    async fn rows(&mut self) -> io::Result<Vec<Row>> {
        let info = self.ask("show info").await?;
        Ok(parse(&(info + &self.ask("show stat -1 -1 -1").await?), true))
    }

    /// The answer, without the prompt that ends it.
    async fn ask(&mut self, command: &str) -> io::Result<String> {
        self.0.write_all(format!("{command}\n").as_bytes()).await?;
        let mut text = Vec::new();
        while !text.ends_with(PROMPT) {
            let room = ANSWER_BYTES_MAX.saturating_sub(text.len() as u64);
            if (&mut self.0).take(room).read_buf(&mut text).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        text.truncate(text.len() - PROMPT.len());
        String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

async fn ask(socket: &Path, command: &str) -> io::Result<String> {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        // The master's socket closes only when it has heard all.
        stream.shutdown().await?;
        let mut text = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    timeout(PATIENCE, asked).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// The answer to `show info` and then `show stat`. By the names of the columns, in the line that begins
/// with `# `. Lines that are none are left out.
pub fn parse(answer: &str, leaving: bool) -> Vec<Row> {
    let mut lines = answer.lines();
    let mut worker = Worker { pid: 0, started_s: 0 };
    let header = lines.by_ref().find_map(|line| {
        let number = |field| line.strip_prefix(field)?.trim().parse::<u64>().ok();
        if let Some(pid) = number("Pid:") {
            worker.pid = u32::try_from(pid).unwrap_or(0);
        }
        if let Some(started_s) = number("Start_time_sec:") {
            worker.started_s = started_s;
        }
        line.strip_prefix("# ")
    });
    let names: Vec<&str> = header.unwrap_or_default().split(',').collect();
    // No column that is read here stands behind one of free text, which may hold commas.
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name| cells.get(names.iter().position(|it| *it == name)?).copied();
        let number = |name| cell(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (proxy, server) = (cell("pxname")?, cell("svname")?);
        Some(Row {
            worker,
            leaving,
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
Name: HAProxy
Pid: 12
Uptime_sec: 3
Start_time_sec: 1700000000

# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,
f1,FRONTEND,,,2,3,50000,7,100,200,0,0,1,,,,,OPEN,,,
p1:f1,m1,0,0,1,1,,7,100,200,,0,,0,0,0,0,UP 1/3,0,1,
p1:f1,BACKEND,0,0,1,1,5000,7,100,200,0,0,,0,0,0,0,UP,1,1,

";

    #[test]
    fn rows_of_a_csv() {
        let row = |proxy: &str, server: &str, status: &str, weight, sessions, request_errors| Row {
            worker: Worker { pid: 12, started_s: 1_700_000_000 },
            leaving: true,
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
        assert_eq!(parse(SHOWN, true), want);
        assert_eq!(parse("", false), []);
        let processes = "#<PID> <type> <reloads>\n12 master 1 [failed: 0]\n# workers\n\
                         14 worker 0 0d\n# old workers\n13 worker 1 0d\n# programs\n";
        assert_eq!(leavers(processes).collect::<Vec<_>>(), [13]);
        assert_eq!(parse("# pxname\nf1\n", false), []);
    }
}
