//! systemd's unit of the agent, as a test reads it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Lines `Key=Value` of a unit file, with their sections.
#[derive(Debug)]
pub struct Unit(Vec<(String, String, String)>);

impl Unit {
    /// One of those that come with the agent.
    pub fn read(name: &str) -> Result<Self> {
        let path = folder().join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut section = String::new();
        let mut lines = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                lines.push((section.clone(), key.to_owned(), value.to_owned()));
            }
        }
        Self(lines)
    }

    /// All words of a list, which may have several lines.
    pub fn words(&self, section: &str, key: &str) -> Vec<&str> {
        let of = |line: &&(String, String, String)| line.0 == section && line.1 == key;
        self.0.iter().filter(of).flat_map(|(.., value)| value.split_whitespace()).collect()
    }

    /// What the agent may do, as `setpriv --bounding-set` has it.
    pub fn bounding_set(&self) -> String {
        let words = self.words("Service", "CapabilityBoundingSet").into_iter();
        let names = words.map(|word| word.trim_start_matches("CAP_").to_ascii_lowercase());
        names.fold("-all".to_owned(), |set, name| format!("{set},+{name}"))
    }
}

/// Where the units are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdp-lb/systemd")
}
