//! Lines and words of a keepalived configuration, and the patterns that Octavia's templates leave.
//!
//! keepalived takes far more than Octavia writes: `include`, variables, conditions, sequences, commands
//! at every turn. So a grammar here is the list of the lines it may have, each a pattern in the words
//! of the template with holes such as `<port>`, and any other line is refused.

use std::fmt::Display;
use std::iter::Enumerate;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::{FromStr, Split};

use winnow::Parser;
use winnow::combinator::{alt, delimited, separated};
use winnow::token::take_while;

use crate::grammar;
use crate::refused::Refused;

/// Bytes of a line. keepalived takes what is over for the next line, even of a comment: its buffer of
/// 1024 also holds the newline and a NUL. Octavia's longest is a path of 255.
const LINE_BYTES_MAX: usize = 1022;

/// How much of a line that is refused is shown.
const SHOWN_MAX: usize = 80;

/// Numbers that Octavia keeps, at most the integers of its database.
pub(crate) const COUNT_MAX: u32 = i32::MAX.cast_unsigned();

/// The lines of a file that say something, one after the other.
pub(crate) struct Lines<'a> {
    rest: Enumerate<Split<'a, char>>,
    /// The line that comes next. If it is refused, whoever takes it hears of it, so that errors come in
    /// the order of the lines.
    ahead: Option<Result<Line<'a>, Refused>>,
    taken: usize,
}

struct Line<'a> {
    number: usize,
    text: &'a str,
    words: Vec<&'a str>,
}

/// The word that stood in a hole.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    pub line: usize,
    /// What the hole is called.
    pub name: &'static str,
    pub text: &'a str,
}

impl<'a> Lines<'a> {
    pub fn of(text: &'a str) -> Self {
        let mut lines = Self { rest: text.split('\n').enumerate(), ahead: None, taken: 0 };
        lines.look_ahead();
        lines
    }

    /// Number of the line that was taken last.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Takes the next line, which must be this one, and gives what stands in its `N` holes.
    pub fn need<const N: usize>(
        &mut self,
        pattern: &'static str,
    ) -> Result<[Value<'a>; N], Refused> {
        if let Some(values) = self.when(pattern) {
            return Ok(values);
        }
        match self.ahead.take() {
            None => {
                Err(Refused::new(self.taken.max(1), format!("the file ends before {pattern:?}")))
            }
            Some(line) => Err(line?.refused(&format!("stands where {pattern:?} has to"))),
        }
    }

    /// Takes the next line if it is this one.
    pub fn when<const N: usize>(&mut self, pattern: &'static str) -> Option<[Value<'a>; N]> {
        let Some(Ok(line)) = &self.ahead else { return None };
        let values = line.holes(pattern)?.try_into().ok()?;
        self.taken = line.number;
        self.look_ahead();
        Some(values)
    }

    /// Nothing may be left.
    pub fn end(&mut self) -> Result<(), Refused> {
        match self.ahead.take() {
            None => Ok(()),
            Some(line) => Err(line?.refused("stands where the file has to end")),
        }
    }

    fn look_ahead(&mut self) {
        self.ahead = self
            .rest
            .by_ref()
            .map(|(before, text)| Line::of(before + 1, text))
            .find(|line| !matches!(line, Ok(line) if line.words.is_empty()));
    }
}

impl<'a> Line<'a> {
    /// A blank line has no words. A comment is a line of words too, of which `#` is the first: in the
    /// file of a listener they carry meaning.
    fn of(number: usize, text: &'a str) -> Result<Self, Refused> {
        if text.len() > LINE_BYTES_MAX {
            return Err(Refused::new(number, format!("more than {LINE_BYTES_MAX} bytes")));
        }
        if let Some(character) = text.chars().find(|&character| !is_text(character)) {
            return Err(Refused::new(number, format!("character {character:?} is not text")));
        }
        let text = text.trim_matches(is_blank);
        if text.starts_with('#') {
            return Ok(Self { number, text, words: text.split_ascii_whitespace().collect() });
        }
        let mut rest = text;
        let words = words.parse_next(&mut rest).unwrap_or_default();
        match what_keepalived_reads(rest.trim_start_matches(is_blank), &words) {
            None => Ok(Self { number, text, words }),
            Some(what) => Err(Self { number, text, words }.refused(what)),
        }
    }

