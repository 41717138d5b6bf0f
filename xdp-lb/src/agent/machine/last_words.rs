//! What workers of HAProxy had counted when they ended, until the health manager is told.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::haproxy_stats::{Held, Row};

/// Listeners of workers that are no more.
const MOST: usize = 16_384;

/// Rows, and whether they have been heard for a heartbeat that is on its way.
#[derive(Clone, Debug, Default)]
pub struct LastWords(Arc<Mutex<Vec<(Row, bool)>>>);

impl LastWords {
    /// For a heartbeat. Those that are read beside them again are told no more by it.
    pub fn hear(&self) -> Vec<Row> {
        let mut rows = self.rows();
        rows.iter_mut().for_each(|(_, heard)| *heard = true);
        rows.iter().map(|(row, _)| row.clone()).collect()
    }

    /// What was heard is told, and need not be kept.
    pub fn told(&self) {
        self.rows().retain(|(_, heard)| !heard);
    }

    /// Notes what workers have counted that may end at once.
    pub fn note(&self, said: Vec<Row>) {
        let said = said.into_iter().filter(|row| row.server == "FRONTEND");
        let said = said.map(|row| (Row { leaving: true, sessions: 0, ..row }, false));
        let said: Vec<_> = said.collect();
        let mut rows = self.rows();
        rows.retain(|(row, _)| !said.iter().any(|(new, _)| new.worker == row.worker));
        rows.extend(said);
        // Reloads without a heartbeat between them are few.
        let excess = rows.len().saturating_sub(MOST);
        rows.drain(..excess);
    }

    /// Takes hold of the workers behind these sockets, so that they can still be asked when they leave.
    pub async fn hold(&self, sockets: impl Iterator<Item = PathBuf>) -> Vec<Held> {
        let mut held = Vec::new();
        for socket in sockets {
            // One that does not run has nothing to say.
            held.extend(Held::open(&socket).await.ok());
        }
        held
    }

    /// Lets go of workers that take no new connections, once they have none or some time has passed. Waits
    /// for nobody.
    pub fn let_go(&self, held: Vec<Held>) {
        for held in held {
            let last_words = self.clone();
            tokio::spawn(async move { last_words.note(held.last_rows().await) });
        }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<(Row, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
