//! Which shard a block lies in: a copy of the bucket `layout`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use stampede_bus::{BoxError, Bus};
use stampede_contracts::event::LayoutPublished;
use stampede_contracts::topology::LAYOUT;
use stampede_contracts::{BlockId, ShowId};
use tokio_util::sync::CancellationToken;

/// The most blocks that are remembered; those of further shows are found by way of `any`.
const BLOCKS_MAX: usize = 1_000_000;

/// A copy that may be old or empty: then a request takes the longer way, and nothing breaks. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Layout(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    blocks: HashMap<BlockId, (ShowId, u16)>,
    /// Shows all of whose blocks are here.
    shows: HashSet<ShowId>,
}

impl Layout {
    /// The shard of a block, if it is known.
    pub fn shard(&self, block: BlockId) -> Option<u16> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).blocks.get(&block).map(|(_, shard)| *shard)
    }

    /// Whether the copy has the blocks of `show`, and this one is not among them.
    pub fn lacks(&self, show: ShowId, block: BlockId) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.shows.contains(&show) && known.blocks.get(&block).is_none_or(|(of, _)| *of != show)
    }

    /// Follows the bucket until `shutdown`.
    ///
    /// # Errors
    /// None while it runs.
    pub async fn follow(self, bus: Bus, shutdown: CancellationToken) -> Result<(), BoxError> {
        bus.watch_bucket(LAYOUT, shutdown, |show, value| {
            // A show that was deleted keeps its blocks here: their ids are never used again.
            if let Some(value) = value {
                self.learn(&show, &value);
            }
        })
        .await
    }

    fn learn(&self, show: &str, value: &[u8]) {
        let layout: LayoutPublished = match serde_json::from_slice(value) {
            Ok(layout) => layout,
            Err(error) => {
                tracing::error!(show, %error, "a layout cannot be read");
                return;
            }
        };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut has_all = true;
        for block in layout.blocks {
            if known.blocks.len() < BLOCKS_MAX || known.blocks.contains_key(&block.block_id) {
                known.blocks.insert(block.block_id, (layout.show_id, block.shard));
            } else {
                has_all = false;
            }
        }
        if has_all {
            known.shows.insert(layout.show_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use stampede_contracts::SectionId;
    use stampede_contracts::event::BlockLayout;

    use super::*;

    #[test]
    fn blocks_are_found_and_garbage_changes_nothing() {
        let [block, of_other] = [7, 8].map(BlockId::from_number);
        let (show, other) = (ShowId::new(), ShowId::new());
        let layout = Layout::default();
        let learn = |show_id: ShowId, block_id, shard| {
            let (section_id, rows) = (SectionId::new(), Vec::new());
            let blocks = vec![BlockLayout { block_id, section_id, shard, capacity: 10, rows }];
            let value = serde_json::to_vec(&LayoutPublished { show_id, blocks }).unwrap();
            layout.learn(&show_id.to_string(), &value);
        };
        assert_eq!(layout.shard(block), None);
        learn(other, of_other, 1);
        assert!(!layout.lacks(show, block), "the copy does not have the show yet");
        learn(show, block, 42);
        layout.learn(&show.to_string(), b"{");
        assert_eq!(layout.shard(block), Some(42));
        assert!(!layout.lacks(show, block) && layout.lacks(show, of_other) && layout.lacks(other, block));
    }
}
