//! Values that directives have, each with the characters that it may be of.

use std::net::IpAddr;
use std::path::Path;

use winnow::Parser;
use winnow::combinator::{delimited, opt, preceded, repeat, separated_pair, terminated};
use winnow::error::ContextError;
use winnow::token::take_while;

use super::words::Line;
use crate::grammar::{self, shown};
use crate::paths::Paths;
use crate::refused::Refused;

/// A pool as a listener uses it: the name of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub pool: String,
    pub listener: String,
}

/// A value's line, for what is wrong with it.
pub struct Value<'a> {
    pub line: &'a Line,
    pub text: &'a str,
}

impl<'a> Value<'a> {
    pub fn of(line: &'a Line, text: &'a str) -> Self {
        Self { line, text }
    }

    fn not(&self, what: &str) -> Refused {
        self.line.refused(format!("{} is not {what}", shown(self.text)))
    }

    pub fn uuid(&self) -> Result<String, Refused> {
        grammar::uuid.parse(self.text).map_err(|_| self.not("a UUID"))
    }

    pub fn number(&self, least: u32, most: u32) -> Result<u32, Refused> {
        let parsed = grammar::number(least..=most).parse(self.text);
        parsed.map_err(|_| self.not(&format!("a number from {least} to {most}")))
    }

    /// A number with an `s` behind it, as large as HAProxy takes: its timers are of 31 bits of
    /// milliseconds. It refuses 0 for `inter` itself.
    pub fn seconds(&self) -> Result<u32, Refused> {
        let parsed = (grammar::number(1..=2_147_483), 's').parse(self.text);
        parsed.map(|(seconds, _)| seconds).map_err(|_| self.not("a number of seconds"))
    }

    /// Up to a thousand, which is far above what Octavia takes.
    pub fn times(&self) -> Result<u16, Refused> {
        Ok(u16::try_from(self.number(1, 1000)?).unwrap_or(u16::MAX))
    }

    pub fn address(&self) -> Result<IpAddr, Refused> {
        grammar::address.parse(self.text).map_err(|_| self.not("an IP address"))
    }

    pub fn port(&self) -> Result<u16, Refused> {
        grammar::port.parse(self.text).map_err(|_| self.not("a port"))
    }

    /// An address and, after the last colon, a port. IPv6 has no brackets.
    pub fn socket(&self) -> Result<(IpAddr, u16), Refused> {
        let failed = || self.not("an address and a port");
        let (address, port) = self.text.rsplit_once(':').ok_or_else(failed)?;
        let socket = (grammar::address.parse(address), grammar::port.parse(port));
        let (Ok(address), Ok(port)) = socket else {
            return Err(failed());
        };
        Ok((address, port))
    }

    pub fn target(&self) -> Result<Target, Refused> {
        let parsed = separated_pair(grammar::uuid, ':', grammar::uuid).parse(self.text);
        let (pool, listener) = parsed.map_err(|_| self.not("the ids of a pool and a listener"))?;
        Ok(Target { pool, listener })
    }

    /// Of these characters, and at least one.
    pub fn of_characters(
        &self,
        what: &str,
        known: impl Fn(char) -> bool,
    ) -> Result<String, Refused> {
        let fits = !self.text.is_empty() && self.text.chars().all(known);
        if fits { Ok(self.text.to_owned()) } else { Err(self.not(what)) }
    }

    /// The argument in the brackets behind the name of a fetch; for the name of a header, a cookie or a
    /// field of a certificate, in which no bracket and no comma can be: they would end it.
    pub fn argument(&self, fetch: &str) -> Result<String, Refused> {
        let inside = self.text.strip_prefix(fetch).and_then(|rest| rest.strip_prefix('('));
        let inside = inside.and_then(|rest| rest.strip_suffix(')'));
        let inside = inside.ok_or_else(|| self.not(&format!("`{fetch}(...)`")))?;
        let known = |next: char| next.is_ascii_alphanumeric() || "!$%&*+-.^_`|~;".contains(next);
        Value::of(self.line, inside).of_characters("a name", known)
    }

