//! Files in the dialect of oslo.config, by which OpenStack's services are configured.
//!
//! As oslo.config 9 reads them (`iniparser.py`, `cfg.py`, `types.py`), found by running it.

use std::collections::BTreeMap;

/// What a file says, by section and key, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    sections: BTreeMap<String, BTreeMap<String, Written>>,
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    line: usize,
    text: String,
}

/// Why a file, or a value of it, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line}: {fault}")]
    Form { line: usize, fault: Fault },
    #[error("line {line}: [{section}] {key}: ${name} is no option")]
    NoSuchOption { line: usize, section: String, key: String, name: String },
    #[error("line {line}: [{section}] {key}: it is made of itself")]
    Circular { line: usize, section: String, key: String },
    #[error("line {line}: [{section}] {key} = {value:?}: not {wanted}")]
    Value { line: usize, section: String, key: String, value: String, wanted: String },
}

/// The words are oslo's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("section must be started before assignment")]
    NoSection,
    #[error("unexpected continuation line")]
    Continuation,
    #[error("no ':' or '=' found in assignment")]
    NoAssignment,
    #[error("key cannot be empty")]
    NoKey,
    #[error("invalid section (must end with ])")]
    SectionEnd,
    #[error("empty section name")]
    SectionName,
}

/// What options are when the file does not say; none where there is no such option.
pub type Defaults = fn(section: &str, key: &str) -> Option<&'static str>;

/// How often a value may be made of others that are made of others.
const DEPTH_MAX: usize = 16;
/// Characters of a value once it is made; a few lines can ask for any number.
const LENGTH_MAX: usize = 64 << 10;