    /// What stands in the holes of a pattern; `None` if the line is another.
    fn holes(&self, pattern: &'static str) -> Option<Vec<Value<'a>>> {
        let mut holes = Vec::new();
        let mut words = self.words.iter();
        for wanted in pattern.split(' ') {
            let word = words.next()?;
            match wanted.strip_prefix('<').and_then(|hole| hole.strip_suffix('>')) {
                Some(name) => holes.push(Value { line: self.number, name, text: word }),
                None if wanted == *word => {}
                None => return None,
            }
        }
        words.next().is_none().then_some(holes)
    }

    fn refused(&self, why: &str) -> Refused {
        let shown: String = self.text.chars().take(SHOWN_MAX).collect();
        Refused::new(self.number, format!("{shown:?} {why}"))
    }
}

impl Value<'_> {
    pub fn refused(&self, why: impl Display) -> Refused {
        Refused::new(self.line, format!("{} {:?} {why}", self.name, self.text))
    }

    /// A decimal number without a sign.
    pub fn number<T>(&self, range: RangeInclusive<T>) -> Result<T, Refused>
    where
        T: Copy + Display + FromStr + PartialOrd,
    {
        let digits = self.text.bytes().all(|byte| byte.is_ascii_digit());
        match self.text.parse() {
            Ok(number) if digits && range.contains(&number) => Ok(number),
            Ok(_) | Err(_) => {
                let (min, max) = (range.start(), range.end());
                Err(self.refused(format_args!("is not a number from {min} to {max}")))
            }
        }
    }

    pub fn port(&self) -> Result<u16, Refused> {
        self.number(1..=u16::MAX)
    }

    pub fn address(&self) -> Result<IpAddr, Refused> {
        self.text.parse().map_err(|_| self.refused("is not an address"))
    }

    /// An id of Octavia's: lower case, with dashes.
    pub fn uuid(&self) -> Result<String, Refused> {
        grammar::uuid.parse(self.text).map_err(|_| self.refused("is not a UUID"))
    }
}

/// What keepalived would make of a line that is more than words; `None` if it is nothing more.
fn what_keepalived_reads(rest: &str, words: &[&str]) -> Option<&'static str> {
    let found = match (rest.chars().next(), words.first()) {
        (Some('#' | '!'), _) => "has a comment that is not Octavia's",
        (Some('$'), _) => "has a variable",
        (Some('\\'), _) => "has an escape",
        (Some(_), _) => "has a quote that is not around a word",
        (None, Some(word)) if word.starts_with('@') => "is conditional",
        (None, Some(word)) if word.starts_with('~') => "is a sequence",
        (None, Some(_) | None) => return None,
    };
    Some(found)
}

fn words<'a>(line: &mut &'a str) -> winnow::Result<Vec<&'a str>> {
    separated(0.., word, take_while(1.., is_blank)).parse_next(line)
}

/// A word with its quotes, if it has any: Octavia quotes commands and nothing else.
fn word<'a>(line: &mut &'a str) -> winnow::Result<&'a str> {
    let quoted = delimited('"', take_while(0.., |it| is_plain(it) || is_blank(it)), '"');
    alt((quoted.take(), take_while(1.., is_plain))).parse_next(line)
}

