//! Shows in memory: geometry never changes, and the rest is asked for again after a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stampede_contracts::ShowId;
use tokio::time::Instant;

use crate::domain::show::Show;
use crate::store::{Store, StoreError};

/// How long a show is believed to be unchanged. A hold is made only at the version that the database has, so this
/// bounds nothing but how long a refusal may be out of date.
const FRESH: Duration = Duration::from_millis(250);
/// Shows in memory; when one more comes all are dropped and read again as they are asked for.
const SHOWS_MAX: usize = 256;

/// A cache in front of the store.
#[derive(Debug)]
pub struct Shows {
    store: Store,
    known: Mutex<HashMap<ShowId, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    show: Arc<Show>,
    checked: Instant,
}

impl Shows {
    /// Nothing is known at first.
    pub fn new(store: Store) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// A show, if it is laid out.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn get(&self, id: ShowId) -> Result<Option<Arc<Show>>, StoreError> {
        let known = self.lock().get(&id).cloned();
        let now = Instant::now();
        if let Some(Known { show, checked }) = known {
            if now.duration_since(checked) < FRESH {
                return Ok(Some(show));
            }
            if self.store.show_version(id).await? == Some(show.version) {
                self.remember(Known { show: show.clone(), checked: now });
                return Ok(Some(show));
            }
        }
        let show = self.store.show(id).await?.map(Arc::new);
        if let Some(show) = &show {
            self.remember(Known { show: show.clone(), checked: now });
        }
        Ok(show)
    }

    /// Reads the show again when it is next asked for.
    pub fn forget(&self, id: ShowId) {
        self.lock().remove(&id);
    }

    fn remember(&self, known: Known) {
        let mut shows = self.lock();
        if shows.len() >= SHOWS_MAX && !shows.contains_key(&known.show.id) {
            shows.clear();
        }
        shows.insert(known.show.id, known);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShowId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
