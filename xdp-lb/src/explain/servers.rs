//! HAProxy's members, as its stats socket tells of them, in words of ours.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
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
    /// `10.0.0.5:80`.
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
    // `show stat` has their addresses for operators only, and Octavia makes the socket one of users.
    let addresses = addresses(&ask(socket, "show servers state", PATIENCE)?);
    Ok(parse(&ask(socket, "show stat -1 4 -1", PATIENCE)?, &addresses))
}

/// By backend and server.
type Addresses = BTreeMap<(String, String), String>;

/// Of `show servers state`, by the names of its columns.
fn addresses(answer: &str) -> Addresses {
    let mut lines = answer.lines();
    let header = lines.find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    let names: Vec<&str> = header.split(' ').collect();
    let address = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |name| words.get(names.iter().position(|it| *it == name)?).copied();
        let (backend, server) = (word("be_name")?.to_owned(), word("srv_name")?.to_owned());
        let ip: IpAddr = word("srv_addr")?.parse().ok()?;
        let port = word("srv_port")?.parse().ok()?;
        Some(((backend, server), SocketAddr::new(ip, port).to_string()))
    };
    lines.filter_map(address).collect()
}

/// By the names of the columns. Lines that are of no member of a pool are left out.
fn parse(answer: &str, addresses: &Addresses) -> Vec<Server> {
    let mut lines = answer.lines();
    let header = lines.find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    let names: Vec<&str> = header.split(',').collect();
    let server = |line: &str| {
        let cells = cells(line);
        let cell = |name| {
            let at = names.iter().position(|it| *it == name)?;
            cells.get(at).map(String::as_str).filter(|text| !text.is_empty())
        };
        let (backend, member) = (cell("pxname")?, cell("svname")?);
        let (pool, listener) = backend.split_once(':')?;
        let check = match (cell("check_desc"), cell("last_chk")) {
            (Some(what), Some(more)) => Some(format!("{what} ({more})")),
            (what, more) => what.or(more).map(str::to_owned),
        };
        Some(Server {
            pool: pool.to_owned(),
            listener: listener.to_owned(),
            member: member.to_owned(),
            address: addresses.get(&(backend.to_owned(), member.to_owned())).cloned(),
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
        let states = "\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_port
3 p1:l1 1 m1 10.0.0.1 2 80
3 p1:l1 2 m2 2001:db8::2 0 80
";
        let stat = "\
# pxname,svname,scur,status,weight,check_status,last_chk,check_desc,
p1:l1,m1,2,UP,1,L4OK,,Layer4 check passed,
p1:l1,m2,0,DOWN 1/2,1,L4CON,\"Connection refused, says it\",Layer4 connection problem,
p1:l1,m3,0,no check,0,,,,
l1,FRONTEND,2,OPEN,,,,,
";
        type Of<'a> = (&'a str, Option<&'a str>, &'a str, u16, u32, Option<&'a str>);
        let server = |(member, address, status, weight, connections, check): Of<'_>| Server {
            pool: "p1".to_owned(),
            listener: "l1".to_owned(),
            member: member.to_owned(),
            address: address.map(str::to_owned),
            weight,
            status: status.to_owned(),
            connections,
            check: check.map(str::to_owned),
        };
        let refused = "Layer4 connection problem (Connection refused, says it)";
        let want = [
            ("m1", Some("10.0.0.1:80"), "UP", 1, 2, Some("Layer4 check passed")),
            ("m2", Some("[2001:db8::2]:80"), "DOWN 1/2", 1, 0, Some(refused)),
            ("m3", None, "no check", 0, 0, None),
        ];
        assert_eq!(parse(stat, &addresses(states)), want.map(server));
        assert_eq!(parse("Unknown command", &addresses("")), []);
    }
}
