//! What the grammars of uploaded files have in common: words of a line, and lines of a file.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use winnow::Parser;
use winnow::Result;
use winnow::ascii::{digit1, space1};
use winnow::combinator::fail;
use winnow::token::{take, take_while};

use crate::refused::Refused;

/// A UUID as Octavia writes it: in lower case, with dashes.
pub fn uuid(input: &mut &str) -> Result<String> {
    let dashed = |text: &str| {
        text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
    };
    take(36_usize).verify(move |text: &str| dashed(text)).map(str::to_owned).parse_next(input)
}

/// Digits of a number within the range.
pub fn number(range: RangeInclusive<u32>) -> impl Fn(&mut &str) -> Result<u32> {
    move |input| {
        let within = |number: &u32| range.contains(number);
        digit1.parse_to().verify(within).parse_next(input)
    }
}

/// 1 to 65535.
pub fn port(input: &mut &str) -> Result<u16> {
    digit1.parse_to().verify(|port: &u16| *port > 0).parse_next(input)
}

/// All up to a blank.
pub fn word<'a>(input: &mut &'a str) -> Result<&'a str> {
    take_while(1.., |next: char| !next.is_ascii_whitespace()).parse_next(input)
}

/// An address of either family, without brackets or a zone.
pub fn address(input: &mut &str) -> Result<IpAddr> {
    take_while(1.., ('0'..='9', 'a'..='f', 'A'..='F', ':', '.')).parse_to().parse_next(input)
}

/// Words one after the other, with blanks between them.
pub fn phrase(words: &'static str) -> impl Fn(&mut &str) -> Result<()> {
    move |input| {
        for (at, word) in words.split(' ').enumerate() {
            if at > 0 {
                space1.void().parse_next(input)?;
            }
            word.void().parse_next(input)?;
        }
        // Not the beginning of a longer word.
        if input.starts_with(|next: char| !next.is_ascii_whitespace()) {
            return fail.parse_next(input);
        }
        Ok(())
    }
}

/// The statements of a file, one to a line, taken one by one.
pub struct Statements<S> {
    statements: Vec<(usize, S)>,
    at: usize,
    /// Line after the last.
    end: usize,
}

impl<S> Statements<S> {
    /// Empty lines say nothing. `statement` is given a line without the blanks around it.
    pub fn read<'a>(
        text: &'a str,
        statement: impl Fn(&mut &'a str) -> Result<S>,
    ) -> std::result::Result<Self, Refused> {
        let mut statements = Vec::new();
        let mut end = 1;
        for (at, line) in text.split('\n').enumerate() {
            end = at + 1;
            let line = line.strip_suffix('\r').unwrap_or(line).trim_matches([' ', '\t']);
            if let Some(control) = line.chars().find(|next| next.is_control() && *next != '\t') {
                return Err(Refused::new(end, format!("{control:?} is a control character")));
            }
            if line.is_empty() {
                continue;
            }
            let mut parser = |input: &mut &'a str| statement(input);
            let parsed = parser.parse(line);
            let parsed =
                parsed.map_err(|_| Refused::new(end, format!("{} is not known", shown(line))))?;
            statements.push((end, parsed));
        }
        Ok(Self { statements, at: 0, end })
    }

    pub fn peek(&self) -> Option<&S> {
        self.statements.get(self.at).map(|(_, statement)| statement)
    }

    /// Line of the next one.
    pub fn line(&self) -> usize {
        self.statements.get(self.at).map_or(self.end, |(line, _)| *line)
    }

    /// The next one, if this makes something of it.
    pub fn take<T>(&mut self, wanted: impl FnOnce(&S) -> Option<T>) -> Option<T> {
        let taken = wanted(self.peek()?)?;
        self.at += 1;
        Some(taken)
    }

    /// The same, for one that must be there; `what` it would be.
    pub fn must<T>(
        &mut self,
        what: &str,
        wanted: impl FnOnce(&S) -> Option<T>,
    ) -> std::result::Result<T, Refused> {
        let line = self.line();
        self.take(wanted).ok_or_else(|| Refused::new(line, format!("{what} is missing here")))
    }

    /// That nothing is left.
    pub fn done(&self) -> std::result::Result<(), Refused> {
        match self.peek() {
            Some(_) => Err(Refused::new(self.line(), "this has no place here")),
            None => Ok(()),
        }
    }
}

/// A line for an error, not too long of it.
pub fn shown(line: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match line.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}...", &line[..end]),
        None => format!("{line:?}"),
    }
}