    /// A file of the load balancer's certificates.
    pub fn certificate(&self, load_balancer: &str, paths: &Paths) -> Result<String, Refused> {
        let folder = paths.certs().join(load_balancer);
        let name = Path::new(self.text).strip_prefix(&folder).ok().and_then(Path::to_str);
        let name =
            name.and_then(|name| crate::names::CertificateName::try_from(name.to_owned()).ok());
        // Written in one way only: what is compared as text must not be the same file twice.
        let same = |name: &str| folder.join(name).to_str() == Some(self.text);
        match name.filter(|name| same(name.as_str())) {
            Some(name) => Ok(name.as_str().to_owned()),
            None => Err(self.not(&format!("a .pem file of {}", folder.display()))),
        }
    }

    /// Text in which HAProxy looks for samples, all of them known: there are those that take files, or
    /// code, and HAProxy opens a file when it reads the configuration.
    ///
    /// A sample begins behind `%[`, or the `}` of `%{+Q}[` (HAProxy 2.6, `parse_logformat_string`);
    /// any other bracket is text.
    pub fn format(&self) -> Result<String, Refused> {
        let sampled = |at: usize| self.text[..at].ends_with(['%', '}']);
        let opens = self.text.match_indices('[').filter(|(at, _)| sampled(*at));
        for (at, _) in opens {
            if sample.parse_peek(&self.text[at..]).is_err() {
                return Err(self.not("a format of known samples"));
            }
        }
        Ok(self.text.to_owned())
    }

    /// Without samples.
    pub fn plain(&self) -> Result<String, Refused> {
        let sample =
            self.text.contains("%[") || (self.text.contains("%{") && self.text.contains('['));
        if self.text.is_empty() || sample {
            Err(self.not("plain text"))
        } else {
            Ok(self.text.to_owned())
        }
    }

    /// `10k`, as in `size 10k`.
    pub fn size(&self) -> Result<String, Refused> {
        let unit = opt(winnow::token::one_of(['k', 'm', 'g']));
        let parsed = (grammar::number(1..=u32::MAX), unit).take().parse(self.text);
        parsed.map(str::to_owned).map_err(|_| self.not("a size"))
    }

    /// `local0` to `local7`.
    pub fn facility(&self) -> Result<u32, Refused> {
        let parsed = preceded("local", grammar::number(0..=7)).parse(self.text);
        parsed.map_err(|_| self.not("a facility local0 to local7"))
    }
}

/// `[fetch(argument),converter(argument)]`, without quotes and backslashes: HAProxy ends it where this
/// does.
fn sample(input: &mut &str) -> winnow::Result<()> {
    let fetch = call().verify(|name: &str| is_fetch(name));
    let converter = call().verify(|name: &str| CONVERTERS.contains(&name));
    let converters = repeat::<_, _, (), _, _>(0.., preceded(',', converter));
    ('[', fetch, converters, ']').void().parse_next(input)
}

/// Its name.
fn call<'a>() -> impl Parser<&'a str, &'a str, ContextError> {
    let name = take_while(1.., |next: char| next.is_ascii_alphanumeric() || "_-.".contains(next));
    let argument =
        take_while(0.., |next: char| next.is_ascii_alphanumeric() || "_-.,: ".contains(next));
    terminated(name, opt(delimited('(', argument, ')')))
}

/// None of them opens a file or runs code, whatever its argument.
fn is_fetch(name: &str) -> bool {
    const FAMILIES: [&str; 8] =
        ["ssl_c_", "ssl_f_", "ssl_fc", "ssl_bc", "req.", "res.", "capture.", "fc_"];
    const ALONE: [&str; 14] = [
        "base",
        "date",
        "dst",
        "dst_port",
        "hostname",
        "method",
        "path",
        "pathq",
        "query",
        "src",
        "src_port",
        "status",
        "unique-id",
        "url",
    ];
    ALONE.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family))
}

const CONVERTERS: [&str; 10] =
    ["base64", "bytes", "field", "hex", "json", "length", "lower", "upper", "url_dec", "word"];
