//! As much of HTTP/1.1 as the test servers and clients say to each other.

use std::io::{self, BufRead};
use std::str::FromStr;

/// A head longer than this is not one of ours.
const HEAD_LINES_MAX: usize = 64;

/// The first line and the headers of a request or a response.
pub struct Head {
    pub first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// `None` when the other side closed instead of beginning another head.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut head = Self { first: first.trim_end().to_owned(), headers: Vec::new() };
        for _ in 0..HEAD_LINES_MAX {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed inside a head"));
            }
            match line.trim_end() {
                "" => return Ok(Some(head)),
                line => {
                    let (name, value) = line.split_once(':').ok_or_else(|| malformed(line))?;
                    head.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
            }
        }
        Err(malformed("too many headers"))
    }

    /// The value of the header `name` (lower case), when it is there and reads as a `T`.
    pub fn header<T: FromStr>(&self, name: &str) -> Option<T> {
        self.headers.iter().find(|(own, _)| own == name)?.1.parse().ok()
    }

    /// The `index`th word of the first line.
    pub fn word(&self, index: usize) -> &str {
        self.first.split(' ').nth(index).unwrap_or_default()
    }
}

pub fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not our HTTP: {what}"))
}
