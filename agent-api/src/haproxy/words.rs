//! Lines and words, as HAProxy itself takes them apart (2.6 `tools.c`, `parse_line`).
//!
//! A difference would be a hole: tenants' text stands in these lines, and what is one word to us must not
//! be two directives to HAProxy.

use winnow::combinator::{alt, delimited, preceded, repeat};
use winnow::token::{none_of, one_of, take_while};
use winnow::{Parser, Result};

use crate::refused::Refused;

/// A line that says something.
#[derive(Clone, Debug)]
pub struct Line {
    /// The first is 1.
    pub number: usize,
    words: Vec<String>,
}

impl Line {
    /// For matching.
    pub fn words(&self) -> Vec<&str> {
        self.words.iter().map(|word| &word[..]).collect()
    }

    pub fn first(&self) -> &str {
        self.words.first().map_or("", |word| word)
    }

    pub fn refused(&self, what: impl Into<String>) -> Refused {
        Refused::new(self.number, what)
    }
}

/// All lines but those that are empty or a comment.
pub fn lines(text: &str) -> std::result::Result<Vec<Line>, Refused> {
    let mut lines = Vec::new();
    for (at, text) in text.split('\n').enumerate() {
        let number = at + 1;
        // A carriage return is a blank to HAProxy, and nothing that Octavia writes.
        if let Some(control) = text.chars().find(|next| next.is_control() && *next != '\t') {
            return Err(Refused::new(number, format!("{control:?} is a control character")));
        }
        let words = words.parse(text).map_err(|_| {
            Refused::new(number, "a quote or a backslash that Octavia does not write")
        })?;
        if !words.is_empty() {
            lines.push(Line { number, words });
        }
    }
    Ok(lines)
}

fn words(input: &mut &str) -> Result<Vec<String>> {
    blanks.parse_next(input)?;
    let words = repeat(0.., (word, blanks).map(|(word, ())| word)).parse_next(input)?;
    // A comment begins wherever a bare `#` stands, also within a word.
    if input.starts_with('#') {
        *input = "";
    }
    Ok(words)
}

fn blanks(input: &mut &str) -> Result<()> {
    take_while(0.., is_blank).void().parse_next(input)
}

/// Of bare text, escapes and quotes in any order.
fn word(input: &mut &str) -> Result<String> {
    let bare = take_while(1.., |next| !is_blank(next) && !matches!(next, '\\' | '"' | '\'' | '#'));
    let piece = alt((
        bare.map(str::to_owned),
        escape.map(String::from),
        delimited('"', repeat(0.., within_double), '"').map(|text: String| text),
        delimited('\'', take_while(0.., |next| next != '\''), '\'').map(str::to_owned),
    ));
    repeat(1.., piece).map(|pieces: Vec<String>| pieces.concat()).parse_next(input)
}

/// A dollar would be the beginning of a variable.
fn within_double(input: &mut &str) -> Result<char> {
    alt((escape, none_of(['"', '\\', '$']))).parse_next(input)
}

/// The rest of HAProxy's escapes, which are hexadecimal, are not among what Octavia writes.
fn escape(input: &mut &str) -> Result<char> {
    let known = alt((
        't'.value('\t'),
        'n'.value('\n'),
        'r'.value('\r'),
        one_of([' ', '\\', '"', '\'', '#']),
    ));
    preceded('\\', known).parse_next(input)
}

/// C's `isspace`, of what is left after control characters are refused.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let rows: [(&str, Option<&[&str]>); 22] = [
            ("", Some(&[])),
            ("   \t ", Some(&[])),
            ("  mode tcp ", Some(&["mode", "tcp"])),
            ("\tmode\ttcp", Some(&["mode", "tcp"])),
            ("# mode", Some(&[])),
            ("mode tcp # http", Some(&["mode", "tcp"])),
            ("mode t#cp", Some(&["mode", "t"])),
            (r"mode t\#cp", Some(&["mode", "t#cp"])),
            (r"a b\ c", Some(&["a", "b c"])),
            (r"\ \ # x", Some(&["  "])),
            (r"a\\b", Some(&[r"a\b"])),
            (r"HTTP/1.1\r\nHost:\ d", Some(&["HTTP/1.1\r\nHost: d"])),
            (r#"a "b c" d"#, Some(&["a", "b c", "d"])),
            (r#"a"b c"d"#, Some(&["ab cd"])),
            (r#""a\"b""#, Some(&[r#"a"b"#])),
            (r#"a 'b "c'"#, Some(&["a", r#"b "c"#])),
            (r#""""#, Some(&[""])),
            (r#"a "b"#, None),
            ("a 'b", None),
            (r#"a "$HOME""#, None),
            (r"a\x41", None),
            (r"a\", None),
        ];
        for (text, want) in rows {
            let words = lines(text)
                .map(|lines| lines.iter().flat_map(|line| line.words.clone()).collect::<Vec<_>>());
            let want = want.map(|words| words.iter().map(|word| word.to_string()).collect());
            assert_eq!(words.ok(), want, "{text:?}");
        }
        for control in ['\0', '\r', '\x0b', '\x0c', '\x1b', '\u{85}'] {
            assert!(lines(&format!("mode{control}tcp")).is_err(), "{control:?}");
        }
        let two = lines("a\n\n b").unwrap();
        assert_eq!(two.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3]);
    }
}
