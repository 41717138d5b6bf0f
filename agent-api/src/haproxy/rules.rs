//! What a frontend does by layer 7: ACLs, and what follows from them.
//!
//! Values are tenants' text. HAProxy gets these lines as they are, so each must be one of a few forms.

use super::values::{Target, Value};
use super::words::Line;
use crate::refused::Refused;

/// A line of layer 7, understood as far as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As HAProxy takes them; order matters.
    words: Vec<String>,
    /// The backend it leads to.
    pub target: Option<Target>,
}

/// Of a line that begins with one of the directives; none if it does not.
pub fn rule(line: &Line) -> Result<Option<Rule>, Refused> {
    let words = line.words();
    let mut target = None;
    match &words[..] {
        ["acl", id, test @ ..] => {
            Value::of(line, id).uuid()?;
            acl(line, test)?;
        }
        ["http-request", "deny", condition @ ..] => self::condition(line, condition)?,
        // That every request goes to TLS is a directive of its own.
        ["redirect", "scheme", ..] => return Ok(None),
        ["redirect", "code", code, redirect @ ..] => {
            Value::of(line, code).number(300, 399)?;
            self::redirect(line, redirect)?;
        }
        ["redirect", redirect @ ..] => self::redirect(line, redirect)?,
        ["use_backend", name, condition @ ..] => {
            target = Some(Value::of(line, name).target()?);
            self::condition(line, condition)?;
        }
        _ => return Ok(None),
    }
    let words = words.into_iter().map(str::to_owned).collect();
    Ok(Some(Rule { words, target }))
}

/// A fetch, flags, and one value. A `#` in the value has cut the rest off.
fn acl(line: &Line, test: &[&str]) -> Result<(), Refused> {
    let unknown = || line.refused("it is not an ACL that Octavia writes");
    let [fetch, test @ ..] = test else {
        return Err(unknown());
    };
    let fetch = Value::of(line, fetch);
    match fetch.text {
        "ssl_c_used" => return if test.is_empty() { Ok(()) } else { Err(unknown()) },
        "ssl_c_verify" => {
            return match test {
                ["eq", value] => Value::of(line, value).number(0, u32::MAX).map(drop),
                _ => Err(unknown()),
            };
        }
        "path" | "path_end" => {}
        text if text.starts_with("req.hdr(") => drop(fetch.argument("req.hdr")?),
        text if text.starts_with("req.cook(") => drop(fetch.argument("req.cook")?),
        text if text.starts_with("ssl_c_s_dn(") => drop(fetch.argument("ssl_c_s_dn")?),
        _ => return Err(unknown()),
    }
    let test = test.strip_prefix(&["-i"]).unwrap_or(test);
    let value = match test {
        ["-m", "reg" | "beg" | "end" | "sub" | "str", value @ ..] => value,
        ["-m", ..] => return Err(unknown()),
        value => value,
    };
    match value {
        [] => Ok(()),
        // A flag that reads patterns from a file, for one.
        [value] if value.starts_with('-') => Err(line.refused("the value of an ACL is a flag")),
        [_] => Ok(()),
        _ => Err(line.refused("an ACL has more than one value")),
    }
}

/// A `#` in the address has cut the condition off.
fn redirect(line: &Line, words: &[&str]) -> Result<(), Refused> {
    match words {
        ["location" | "prefix", url, condition @ ..] => {
            Value::of(line, url).plain()?;
            self::condition(line, condition)
        }
        _ => Err(line.refused("it is not a redirect that Octavia writes")),
    }
}

/// ACLs that must all hold, some of them not.
fn condition(line: &Line, words: &[&str]) -> Result<(), Refused> {
    match words {
        [] => Ok(()),
        ["if", acls @ ..] => acls.iter().try_for_each(|acl| {
            Value::of(line, acl.strip_prefix('!').unwrap_or(acl)).uuid().map(drop)
        }),
        _ => Err(line.refused("a condition begins with `if`")),
    }
}
