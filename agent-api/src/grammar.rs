//! What the grammars of uploaded files have in common: values.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use winnow::Parser;
use winnow::Result;
use winnow::ascii::digit1;
use winnow::token::{take, take_while};

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

/// An address of either family, without brackets or a zone.
pub fn address(input: &mut &str) -> Result<IpAddr> {
    take_while(1.., ('0'..='9', 'a'..='f', 'A'..='F', ':', '.')).parse_to().parse_next(input)
}

/// A line for an error, not too long of it.
pub fn shown(line: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match line.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}...", &line[..end]),
        None => format!("{line:?}"),
    }
}
