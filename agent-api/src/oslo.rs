//! Files in the dialect of INI that oslo.config reads, and so Octavia and its agent.
//!
//! The rules were found by running it: `tests/vectors/oslo/make.py` writes down what it makes of each
//! row of the tests.

mod reference;
mod value;

use std::collections::BTreeMap;
use std::fmt;

pub use reference::{Known, Unread};
pub use value::{address, boolean, integer, list};

/// The sections of a file, each with its keys and their texts as found.
///
/// - `key = value` or `key: value`, whichever separator comes first; blanks around both are dropped,
///   and so are like quotes around the value.
/// - A line that begins with a blank or a tab continues the value above it, after a newline. Nothing
///   else may stand between them: an empty line and a comment end a value.
/// - A comment begins with `#` or `;` in the first column. An indented one is a continuation, and one
///   behind a value is part of it.
/// - A section that stands twice is one section; of a key that stands twice the last counts.
/// - Section names do not differ by case, except that `DEFAULT` must be written so. Keys do, and a
///   dash in them is no underscore.
///
/// Values may hold keys of heartbeats: neither `Debug` here nor any error shows them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct File {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why a text is no such file, and the line, the first being 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line}: neither a section, a comment nor `key = value`")]
    NoSeparator { line: usize },
    #[error("line {line}: a value without a key")]
    NoKey { line: usize },
    /// oslo.config names the line after the value; this is that of the key.
    #[error("line {line}: a key before the first section")]
    NoSection { line: usize },
    #[error("line {line}: a continuation of nothing")]
    NothingToContinue { line: usize },
    #[error("line {line}: a section that does not end with ]")]
    OpenSection { line: usize },
    #[error("line {line}: a section without a name")]
    NamelessSection { line: usize },
}

impl File {
    /// Reads a whole file; the first error is the one returned.
    pub fn parse(text: &str) -> Result<Self, Error> {
        // Python's "universal newlines": any of the three ends a line.
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut file = Self::default();
        let mut section: Option<String> = None;
        // Section and key of the value that a continuation would continue.
        let mut open: Option<(String, String)> = None;
        for (line, text) in (1..).zip(text.split('\n')) {
            let text = text.trim_end_matches(blank);
            if text.starts_with([' ', '\t']) {
                let (section, key) = open.as_ref().ok_or(Error::NothingToContinue { line })?;
                let value = file.entry(section, key);
                value.push('\n');
                value.push_str(text.trim_start_matches(blank));
                continue;
            }
            open = None;
            if let Some(name) = text.strip_prefix('[') {
                let name = name.strip_suffix(']').ok_or(Error::OpenSection { line })?;
                if name.is_empty() {
                    return Err(Error::NamelessSection { line });
                }
                let name = section_name(name);
                file.sections.entry(name.clone()).or_default();
                section = Some(name);
            } else if !text.is_empty() && !text.starts_with(['#', ';']) {
                let (key, value) =
                    text.split_once(['=', ':']).ok_or(Error::NoSeparator { line })?;
                let key = key.trim_matches(blank);
                if key.is_empty() {
                    return Err(Error::NoKey { line });
                }
                let section = section.as_ref().ok_or(Error::NoSection { line })?;
                *file.entry(section, key) = without_quotes(value.trim_matches(blank)).to_owned();
                open = Some((section.clone(), key.to_owned()));
            }
        }
        Ok(file)
    }

    /// The text of a key as found, before substitution; [`File::value`] gives what it stands for.
    pub fn text(&self, section: &str, key: &str) -> Option<&str> {
        let keys = self.sections.get(&section_name(section))?;
        keys.get(key).map(String::as_str)
    }

    /// Sections and keys of all that is there.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let sections = self.sections.iter();
        sections.flat_map(|(section, keys)| keys.keys().map(move |key| (&section[..], &key[..])))
    }

    fn entry(&mut self, section: &str, key: &str) -> &mut String {
        let keys = self.sections.entry(section.to_owned()).or_default();
        keys.entry(key.to_owned()).or_default()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = |keys: &BTreeMap<String, String>| keys.keys().cloned().collect::<Vec<_>>();
        f.debug_map()
            .entries(self.sections.iter().map(|(name, section)| (name, keys(section))))
            .finish()
    }
}

fn section_name(name: &str) -> String {
    if name == "DEFAULT" { name.to_owned() } else { name.to_lowercase() }
}

fn without_quotes(value: &str) -> &str {
    match value.chars().next() {
        // A quote alone begins and ends with the same one, and nothing is left of it.
        Some(quote @ ('"' | '\'')) if value.ends_with(quote) => {
            value.get(1..value.len() - 1).unwrap_or_default()
        }
        _ => value,
    }
}