impl File {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut file = Self::default();
        let mut section: Option<String> = None;
        // The key that the next line may go on with.
        let mut open: Option<String> = None;
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        for (at, line) in text.split('\n').enumerate() {
            let failed = |fault| Error::Form { line: at + 1, fault };
            let line = line.trim_end_matches(is_blank);
            if line.is_empty() {
                open = None;
            } else if line.starts_with([' ', '\t']) {
                let more = line.trim_start_matches(is_blank);
                let value = file.last(section.as_ref(), open.as_ref());
                let value = value.ok_or(failed(Fault::Continuation))?;
                value.text.push('\n');
                value.text.push_str(more);
            } else if let Some(name) = line.strip_prefix('[') {
                open = None;
                let name = name.strip_suffix(']').ok_or(failed(Fault::SectionEnd))?;
                if name.is_empty() {
                    return Err(failed(Fault::SectionName));
                }
                section = Some(canonical(name));
            } else if line.starts_with(['#', ';']) {
                open = None;
            } else {
                let (key, text) = assignment(line).map_err(failed)?;
                let name = section.clone().ok_or(failed(Fault::NoSection))?;
                let written = Written { line: at + 1, text: text.to_owned() };
                file.sections.entry(name).or_default().insert(key.to_owned(), written);
                open = Some(key.to_owned());
            }
        }
        Ok(file)
    }

    fn last(&mut self, section: Option<&String>, key: Option<&String>) -> Option<&mut Written> {
        self.sections.get_mut(section?)?.get_mut(key?)
    }

    /// A value with all that it is made of in its place; its default where the file has none.
    pub fn text(
        &self,
        section: &str,
        key: &str,
        defaults: Defaults,
    ) -> Result<Option<String>, Error> {
        let whole = Reader { file: self, defaults, line: self.line(section, key), section, key };
        whole.value(section, key, 0)
    }

    /// As Python's `int` takes it. An empty value is none.
    pub fn integer(
        &self,
        section: &str,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
        defaults: Defaults,
    ) -> Result<Option<i64>, Error> {
        let Some(text) = self.text(section, key, defaults)? else {
            return Ok(None);
        };
        let bare = text.trim_matches(is_blank);
        if bare.is_empty() {
            return Ok(None);
        }
        let number = integer(bare).filter(|number| range.contains(number));
        let wanted = || format!("a number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| self.bad(section, key, &text, wanted()))
    }

    pub fn boolean(
        &self,
        section: &str,
        key: &str,
        defaults: Defaults,
    ) -> Result<Option<bool>, Error> {
        let Some(text) = self.text(section, key, defaults)? else {
            return Ok(None);
        };
        match &text.to_lowercase()[..] {
            "true" | "1" | "on" | "yes" => Ok(Some(true)),
            "false" | "0" | "off" | "no" => Ok(Some(false)),
            _ => Err(self.bad(section, key, &text, "true or false".to_owned())),
        }
    }

    /// Items without the blanks around them; empty ones are left out.
    pub fn list(&self, section: &str, key: &str, defaults: Defaults) -> Result<Vec<String>, Error> {
        let text = self.text(section, key, defaults)?.unwrap_or_default();
        let items = text.split(',').map(|item| item.trim_matches(is_blank));
        Ok(items.filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    /// That a value is not what is wanted.
    pub fn bad(&self, section: &str, key: &str, value: &str, wanted: String) -> Error {
        Error::Value {
            line: self.line(section, key),
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            wanted,
        }
    }

    fn written(&self, section: &str, key: &str) -> Option<&Written> {
        self.sections.get(&canonical(section))?.get(key)
    }

    /// 0 for what the file does not have.
    fn line(&self, section: &str, key: &str) -> usize {
        self.written(section, key).map_or(0, |written| written.line)
    }
}

/// Puts together the value of a key.
struct Reader<'a> {
    file: &'a File,
    defaults: Defaults,
    /// For errors: the key that was asked for.
    line: usize,
    section: &'a str,
    key: &'a str,
}

impl Reader<'_> {
    fn value(&self, section: &str, key: &str, depth: usize) -> Result<Option<String>, Error> {
        match self.file.written(section, key) {
            Some(written) => self.substituted(section, &written.text, depth).map(Some),
            None => (self.defaults)(section, key)
                .filter(|default| !default.is_empty())
                .map(|default| self.substituted(section, default, depth))
                .transpose(),
        }
    }

    /// `$name`, `${name}`, `$group.name`, and `$$` or `\$` for a dollar. One that is none of these is
    /// itself. Names are those of the section, else of `DEFAULT`.
    fn substituted(&self, section: &str, text: &str, depth: usize) -> Result<String, Error> {
        let circular = || Error::Circular {
            line: self.line,
            section: self.section.to_owned(),
            key: self.key.to_owned(),
        };
        if depth > DEPTH_MAX {
            return Err(circular());
        }
        let text = text.replace("\\$", "$$");
        let mut whole = String::new();
        let mut rest = &text[..];
        while let Some((before, after)) = rest.split_once('$') {
            whole.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                whole.push('$');
                rest = after;
            } else if let Some((name, after)) = reference(after) {
                whole.push_str(&self.named(section, name, depth)?);
                rest = after;
            } else {
                whole.push('$');
                rest = after;
            }
            if whole.len() > LENGTH_MAX {
                return Err(circular());
            }
        }
        whole.push_str(rest);
        Ok(whole)
    }

    fn named(&self, section: &str, name: &str, depth: usize) -> Result<String, Error> {
        let (group, option) = name.split_once('.').unwrap_or((section, name));
        for (group, option) in [(group, option), ("DEFAULT", name)] {
            let known = (self.defaults)(group, option).is_some();
            if known || self.file.written(group, option).is_some() {
                return Ok(self.value(group, option, depth + 1)?.unwrap_or_default());
            }
        }
        Err(Error::NoSuchOption {
            line: self.line,
            section: self.section.to_owned(),
            key: self.key.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// The name at the beginning, and what is behind it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let text = braced.unwrap_or(text);
    if !text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return None;
    }
    let inside = |next: char| next.is_ascii_alphanumeric() || matches!(next, '_' | '.');
    let (name, rest) = text.split_at(text.find(|next| !inside(next)).unwrap_or(text.len()));
    match braced {
        Some(_) => Some((name, rest.strip_prefix('}')?)),
        None => Some((name, rest)),
    }
}

/// `key = value` or `key: value`; a value within quotes is what is between them.
fn assignment(line: &str) -> Result<(&str, &str), Fault> {
    let (key, value) = line.split_once(['=', ':']).ok_or(Fault::NoAssignment)?;
    let (key, value) = (key.trim_matches(is_blank), value.trim_matches(is_blank));
    if key.is_empty() {
        return Err(Fault::NoKey);
    }
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            // A quote alone is the first and the last.
            let bare = if rest.is_empty() { Some(rest) } else { rest.strip_suffix(quote) };
            return Ok((key, bare.unwrap_or(value)));
        }
    }
    Ok((key, value))
}

/// Digits with single underscores between them, and a sign.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let parts = digits.split('_');
    let plain = parts
        .clone()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let number: i64 = parts.collect::<String>().parse().ok().filter(|_| plain)?;
    Some(if text.starts_with('-') { -number } else { number })
}

/// Sections are the same in capitals, except for the one that is called `DEFAULT`.
fn canonical(section: &str) -> String {
    if section == "DEFAULT" { section.to_owned() } else { section.to_lowercase() }
}

