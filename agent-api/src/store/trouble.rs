//! What a start may find, for the log.

use std::fmt;
use std::path::PathBuf;

use crate::document;

/// A file that was not as the store had left it, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub path: PathBuf,
    pub flaw: Flaw,
    pub remedy: Remedy,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("is missing")]
    Missing,
    /// Or is no regular file, or has more than 16 MiB.
    #[error("{0}")]
    Unreadable(String),
    /// It is empty, has a zero byte or is not UTF-8: blocks that never got to the disk.
    #[error("is not text")]
    NotText,
    #[error("is cut short, {bytes} bytes instead of {stored}")]
    Short { bytes: usize, stored: usize },
    /// By an upload that a crash cut off, or by somebody's hand.
    #[error("is not what was stored")]
    Changed,
    /// From before this agent; or the document is an older one.
    #[error("is not in the document")]
    Unknown,
    /// Of the document itself; in the words of [`document::Error`].
    #[error("{0}")]
    NoDocument(String),
}

/// What is done about it. A file that is not used is set aside as `NAME.bad`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// `NAME.last` takes its place.
    Last,
    /// It is used as it is.
    AsItIs,
    /// There is nothing that could be used.
    Nothing,
}

impl From<document::Error> for Flaw {
    fn from(error: document::Error) -> Self {
        Self::NoDocument(error.to_string())
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "the one before it is used",
            Self::AsItIs => "it is used as it is",
            Self::Nothing => "there is nothing to use in its place",
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path.display(), self.flaw, self.remedy)
    }
}
