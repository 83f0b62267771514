//! From a request to a block: which block to ask, and asking it.
//!
//! Any replica may change any block today, and the row locks of the database decide who is first, so asking a block is
//! a call in this process ([`Inventory::ask`]). Once shards have owners it becomes a call to the block's owner, and
//! nothing else here changes: a refusal already carries what the next buyer needs to know of the block.

use std::time::Duration;

use stampede_contracts::event::BlockLayout;
use stampede_contracts::inventory::{HoldAnswer, PlaceHold, Want};
use stampede_contracts::signed::Pass;
use stampede_contracts::{BlockId, Code, Problem, SectionId, SessionId, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

use crate::domain::block::Block;
use crate::domain::pick;
use crate::domain::show::{Section, Show};
use crate::inventory::Inventory;
use crate::outlook::News;
use crate::problem::Error;
use crate::store::{Attempt, Due, Placed, StoreError};

/// What is wanted, in one block at most where seats are named.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Best(SectionId, u32),
    Seats(BlockId, Vec<u16>),
}

impl Inventory {
    /// Holds seats, for a key that was not used before.
    pub(crate) async fn place(&self, request: &PlaceHold) -> Result<HoldAnswer, Error> {
        let now = self.now();
        let wanted = read(&request.want, self.rules().seats_max)?;
        let show = self.shows().get(request.show).await?.ok_or_else(|| Problem::new(Code::ShowNotFound))?;
        let pass = self.admit(&show, request, now)?;
        let ask =
            |section, block, seats| Ask { request, show: &show, section, block, seats, pass: pass.as_ref() };
        match (&wanted, request.block) {
            (Wanted::Seats(block, seats), _) => {
                let (section, block) = seats_of(&show, *block, seats)?;
                match self.ask(ask(section, block, Some(seats))).await? {
                    HoldAnswer::Full { .. } => Err(Problem::new(Code::SeatsTaken).into()),
                    held => Ok(held),
                }
            }
            (Wanted::Best(section, _), Some(block)) => {
                let section = section_of(&show, *section)?;
                let found = section.blocks.iter().find(|known| known.block_id == block);
                let block = found.ok_or_else(|| Problem::new(Code::SectionNotFound))?;
                self.ask(ask(section, block, None)).await
            }
            (Wanted::Best(section, quantity), None) => {
                let section = section_of(&show, *section)?;
                for block in self.blocks_to_ask(section, *quantity, request.session).await? {
                    if let held @ HoldAnswer::Held(_) = self.ask(ask(section, block, None)).await? {
                        return Ok(held);
                    }
                }
                Err(Problem::new(Code::SeatsTaken).into())
            }
        }
    }

    /// Whether this session may hold seats of the show now, and with which pass.
    fn admit(&self, show: &Show, request: &PlaceHold, now: Timestamp) -> Result<Option<Pass>, Problem> {
        if !show.is_on_sale(now) {
            return Err(Problem::new(Code::NotOnSale));
        }
        if !show.needs_pass {
            return Ok(None);
        }
        let text = request.pass.as_deref().ok_or_else(|| Problem::new(Code::PassRequired))?;
        let pass = self.rules().pass_key.iter().find_map(|key| key.verify::<Pass>(text).ok());
        let pass = pass.ok_or_else(|| Problem::new(Code::PassInvalid))?;
        if pass.show_id != show.id || pass.session != request.session {
            return Err(Problem::new(Code::PassInvalid));
        }
        if pass.expires_at <= now {
            return Err(Problem::new(Code::PassClosed));
        }
        Ok(Some(pass))
    }

    /// The blocks of a section that may have `quantity` seats, as far as is known: those that refused within the last
    /// moment are left out.
    async fn blocks_to_ask<'a>(
        &self,
        section: &'a Section,
        quantity: u32,
        session: SessionId,
    ) -> Result<Vec<&'a BlockLayout>, StoreError> {
        let ids: Vec<BlockId> = section.blocks.iter().map(|block| block.block_id).collect();
        let outlook = self.outlook().section(section.id);
        let read = || async {
            let heard = Instant::now();
            let blocks = self.store().blocks(section).await?.into_iter();
            let news = blocks.filter_map(|(id, block)| {
                let layout = section.blocks.iter().find(|layout| layout.block_id == id)?;
                Some((id, news(&block, layout, heard)))
            });
            Ok::<_, StoreError>(news.collect())
        };
        outlook.refresh(&ids, read).await?;
        let candidates = outlook.candidates(&ids, quantity, start(session.uuid()));
        let layout = |id| section.blocks.iter().find(|layout| layout.block_id == id);
        Ok(candidates.into_iter().filter_map(layout).collect())
    }

    /// Asks one block, and remembers what was learned about it.
    async fn ask(&self, ask: Ask<'_>) -> Result<HoldAnswer, Error> {
        let attempt = ask.attempt(self.rules().hold)?;
        let placed = match self.store().place(&attempt, self.clock()).await {
            Err(StoreError::Outdated) => {
                self.shows().forget(ask.show.id);
                return Err(StoreError::Outdated.into());
            }
            placed => placed?,
        };
        let outlook = self.outlook().section(ask.section.id);
        let id = ask.block.block_id;
        self.metrics().attempt(word(&placed));
        match placed {
            Placed::Held { view, block } => {
                outlook.hear(id, news(&block, ask.block, Instant::now()));
                Ok(HoldAnswer::Held(view))
            }
            Placed::Full(block) => {
                let news = news(&block, ask.block, Instant::now());
                outlook.hear(id, news);
                Ok(HoldAnswer::Full { block: id, version: news.version, largest: news.largest })
            }
            // Whoever asked looks the key up before it believes a refusal.
            Placed::Repeated => Err(Problem::new(Code::KeyReused).into()),
            Placed::PassClosed => Err(Problem::new(Code::PassClosed).into()),
            Placed::Exists { hold, over: true } => {
                let due = Due { block: hold.block(), holds: vec![hold.uuid()] };
                let ended = self.store().expire(&due, self.now()).await?;
                self.metrics().expired(ended);
                Err(StoreError::Outdated.into())
            }
            Placed::Exists { hold, over: false } => Err(Problem::new(Code::HoldExists).hold_id(hold).into()),
        }
    }
}

