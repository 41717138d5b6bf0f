//! What numbers of the maps are called, as far as the daemon wrote it down.

use std::net::SocketAddr;

use crate::record::{Record, Standing};

/// The daemon's record; where that is gone, numbers are numbers.
pub struct Names<'a>(pub &'a Record);

impl Names<'_> {
    pub fn interface(&self, ifindex: u32) -> String {
        let named = self.interfaces().find(|(_, index)| *index == ifindex);
        named.map_or_else(|| format!("interface {ifindex}"), |(name, _)| name.to_owned())
    }

    /// The interfaces that the program is on, the VIPs' first.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.interfaces.iter().filter_map(|interface| match &interface.standing {
            Standing::Attached { ifindex, .. } => Some((&interface.name[..], *ifindex)),
            Standing::Missing | Standing::Failed { .. } => None,
        })
    }

    pub fn listener(&self, number: u32) -> Option<&str> {
        let serving = self.0.listeners.iter().find(|it| it.number == Some(number)).map(|it| &it.id);
        let leaving = || self.0.leaving.iter().find(|it| it.number == number).map(|it| &it.id);
        serving.or_else(leaving).map(String::as_str)
    }

    /// A member's id and its pool's.
    pub fn member(&self, backend: u32) -> Option<(&str, &str)> {
        let backend = self.0.backends.iter().find(|it| it.number == backend)?;
        Some((&backend.member, &backend.pool))
    }

    /// The listener that something else serves at an address, in a few words.
    pub fn beside(&self, at: SocketAddr) -> Option<String> {
        let beside = self.0.beside.iter();
        let mut here = beside.filter(|it| it.port == at.port() && it.vips.contains(&at.ip()));
        let listener = here.next()?;
        let by = listener.by.as_deref().unwrap_or("nobody");
        Some(format!("{by} serves {}: {}", listener.id, listener.why))
    }
}
