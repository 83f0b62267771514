//! The copy of how many seats are left, replayed from inventory's state stream: the lobby samples it, a moment behind,
//! to decide whether calling somebody makes sense.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use stampede_bus::{BoxError, Delivery};
use stampede_contracts::{
    BlockId, Event, ShowId,
    event::{BlockState, LayoutPublished},
};

use crate::domain::Stock;

/// The copy of all shows.
#[derive(Debug, Default)]
pub struct StockCopy {
    shows: Mutex<HashMap<ShowId, ShowCopy>>,
}

#[derive(Debug, Default)]
struct ShowCopy {
    blocks: Option<Vec<BlockId>>,
    states: HashMap<BlockId, BlockStock>,
}

#[derive(Debug, Clone, Copy)]
struct BlockStock {
    version: i64,
    stock: Stock,
}

impl StockCopy {
    /// Takes a state from the stream; what is of another type or cannot be read is passed over.
    ///
    /// # Errors
    /// None: the next state of the same block replaces what could not be read.
    pub fn apply(&self, delivery: &Delivery) -> Result<(), BoxError> {
        let applied = match delivery.ce_type.as_str() {
            BlockState::TYPE => delivery.decode().map(|block| self.block(&block)),
            LayoutPublished::TYPE => delivery.decode().map(|layout| self.layout(&layout)),
            _ => Ok(()),
        };
        if let Err(error) = applied {
            tracing::warn!(%error, subject = delivery.subject, "a state that cannot be read");
        }
        Ok(())
    }

    /// Takes a block's state; the highest version wins.
    pub fn block(&self, block: &BlockState) {
        let mut shows = self.shows.lock().unwrap_or_else(PoisonError::into_inner);
        let states = &mut shows.entry(block.show_id).or_default().states;
        if states.get(&block.block_id).is_none_or(|here| here.version < block.version) {
            let stock =
                Stock { free: block.free.into(), pending: u64::from(block.held) + u64::from(block.attached) };
            states.insert(block.block_id, BlockStock { version: block.version, stock });
        }
    }

    /// Takes the list of a show's blocks.
    pub fn layout(&self, layout: &LayoutPublished) {
        let blocks = layout.blocks.iter().map(|block| block.block_id).collect();
        self.shows.lock().unwrap_or_else(PoisonError::into_inner).entry(layout.show_id).or_default().blocks =
            Some(blocks);
    }

    /// How a show stands; `None` while any of its blocks is missing here, and then nobody is called.
    pub fn of(&self, show: ShowId) -> Option<Stock> {
        let shows = self.shows.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = shows.get(&show)?;
        copy.blocks.as_ref()?.iter().try_fold(Stock::default(), |sum, block| {
            let BlockStock { stock, .. } = copy.states.get(block)?;
            Some(Stock { free: sum.free + stock.free, pending: sum.pending + stock.pending })
        })
    }
}
