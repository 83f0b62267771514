//! What was last heard of the blocks of a section: which to ask for seats, and which to leave alone for a moment.
//!
//! Only advice. A block that is asked decides by itself, under its lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stampede_contracts::{BlockId, SectionId};
use tokio::time::Instant;

/// How long a refusal is believed. So a full section costs a few reads a second, and not a few for every buyer.
pub const REUSE: Duration = Duration::from_millis(250);
/// Sections in memory; when one more comes all are forgotten.
const SECTIONS_MAX: usize = 10_000;

/// The last news of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// The block's version.
    pub version: i64,
    /// The largest quantity it could serve.
    pub largest: u32,
    /// The most people who could sit side by side.
    pub together: u32,
    /// When that was so.
    pub heard: Instant,
}

/// The news of all blocks. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    sections: Arc<Mutex<HashMap<SectionId, Arc<SectionOutlook>>>>,
}

/// The news of the blocks of one section.
#[derive(Debug, Default)]
pub struct SectionOutlook {
    blocks: Mutex<HashMap<BlockId, News>>,
    /// One reads for all who wait.
    reading: tokio::sync::Mutex<()>,
}

impl Outlook {
    /// The news of a section.
    pub fn section(&self, id: SectionId) -> Arc<SectionOutlook> {
        let mut sections = self.sections.lock().unwrap_or_else(PoisonError::into_inner);
        if sections.len() >= SECTIONS_MAX && !sections.contains_key(&id) {
            sections.clear();
        }
        sections.entry(id).or_default().clone()
    }
}

impl SectionOutlook {
    /// Takes news, unless later news are known.
    pub fn hear(&self, block: BlockId, news: News) {
        let mut blocks = self.lock();
        match blocks.get(&block) {
            Some(known) if known.version > news.version => {}
            _ => {
                blocks.insert(block, news);
            }
        }
    }

    /// Lets one caller at a time read the section anew, if the news of some block are not fresh.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn refresh<E, Fut>(&self, blocks: &[BlockId], read: impl FnOnce() -> Fut) -> Result<(), E>
    where
        Fut: Future<Output = Result<Vec<(BlockId, News)>, E>>,
    {
        if self.is_fresh(blocks) {
            return Ok(());
        }
        let _reading = self.reading.lock().await;
        if self.is_fresh(blocks) {
            return Ok(());
        }
        for (block, news) in read().await? {
            self.hear(block, news);
        }
        Ok(())
    }

    fn is_fresh(&self, blocks: &[BlockId]) -> bool {
        let (known, now) = (self.lock(), Instant::now());
        blocks.iter().all(|block| known.get(block).is_some_and(|news| now.duration_since(news.heard) < REUSE))
    }

    /// The blocks worth asking for `quantity` seats, the most promising first. Each buyer begins at another one
    /// (`start`), so that a crowd does not wait in line for one row; blocks where the group can sit together come
    /// before those that would tear it apart.
    pub fn candidates(&self, blocks: &[BlockId], quantity: u32, start: usize) -> Vec<BlockId> {
        let (known, now) = (self.lock(), Instant::now());
        let start = start % blocks.len().max(1);
        let (later, first) = blocks.split_at(start);
        let mut candidates: Vec<(bool, BlockId)> = first
            .iter()
            .chain(later)
            .filter_map(|block| match known.get(block) {
                Some(news) if news.largest < quantity && now.duration_since(news.heard) < REUSE => None,
                Some(news) => Some((news.together < quantity, *block)),
                None => Some((false, *block)),
            })
            .collect();
        candidates.sort_by_key(|(torn, _)| *torn);
        candidates.into_iter().map(|(_, block)| block).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BlockId, News>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(count: i64) -> Vec<BlockId> {
        (1..=count).map(BlockId::from_number).collect()
    }

    fn news(version: i64, largest: u32, together: u32) -> News {
        News { version, largest, together, heard: Instant::now() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_believed_for_a_quarter_of_a_second() {
        let (section, blocks) = (SectionOutlook::default(), blocks(2));
        section.hear(blocks[0], news(1, 1, 1));
        assert_eq!(section.candidates(&blocks, 2, 0), blocks[1..]);
        assert_eq!(section.candidates(&blocks, 1, 0), blocks, "a smaller group may find room");
        tokio::time::advance(REUSE).await;
        assert_eq!(
            section.candidates(&blocks, 2, 0),
            [blocks[1], blocks[0]],
            "to be asked again, but not first"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn buyers_begin_at_different_blocks_and_where_they_can_sit_together() {
        let (section, blocks) = (SectionOutlook::default(), blocks(3));
        assert_eq!(section.candidates(&blocks, 2, 4), [blocks[1], blocks[2], blocks[0]]);
        section.hear(blocks[1], news(1, 9, 1));
        assert_eq!(section.candidates(&blocks, 2, 4), [blocks[2], blocks[0], blocks[1]]);
        assert_eq!(section.candidates(&[], 2, 4), []);
    }

    #[tokio::test(start_paused = true)]
    async fn old_news_do_not_replace_new_ones() {
        let (section, blocks) = (SectionOutlook::default(), blocks(1));
        section.hear(blocks[0], news(7, 0, 0));
        section.hear(blocks[0], news(6, 9, 9));
        assert!(section.candidates(&blocks, 1, 0).is_empty());
        section.hear(blocks[0], news(8, 9, 9));
        assert_eq!(section.candidates(&blocks, 1, 0), blocks);
    }

    #[tokio::test(start_paused = true)]
    async fn one_reads_for_all() {
        let (section, blocks) = (SectionOutlook::default(), blocks(1));
        let reads = std::cell::Cell::new(0);
        let read = async || {
            reads.set(reads.get() + 1);
            tokio::task::yield_now().await;
            Ok::<_, ()>(vec![(blocks[0], news(1, 9, 9))])
        };
        let refresh = || section.refresh(&blocks, read);
        let (one, two, three) = tokio::join!(refresh(), refresh(), refresh());
        assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
        assert_eq!(reads.get(), 1);
        tokio::time::advance(REUSE).await;
        refresh().await.unwrap();
        assert_eq!(reads.get(), 2);
    }
}
