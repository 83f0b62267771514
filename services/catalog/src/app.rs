//! What the handlers share.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use stampede_contracts::ShowId;

use crate::{
    availability::Copies,
    domain::ShowRecord,
    store::{Store, StoreError},
};

/// Shows kept in memory, at most.
const SHOWS_CACHED_MAX: usize = 10_000;

/// What the handlers share. Clones are the same app.
#[derive(Debug, Clone)]
pub struct App {
    /// The database.
    pub store: Store,
    /// The copy of how many seats are left.
    pub copies: Arc<Copies>,
    // A show does not change once it is made, so what was read once stays true.
    shows: Arc<RwLock<HashMap<ShowId, Arc<ShowRecord>>>>,
}

impl App {
    /// On a migrated database, with an empty copy.
    pub fn new(store: Store) -> Self {
        Self { store, copies: Arc::default(), shows: Arc::default() }
    }

    /// A show, from memory if it was read before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn show(&self, show_id: ShowId) -> Result<Option<Arc<ShowRecord>>, StoreError> {
        let cached = self.shows.read().unwrap_or_else(PoisonError::into_inner).get(&show_id).cloned();
        if cached.is_some() {
            return Ok(cached);
        }
        let Some(show) = self.store.show(show_id).await?.map(Arc::new) else { return Ok(None) };
        let mut shows = self.shows.write().unwrap_or_else(PoisonError::into_inner);
        if shows.len() < SHOWS_CACHED_MAX {
            shows.insert(show_id, Arc::clone(&show));
        }
        Ok(Some(show))
    }
}
