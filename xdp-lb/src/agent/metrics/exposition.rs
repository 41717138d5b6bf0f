//! Prometheus' text format, version 0.0.4: families, each with its samples.
//!
//! Written here, since HAProxy's own families are to be mixed with ours, line by line; a registry of a
//! library holds what it counts itself.

use std::collections::BTreeMap;
use std::fmt;

/// What a family's numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
}

/// Families by their names. Who names one first says what it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition(BTreeMap<String, Family>);

#[derive(Clone, Debug, PartialEq)]
struct Family {
    kind: Kind,
    help: String,
    /// Labels as they are written, and the value; a sample that comes again is the later one.
    samples: BTreeMap<String, String>,
}

impl Exposition {
    /// A sample, with the labels in this order.
    pub fn add(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        labels: &[(&str, &str)],
        value: impl fmt::Display,
    ) {
        let labels = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", Escaped(text)));
        self.add_written(name, kind, help, labels.collect::<Vec<_>>().join(","), value.to_string());
    }

    /// A sample whose labels are written already.
    pub fn add_written(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        labels: String,
        value: String,
    ) {
        let family = self.0.entry(name.to_owned()).or_insert_with(|| Family {
            kind,
            help: help.to_owned(),
            samples: BTreeMap::new(),
        });
        family.samples.insert(labels, value);
    }

    /// The number of a sample without labels, if there is one.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.samples.get("")?.parse().ok()
    }
}

/// A label's text, as the format has it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                character => write!(f, "{character}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        })
    }
}

impl fmt::Display for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Family { kind, help, samples }) in &self.0 {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
            for (labels, value) in samples {
                match &labels[..] {
                    "" => writeln!(f, "{name} {value}")?,
                    labels => writeln!(f, "{name}{{{labels}}} {value}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written() {
        let mut shown = Exposition::default();
        shown.add("b_total", Kind::Counter, "B.", &[("x", "1"), ("y", "a\"\\\nb")], 7);
        shown.add("a", Kind::Gauge, "A.", &[], "1.5");
        shown.add("b_total", Kind::Gauge, "other", &[("x", "0")], 8);
        let want = "# HELP a A.\n# TYPE a gauge\na 1.5\n# HELP b_total B.\n# TYPE b_total counter\n\
                    b_total{x=\"0\"} 8\nb_total{x=\"1\",y=\"a\\\"\\\\\\nb\"} 7\n";
        assert_eq!(shown.to_string(), want);
        assert_eq!((shown.number("a"), shown.number("b_total")), (None, None));
    }
}
