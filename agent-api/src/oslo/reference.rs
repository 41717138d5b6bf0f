//! `$name` in a value: the value of another option.

use super::File;

/// An option that a program knows (oslo: has registered). Only such may be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// In lower case, or `DEFAULT`.
    pub section: &'static str,
    pub key: &'static str,
    /// Its text where no file has one; may hold references itself.
    pub default: Option<&'static str>,
}

/// Why an option has no value, though it has a text.
///
/// They say where the reference stands, not how it reads: the text may be a secret. `at` counts bytes
/// of the value, the first being 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("[{section}] {key}: the $ at byte {at} names no option that is known; $$ is a dollar")]
    Unknown { section: &'static str, key: &'static str, at: usize },
    #[error("[{section}] {key}: the $ at byte {at} leads back to itself")]
    Endless { section: &'static str, key: &'static str, at: usize },
    #[error("[{section}] {key}: more than {max} bytes with all that it refers to")]
    TooLong { section: &'static str, key: &'static str, max: usize },
}

/// Bytes that may be read for one value. References to references of references multiply; a file of a
/// few hundred bytes could ask for more than memory holds. No text of Octavia's is a hundredth of it.
const VALUE_BYTES_MAX: usize = 1 << 16;

impl File {
    /// The value of an option: its text, or else its default, with what it refers to in place.
    ///
    /// - `$name` and `${name}` name an option of the same section, or else of `DEFAULT`;
    ///   `$section.name` one of another section. A name takes as many of `A-Z a-z 0-9 _ .` as there are
    ///   and begins with none of the digits nor the dot.
    /// - `$$` and `\$` are a dollar, and so is one that begins no name.
    /// - An option without text or default is referred to as nothing.
    ///
    /// oslo.config puts typed values in place, in Python's notation: `True` for `yes`, `['a', 'b']` for
    /// `a, b`. Here it is the text, for no option is referred to like that.
    pub fn value(&self, option: &Known, known: &[Known]) -> Result<Option<String>, Unread> {
        let mut reading = Reading { file: self, known, within: Vec::new(), bytes: 0 };
        reading.value(option)
    }
}

struct Reading<'a> {
    file: &'a File,
    known: &'a [Known],
    /// The options whose values are being put together, each referred to by the one before.
    within: Vec<Known>,
    /// Bytes read so far.
    bytes: usize,
}

impl Reading<'_> {
    fn value(&mut self, option: &Known) -> Result<Option<String>, Unread> {
        let &Known { section, key, default } = option;
        let Some(text) = self.file.text(section, key).or(default) else { return Ok(None) };
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > VALUE_BYTES_MAX {
            return Err(Unread::TooLong { section, key, max: VALUE_BYTES_MAX });
        }
        self.within.push(*option);

        // oslo.config does this first, so that the dollar before a `\$` escapes the one in it.
        let text = text.replace(r"\$", "$$");
        let mut value = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            let at = text.len() - after.len() - 1;
            value.push_str(before);
            rest = if let Some(after) = after.strip_prefix('$') {
                value.push('$');
                after
            } else if let Some((name, after)) = name(after) {
                let other = self.find(section, name);
                let other = other.ok_or(Unread::Unknown { section, key, at })?;
                if self.within.contains(&other) {
                    return Err(Unread::Endless { section, key, at });
                }
                value.push_str(&self.value(&other)?.unwrap_or_default());
                after
            } else {
                value.push('$');
                after
            };
        }
        value.push_str(rest);

        self.within.pop();
        Ok(Some(value))
    }

    /// The option that a name means when it stands in a section.
    fn find(&self, section: &str, name: &str) -> Option<Known> {
        let find = |section: &str, key: &str| {
            self.known.iter().find(|it| it.section == section && it.key == key).copied()
        };
        match name.split_once('.') {
            // To oslo.config DEFAULT is no section by that name.
            Some(("DEFAULT", _)) => None,
            Some((section, key)) => find(section, key),
            None => find(section, name).or_else(|| find("DEFAULT", name)),
        }
    }
}

/// The name that stands behind a dollar, and what follows it.
fn name(after: &str) -> Option<(&str, &str)> {
    let braced = after.strip_prefix('{');
    let text = braced.unwrap_or(after);
    if !text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return None;
    }
    let ends = |it: char| !it.is_ascii_alphanumeric() && !matches!(it, '_' | '.');
    let (name, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    match braced {
        Some(_) => Some((name, rest.strip_prefix('}')?)),
        None => Some((name, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Known = Known { section: "g", key: "a", default: None };
    const KNOWN: [Known; 4] = [
        A,
        Known { section: "g", key: "b", default: None },
        Known { section: "g", key: "c", default: Some("$a") },
        Known { section: "DEFAULT", key: "d", default: None },
    ];

    /// Which error it is, and of what; `as_oslo_config_reads` has the values.
    #[test]
    fn errors() {
        let unknown = |key, at| Err(Unread::Unknown { section: "g", key, at });
        let endless = |key, at| Err(Unread::Endless { section: "g", key, at });
        let too_long = |section, key| Err(Unread::TooLong { section, key, max: VALUE_BYTES_MAX });
        let doubling = "a = $b$b$b$b$b$b$b$b\nb = $d$d$d$d$d$d$d$d\n[DEFAULT]\nd = ".to_owned();
        let rows = [
            ("unknown", "a = x$y".to_owned(), unknown("a", 1)),
            ("unknown, after escapes", r"a = \$$$$y".to_owned(), unknown("a", 4)),
            ("unknown, further on", "a = $b\nb = 漢${y}".to_owned(), unknown("b", 3)),
            ("oneself", "a = --$a".to_owned(), endless("a", 2)),
            ("a ring", "a = $b\nb = 1$g.a".to_owned(), endless("b", 1)),
            ("a ring by way of a default", "a = $c".to_owned(), endless("c", 0)),
            ("twice is no ring", "a = $b$b\nb = $d\n[DEFAULT]\nd = 1".to_owned(), Ok("11")),
            ("long", format!("a = {}", "x".repeat(VALUE_BYTES_MAX + 1)), too_long("g", "a")),
            ("multiplied", doubling.clone() + &"x".repeat(1100), too_long("DEFAULT", "d")),
            ("multiplied nothing", doubling, Ok("")),
        ];
        for (row, text, want) in rows {
            let file = File::parse(&format!("[g]\n{text}")).unwrap();
            let want = want.map(|value| Some(value.to_owned()));
            assert_eq!(file.value(&A, &KNOWN), want, "{row}");
        }
        let file = File::parse(&format!("[g]\na = {}", "x".repeat(VALUE_BYTES_MAX))).unwrap();
        let value = file.value(&A, &KNOWN).unwrap();
        assert_eq!(value.map(|it| it.len()), Some(VALUE_BYTES_MAX), "as long as may be");
    }

    proptest! {
        #[test]
        fn dollars_escaped_are_dollars(value in r"[^\r\n\\]{0,20}") {
            let text = format!("[g]\na = '{}'", value.replace('$', "$$"));
            let file = File::parse(&text).unwrap();
            prop_assert_eq!(file.value(&A, &KNOWN), Ok(Some(value)));
        }
    }
}