/// What Python strips.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    const ROWS: &str = include_str!("../../tests/vectors/oslo/rows.json");

    #[derive(Deserialize)]
    struct Row {
        text: String,
        /// Of what is not a file.
        line: Option<usize>,
        #[serde(default)]
        values: BTreeMap<String, Value>,
    }

    /// The options that the rows were made with.
    fn options(section: &str, key: &str) -> Option<&'static str> {
        let known: &[&str] = match section {
            "DEFAULT" => &["a", "b", "c", "d", "dash_key", "list", "int", "bool"],
            "health_manager" => &["heartbeat_key", "a", "x"],
            _ => &[],
        };
        known.contains(&key).then_some("")
    }

    /// Where we differ from oslo, and why.
    const OTHERWISE: [(&str, &str); 1] = [
        // Octavia drops empty items later, wherever it reads a list.
        ("[DEFAULT]\nlist = a, b ,,c,", r#"{"DEFAULT.list":["a","b","c"]}"#),
    ];

    #[test]
    fn as_oslo_reads_them() {
        let rows: Vec<Row> = serde_json::from_str(ROWS).unwrap();
        assert!(rows.len() >= 90, "{} rows", rows.len());
        for Row { text, line, mut values } in rows {
            if let Some((_, otherwise)) = OTHERWISE.iter().find(|(other, _)| *other == text) {
                values = serde_json::from_str(otherwise).unwrap();
            }
            let file = match (File::parse(&text), line) {
                (Ok(file), None) => file,
                (Err(Error::Form { line, .. }), Some(want)) => {
                    assert_eq!(line, want, "{text:?}");
                    continue;
                }
                (got, want) => panic!("{text:?}: {got:?}, and oslo fails on {want:?}"),
            };
            for key in ["a", "b", "c", "d", "dash_key"] {
                same(&text, &values, "DEFAULT", key, file.text("DEFAULT", key, options));
            }
            for key in ["heartbeat_key", "a", "x"] {
                same(
                    &text,
                    &values,
                    "health_manager",
                    key,
                    file.text("health_manager", key, options),
                );
            }
            let range = i64::MIN..=i64::MAX;
            same(&text, &values, "DEFAULT", "int", file.integer("DEFAULT", "int", range, options));
            same(&text, &values, "DEFAULT", "bool", file.boolean("DEFAULT", "bool", options));
            if text.contains("list") {
                let list = file.list("DEFAULT", "list", options).map(Some);
                same(&text, &values, "DEFAULT", "list", list);
            }
        }
    }

    fn same<T: Into<Value>>(
        text: &str,
        values: &BTreeMap<String, Value>,
        section: &str,
        key: &str,
        ours: Result<Option<T>, Error>,
    ) {
        let want = values.get(&format!("{section}.{key}"));
        let ours = match ours {
            Ok(value) => value.map(Into::into),
            Err(_) => Some(serde_json::json!({ "error": true })),
        };
        assert_eq!(ours.as_ref(), want, "{text:?}: [{section}] {key}");
    }

    #[test]
    fn errors() {
        let rows = [
            ("x = 1", "line 1: section must be started before assignment"),
            ("[a]\n x = 1", "line 2: unexpected continuation line"),
            ("[a]\nx", "line 2: no ':' or '=' found in assignment"),
            ("[a]\n\n= 1", "line 3: key cannot be empty"),
            ("[a\n", "line 1: invalid section (must end with ])"),
            ("[]", "line 1: empty section name"),
        ];
        for (text, want) in rows {
            assert_eq!(File::parse(text).unwrap_err().to_string(), want, "{text:?}");
        }
        let values = [
            ("x = $y", "line 2: [a] x: $y is no option"),
            ("x = $x", "line 2: [a] x: it is made of itself"),
            ("x = $b$b\nb = $c$c\nc = $x", "line 2: [a] x: it is made of itself"),
        ];
        for (text, want) in values {
            let file = File::parse(&format!("[a]\n{text}")).unwrap();
            assert_eq!(file.text("a", "x", |_, _| None).unwrap_err().to_string(), want, "{text:?}");
        }
    }

    /// A few lines that would be a terabyte.
    #[test]
    fn grows() {
        let mut text = "[a]\nx0 = 0123456789\n".to_owned();
        for at in 1..15 {
            let last = format!("${{x{}}}", at - 1);
            text += &format!("x{at} = {}\n", last.repeat(10));
        }
        let file = File::parse(&text).unwrap();
        assert!(matches!(file.text("a", "x14", |_, _| None), Err(Error::Circular { .. })));
    }

    proptest! {
        #[test]
        fn any_text(text in "[\\[\\]a-c=: \"'$\\\\{}#;\r\n\t]{0,80}") {
            if let Ok(file) = File::parse(&text) {
                let _ = file.text("a", "b", options);
                let _ = file.text("DEFAULT", "a", options);
            }
        }

        /// What is written plainly comes back.
        #[test]
        fn written(values in prop::collection::btree_map("[a-z_]{1,8}", "[A-Za-z0-9.,:/&;-]{0,20}", 0..8)) {
            let lines: String =
                values.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
            let file = File::parse(&format!("[s]\n{lines}")).unwrap();
            for (key, value) in values {
                prop_assert_eq!(file.text("s", &key, |_, _| None).unwrap(), Some(value));
            }
        }
    }
}