fn is_text(character: char) -> bool {
    is_blank(character) || character.is_ascii_graphic()
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

/// What means itself and nothing else to keepalived, wherever it stands in a word.
fn is_plain(character: char) -> bool {
    character.is_ascii_graphic() && !matches!(character, '#' | '!' | '$' | '\\' | '"' | '\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, a line, and its words or why it is refused.
    type Row<'a> = (&'a str, &'a str, Result<&'a [&'a str], &'a str>);

    #[test]
    fn lines() {
        let long = "a".repeat(LINE_BYTES_MAX);
        let rows: [Row<'_>; 23] = [
            ("words", "lb_kind NAT", Ok(&["lb_kind", "NAT"])),
            ("blanks around and between", " \tlb_kind \t NAT\t ", Ok(&["lb_kind", "NAT"])),
            ("nothing", "", Ok(&[])),
            ("blanks", " \t ", Ok(&[])),
            ("a block", "url {", Ok(&["url", "{"])),
            ("quotes", "misc_path \"a b  c\"", Ok(&["misc_path", "\"a b  c\""])),
            ("a comment", "  # Pool x is disabled", Ok(&["#", "Pool", "x", "is", "disabled"])),
            ("a comment with what is no comment elsewhere", "#a $b!", Ok(&["#a", "$b!"])),
            ("as long as may be", &long, Ok(&[&long])),
            ("a byte more", &format!("{long}a"), Err("line 7: more than 1022 bytes")),
            ("a carriage return", "a\r", Err("line 7: character '\\r' is not text")),
            ("a NUL in a comment", "# \0", Err("line 7: character '\\0' is not text")),
            ("a letter of two bytes", "caf\u{e9}", Err("line 7: character 'é' is not text")),
            (
                "a comment behind",
                "weight 1 # x",
                Err("line 7: \"weight 1 # x\" has a comment that is not Octavia's"),
            ),
            (
                "a comment in a word",
                "path /a!b",
                Err("line 7: \"path /a!b\" has a comment that is not Octavia's"),
            ),
            (
                "the other comment",
                "! x",
                Err("line 7: \"! x\" has a comment that is not Octavia's"),
            ),
            ("a variable", "$A=notify", Err("line 7: \"$A=notify\" has a variable")),
            (
                "a variable in quotes",
                "a \"${B}\"",
                Err("line 7: \"a \\\"${B}\\\"\" has a quote that is not around a word"),
            ),
            ("an escape", "weight 1\\", Err("line 7: \"weight 1\\\\\" has an escape")),
            (
                "half a quote",
                "a \"b c",
                Err("line 7: \"a \\\"b c\" has a quote that is not around a word"),
            ),
            (
                "other quotes",
                "a 'b'",
                Err("line 7: \"a 'b'\" has a quote that is not around a word"),
            ),
            ("a condition", "@a weight 1", Err("line 7: \"@a weight 1\" is conditional")),
            ("a sequence", "~SEQ(a, 1, 2) x", Err("line 7: \"~SEQ(a, 1, 2) x\" is a sequence")),
        ];
        for (row, text, want) in rows {
            let line = Line::of(7, text).map(|line| line.words).map_err(|it| it.to_string());
            assert_eq!(line.as_deref().map_err(String::as_str), want, "{row}");
        }
    }

    #[test]
    fn patterns() {
        let rows: [(&str, &str, Option<&[&str]>); 7] = [
            ("url {", "url {", Some(&[])),
            ("<address> <port>", "192.0.2.1 53", Some(&["address=192.0.2.1", "port=53"])),
            ("# Pool <id> is disabled", "# Pool x is disabled", Some(&["id=x"])),
            ("url {", "url", None),
            ("url {", "url { }", None),
            ("weight <weight>", "weight", None),
            ("weight <weight>", "weights 1", None),
        ];
        for (pattern, text, want) in rows {
            let values = Line::of(1, text).ok().and_then(|line| line.holes(pattern));
            let shown = |it: &Value| format!("{}={}", it.name, it.text);
            let values = values.map(|values| values.iter().map(shown).collect::<Vec<_>>());
            assert_eq!(values, want.map(|it| it.iter().map(|&it| it.into()).collect()), "{text}");
        }
    }

    #[test]
    fn values() {
        let value = |text| Value { line: 3, name: "n", text };
        let number = |text| value(text).number(0..=256).map_err(|it| it.to_string());
        let out = |text: &str| Err(format!("line 3: n {text:?} is not a number from 0 to 256"));
        for (text, want) in [
            ("0", Ok(0)),
            ("256", Ok(256)),
            ("257", out("257")),
            ("-1", out("-1")),
            ("+1", out("+1")),
            ("0x1", out("0x1")),
            ("99999999999", out("99999999999")),
        ] {
            assert_eq!(number(text), want, "{text}");
        }
        for (text, good) in [
            ("40c52c12-68e1-5926-83e7-88107bce47cb", true),
            ("40C52c12-68e1-5926-83e7-88107bce47cb", false),
            ("40c52c12068e1-5926-83e7-88107bce47cb", false),
            ("40c52c12-68e1-5926-83e7-88107bce47c", false),
            ("40c52c12-68e1-5926-83e7-88107bce47cb0", false),
            ("../../../../../../../../../etc/passwd", false),
        ] {
            let want = if good {
                Ok(text.to_owned())
            } else {
                Err(format!("line 3: n {text:?} is not a UUID"))
            };
            assert_eq!(value(text).uuid().map_err(|it| it.to_string()), want);
        }
    }

    /// A line is refused when its turn comes, not when it is looked at.
    #[test]
    fn in_order() {
        let mut lines = Lines::of("a\n\nb c\n$\n");
        assert_eq!(lines.need::<0>("a").map(|_| lines.taken()), Ok(1));
        assert!(lines.when::<0>("a").is_none());
        assert_eq!(lines.need::<1>("b <c>").map(|[c]| (c.line, c.text)), Ok((3, "c")));
        assert!(lines.when::<0>("d").is_none());
        let refused = lines.need::<0>("d").map(|_| ()).map_err(|it| it.to_string());
        assert_eq!(refused, Err("line 4: \"$\" has a variable".into()));
        let mut lines = Lines::of("a\n");
        let refused = lines.need::<0>("b").map(|_| ()).map_err(|it| it.to_string());
        assert_eq!(refused, Err("line 1: \"a\" stands where \"b\" has to".into()));
        let refused = Lines::of("a").end().map_err(|it| it.to_string());
        assert_eq!(refused, Err("line 1: \"a\" stands where the file has to end".into()));
    }
}
