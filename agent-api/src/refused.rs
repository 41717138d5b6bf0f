//! An upload that is outside its grammar, and the line that says so.

use std::fmt;

/// Why an upload is refused.
///
/// Octavia's templates put text of tenants into these files, and not all of it is filtered: whatever is
/// not known to be harmless is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first is 1.
    pub line: usize,
    /// What is wrong with it, a sentence without a stop.
    pub what: String,
}

impl Refused {
    /// `line` counts from 1.
    pub fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Refused {}
