//! What people and programs are shown. All of it is read from the pinned maps and the daemon's
//! record, so it works without the daemon, and never disturbs it.

pub mod flows;
pub mod stats;
pub mod status;
pub mod top;

use std::fmt::Display;
use std::io::{self, Write};

use agent_api::Name;
use comfy_table::{Table, presets};

use crate::kernel::{Error, Maps, Pins};
use crate::lock;
use crate::record::Record;

/// A load balancer, as it is found.
pub struct Found {
    /// None where a daemon runs, or ran, and the kernel would not have its program.
    maps: Option<Maps>,
    /// Empty where the daemon's file is gone: then there are numbers in place of names.
    pub record: Record,
    /// Process id of the daemon, if it runs.
    pub daemon: Option<String>,
    pins: Pins,
}

impl Found {
    pub fn open(name: &Name) -> Result<Self, Error> {
        let (pins, record) = (Pins::of(name), Record::read(&lock::run_file(name, "json")));
        let maps = match Maps::open(&pins) {
            Ok(maps) => Some(maps),
            Err(Error::NotStarted(_)) if record.is_some() => None,
            Err(error) => return Err(error),
        };
        let (record, daemon) = (record.unwrap_or_default(), lock::holder(name));
        Ok(Self { maps, record, daemon, pins })
    }

    pub fn maps(&self) -> Result<&Maps, Error> {
        let missing = || Error::NotStarted(self.pins.directory().into());
        self.maps.as_ref().ok_or_else(missing)
    }

    /// Of a backend, now.
    pub fn connections(&self, backend: u32) -> u32 {
        let load = self.maps.as_ref().and_then(|maps| maps.backend_load.get(backend as usize));
        load.map_or(0, |load| load.0.load())
    }
}

/// A table for people.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// Adds a row to it.
pub fn row<const N: usize>(table: &mut Table, cells: [&dyn Display; N]) {
    table.add_row(cells.map(|cell| cell.to_string()));
}

/// What an `Option` says, or a dash.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Draws it on the terminal from the upper left corner, over what was there.
pub fn redraw(shown: &impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "\x1b[H\x1b[2J{shown}")?;
    out.flush()
}