/// A request on its way to a block.
struct Ask<'a> {
    request: &'a PlaceHold,
    show: &'a Show,
    section: &'a Section,
    block: &'a BlockLayout,
    seats: Option<&'a Vec<u16>>,
    pass: Option<&'a Pass>,
}

impl<'a> Ask<'a> {
    fn attempt(&self, lasts: Duration) -> Result<Attempt<'a>, Problem> {
        let quantity = match (&self.request.want, self.seats) {
            (_, Some(seats)) => u32::try_from(seats.len()).unwrap_or(u32::MAX),
            (Want::Best { quantity, .. }, None) => *quantity,
            (Want::Seats(seats), None) => u32::try_from(seats.len()).unwrap_or(u32::MAX),
        };
        let total = self
            .section
            .price
            .times(quantity)
            .map_err(|error| Problem::new(Code::ValidationFailed).detail(error.to_string()))?;
        Ok(Attempt {
            session: self.request.session,
            key: &self.request.key,
            fingerprint: &self.request.fingerprint,
            show: self.show,
            section: self.section,
            block: self.block,
            seats: self.seats.map(Vec::as_slice),
            quantity,
            total,
            pass: self.pass,
            lasts,
        })
    }
}

/// Checks what can be checked without knowing the show.
fn read(want: &Want, seats_max: u32) -> Result<Wanted, Problem> {
    let quantity = match want {
        Want::Best { quantity, .. } => *quantity,
        Want::Seats(seats) => u32::try_from(seats.len()).unwrap_or(u32::MAX),
    };
    if !(1..=seats_max).contains(&quantity) {
        let detail = format!("between 1 and {seats_max} seats can be held at once");
        return Err(Problem::new(Code::ValidationFailed).detail(detail));
    }
    match want {
        Want::Best { section, quantity } => Ok(Wanted::Best(*section, *quantity)),
        Want::Seats(seats) => {
            let block = seats.first().map(|seat| seat.block).unwrap_or(BlockId::from_number(0));
            if seats.iter().any(|seat| seat.block != block) {
                return Err(Problem::new(Code::SeatsSpanBlocks));
            }
            let mut indices: Vec<u16> = seats.iter().map(|seat| seat.index).collect();
            indices.sort_unstable();
            if indices.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Problem::new(Code::ValidationFailed).detail("a seat is named twice"));
            }
            Ok(Wanted::Seats(block, indices))
        }
    }
}

fn section_of(show: &Show, section: SectionId) -> Result<&Section, Problem> {
    show.section(section).ok_or_else(|| Problem::new(Code::SectionNotFound))
}

fn seats_of<'a>(
    show: &'a Show,
    block: BlockId,
    seats: &[u16],
) -> Result<(&'a Section, &'a BlockLayout), Problem> {
    let (section, block) = show.block(block).ok_or_else(|| Problem::new(Code::SeatNotFound))?;
    let all_there = section.numbered && seats.iter().all(|index| u32::from(*index) < block.capacity);
    all_there.then_some((section, block)).ok_or_else(|| Problem::new(Code::SeatNotFound))
}

fn news(block: &Block, layout: &BlockLayout, heard: Instant) -> News {
    let free = block.counts.free;
    let together = block.seats.as_deref().map_or(free, |seats| pick::longest_run(seats, &layout.rows));
    News { version: block.version, largest: free, together, heard }
}

/// Where a session begins to look: at random, but always at the same place, so that it repeats itself where it was
/// first. The last bytes of a UUIDv7 are random, the first ones a time.
fn start(session: Uuid) -> usize {
    let [.., a, b] = *session.as_bytes();
    usize::from(u16::from_be_bytes([a, b]))
}

fn word(placed: &Placed) -> &'static str {
    match placed {
        Placed::Held { .. } => "held",
        Placed::Full(_) => "full",
        Placed::Repeated => "repeated",
        Placed::Exists { .. } => "hold_exists",
        Placed::PassClosed => "pass_closed",
    }
}