/// What Python's `str.strip` drops: Unicode's white space and the separators of ASCII.
fn blank(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// What oslo.config said, by `tests/vectors/oslo/make.py`.
    const ROWS: &str = include_str!("../../tests/vectors/oslo/rows.json");

    /// Its `OPTIONS`.
    #[rustfmt::skip]
    const KNOWN: [Known; 7] = [
        Known { section: "DEFAULT", key: "a", default: None },
        Known { section: "DEFAULT", key: "b", default: None },
        Known { section: "DEFAULT", key: "c", default: Some("see") },
        Known { section: "g", key: "a", default: None },
        Known { section: "g", key: "key", default: None },
        Known { section: "g", key: "by_default", default: Some("<$c>") },
        Known { section: "h_1", key: "a", default: None },
    ];

    type Sections = BTreeMap<String, BTreeMap<String, String>>;

    #[test]
    fn as_oslo_config_reads() {
        let rows: Value = serde_json::from_str(ROWS).unwrap();
        let known = KNOWN.map(
            |it| serde_json::json!({ "section": it.section, "key": it.key, "default": it.default }),
        );
        assert_eq!(rows["options"], Value::from(known.to_vec()));
        let rows = rows["files"].as_array().unwrap();
        assert!(rows.len() >= 100, "{} rows", rows.len());
        for row in rows {
            let (name, text) = (&row["name"], row["text"].as_str().unwrap());
            let file = match File::parse(text) {
                Ok(file) => file,
                Err(error) => {
                    assert_eq!(fails(&error), row["fails"], "{name}");
                    continue;
                }
            };
            assert_eq!(serde_json::json!(file.sections), row["sections"], "{name}");
            let (mut values, mut errors) = (serde_json::Map::new(), Vec::new());
            for option in &KNOWN {
                let key = format!("{}.{}", option.section, option.key);
                match file.value(option, &KNOWN) {
                    Ok(Some(value)) => drop(values.insert(key, value.into())),
                    Ok(None) => {}
                    Err(_) => errors.push(key),
                }
            }
            assert_eq!(Value::from(values), row["values"], "{name}");
            assert_eq!(Value::from(errors), row["errors"], "{name}");
        }
    }

    /// The error in oslo.config's words.
    fn fails(error: &Error) -> Value {
        let (line, what) = match error {
            Error::NoSeparator { line } => (line, "No ':' or '=' found in assignment"),
            Error::NoKey { line } => (line, "Key cannot be empty"),
            Error::NoSection { line } => (line, "Section must be started before assignment"),
            Error::NothingToContinue { line } => (line, "Unexpected continuation line"),
            Error::OpenSection { line } => (line, "Invalid section (must end with ])"),
            Error::NamelessSection { line } => (line, "Empty section name"),
        };
        serde_json::json!({ "line": line, "what": what })
    }

    /// What has no row there: our line numbers, and what is asked for in another case.
    #[test]
    fn otherwise() {
        let error = File::parse("\na = 1\n  2\n\n[g]\n").unwrap_err();
        assert_eq!(error, Error::NoSection { line: 2 });
        let file = File::parse("[G]\nkey = $a\n").unwrap();
        let rows = [
            (("g", "key"), Some("$a")),
            (("G", "key"), Some("$a")),
            (("g", "KEY"), None),
            (("DEFAULT", "key"), None),
        ];
        for ((section, key), want) in rows {
            assert_eq!(file.text(section, key), want, "[{section}] {key}");
        }
    }

    #[test]
    fn no_values_are_shown() {
        let file = File::parse("[health_manager]\nheartbeat_key = insecure\n").unwrap();
        assert_eq!(format!("{file:?}"), r#"{"health_manager": ["heartbeat_key"]}"#);
        let error = File::parse("[health_manager]\ninsecure\n").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("insecure"), "{error:?}");
    }

    /// Lines for one assignment, the key and the value.
    fn assignment() -> impl Strategy<Value = (String, String, String)> {
        let key = "[A-Za-z_&][A-Za-z0-9_ -]{0,6}[a-z]";
        let separator = prop::sample::select(vec![" = ", "=", ":", "\t:  "]);
        let first = r#"[^\r\n]{0,12}"#;
        let others = prop::collection::vec(r"[!-~é漢]([!-~ é]{0,6}[!-~])?", 0..3);
        (key, separator, first, others).prop_map(|(key, separator, first, others)| {
            let mut text = format!("{key}{separator}\"{first}\"\n");
            let mut value = first;
            for other in others {
                text += &format!("\t{other} \n");
                value = value + "\n" + &other;
            }
            (text, key, value)
        })
    }

    proptest! {
        #[test]
        fn reads_what_was_written(
            written in prop::collection::vec(
                ("[a-z_]([a-z_ .=]{0,6}[a-z])?", prop::collection::vec(assignment(), 0..4)),
                0..6,
            ),
            between in prop::sample::select(vec!["", "\n", "# a = b\n", ";\n\n", " \n"]),
            ends in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let (mut text, mut want) = (String::new(), Sections::new());
            for (section, assignments) in written {
                text += &format!("[{section}]\n{between}");
                let keys = want.entry(section).or_default();
                for (lines, key, value) in assignments {
                    text += &(lines + between);
                    keys.insert(key, value);
                }
            }
            let file = File::parse(&text.replace('\n', ends)).unwrap();
            prop_assert_eq!(file.sections, want);
        }

        #[test]
        fn never_panics(text in r#"(\[(DEFAULT|g)\]\n)?([ abc$\\{}.\n\r\t='"\[\]:#g]|\PC){0,60}"#) {
            if let Ok(file) = File::parse(&text) {
                for option in &KNOWN {
                    let _ = file.value(option, &KNOWN);
                }
            }
        }
    }
}
