//! HAProxy's members, as its stats socket tells of them, in words of ours.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::haproxy::socket::ask;

/// HAProxy answers at once, or hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// A server of a backend (HAProxy management guide, 9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub pool: String,
    pub listener: String,
    pub member: String,
    /// `10.0.0.5:80`; none before HAProxy 1.8, or for a member without one.
    pub address: Option<String>,
    pub weight: u16,
    /// `UP`, `DOWN 1/2`, `MAINT`, `DRAIN`, `no check`.
    pub status: String,
    pub connections: u32,
    /// What its last check found: `Layer4 connection problem (Connection refused)`.
    pub check: Option<String>,
}

/// All of the HAProxy whose socket this is.
pub fn servers(socket: &Path) -> io::Result<Vec<Server>> {
    Ok(parse(&ask(socket, "show stat -1 4 -1", PATIENCE)?))
}

/// By the names of the columns. Lines that are of no member of a pool are left out.
fn parse(answer: &str) -> Vec<Server> {
    let mut lines = answer.lines();
    let header = lines.find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    let names: Vec<&str> = header.split(',').collect();
    let server = |line: &str| {
        let cells = cells(line);
        let cell = |name| {
            let at = names.iter().position(|it| *it == name)?;
            cells.get(at).map(String::as_str).filter(|text| !text.is_empty())
        };
        let (pool, listener) = cell("pxname")?.split_once(':')?;
        let check = match (cell("check_desc"), cell("last_chk")) {
            (Some(what), Some(more)) => Some(format!("{what} ({more})")),
            (what, more) => what.or(more).map(str::to_owned),
        };
        Some(Server {
            pool: pool.to_owned(),
            listener: listener.to_owned(),
            member: cell("svname")?.to_owned(),
            address: cell("addr").map(str::to_owned),
            weight: cell("weight").and_then(|text| text.parse().ok()).unwrap_or(0),
            status: cell("status")?.to_owned(),
            connections: cell("scur").and_then(|text| text.parse().ok()).unwrap_or(0),
            check,
        })
    };
    lines.filter_map(server).collect()
}

/// The cells of a line of CSV; those with a comma or a quote in them are quoted (RFC 4180).
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for (index, character) in line.char_indices() {
        match (character, quoted) {
            ('"', _) => {
                // The second of two within quotes is one of the text.
                if !quoted && line[..index].ends_with('"') && !line[..index].ends_with(",\"") {
                    push(&mut cells, '"');
                }
                quoted = !quoted;
            }
            (',', false) => cells.push(String::new()),
            (character, _) => push(&mut cells, character),
        }
    }
    cells
}

fn push(cells: &mut [String], character: char) {
    if let Some(cell) = cells.last_mut() {
        cell.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_csv() {
        let rows: [(&str, &[&str]); 5] = [
            ("a,b,", &["a", "b", ""]),
            ("", &[""]),
            ("a,\"b,c\",d", &["a", "b,c", "d"]),
            ("a,\"b \"\"c\"\" d\"", &["a", "b \"c\" d"]),
            ("\"\",a", &["", "a"]),
        ];
        for (line, want) in rows {
            assert_eq!(cells(line), want, "{line}");
        }
    }

    #[test]
    fn members() {
        let answer = "\
# pxname,svname,scur,status,weight,check_status,last_chk,check_desc,addr,
p1:l1,m1,2,UP,1,L4OK,,Layer4 check passed,10.0.0.1:80,
p1:l1,m2,0,DOWN 1/2,1,L4CON,\"Connection refused, says it\",Layer4 connection problem,10.0.0.2:80,
p1:l1,m3,0,no check,0,,,,10.0.0.3:80,
l1,FRONTEND,2,OPEN,,,,,,
";
        let server =
            |member: &str, status: &str, weight, connections, check: Option<&str>| Server {
                pool: "p1".to_owned(),
                listener: "l1".to_owned(),
                member: member.to_owned(),
                address: Some(format!("10.0.0.{}:80", &member[1..])),
                weight,
                status: status.to_owned(),
                connections,
                check: check.map(str::to_owned),
            };
        let refused = "Layer4 connection problem (Connection refused, says it)";
        let want = [
            server("m1", "UP", 1, 2, Some("Layer4 check passed")),
            server("m2", "DOWN 1/2", 1, 0, Some(refused)),
            server("m3", "no check", 0, 0, None),
        ];
        assert_eq!(parse(answer), want);
        assert_eq!(parse("Unknown command"), []);
    }
}
