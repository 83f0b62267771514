//! The copy of how many seats are left: replayed from inventory's state stream into memory, a moment behind.
//!
//! The choice is availability over consistency: an old answer with its age is better here than none, because the
//! answer that counts is given by `inventory` when seats are held.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use stampede_bus::Reached;
use stampede_contracts::{
    BlockId, SeatId, SectionId, ShowId, Timestamp,
    api::{Availability, Seat, SeatState},
    event::{BlockLayout, BlockState, LayoutPublished},
};

/// The copy of all shows. Shared by reference.
#[derive(Debug, Default)]
pub struct Copies {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shows: HashMap<ShowId, ShowCopy>,
    caught_up: bool,
    // The last moment at which the server reported that the stream has nothing newer than this copy.
    as_of: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct ShowCopy {
    layout: Vec<BlockLayout>,
    blocks: HashMap<BlockId, BlockState>,
    // Set while the stream is another one and does not contain this show yet: the copy is of the earlier one, as of then.
    earlier: Option<Timestamp>,
}

impl Copies {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a block's state; an older version than the one here is ignored, whatever the order of arrival.
    pub fn apply_block(&self, block: BlockState) {
        let mut state = self.state();
        let blocks = &mut state.shows.entry(block.show_id).or_default().blocks;
        if blocks.get(&block.block_id).is_none_or(|here| here.version < block.version) {
            blocks.insert(block.block_id, block);
        }
    }

    /// Takes the list of a show's blocks, which is published after them: from now on the copy is of this stream.
    pub fn apply_layout(&self, layout: LayoutPublished) {
        let mut state = self.state();
        let show = state.shows.entry(layout.show_id).or_default();
        show.layout = layout.blocks;
        show.earlier = None;
    }

    /// Notes where in the stream the reader is, at `now`. Between two such reports the copy ages.
    pub fn reached(&self, place: Reached, now: Timestamp) {
        let mut state = self.state();
        match place {
            Reached::Beginning => {
                let as_of = state.as_of;
                state.shows.values_mut().for_each(|show| show.earlier = show.earlier.or(as_of));
            }
            Reached::Present => state.caught_up = true,
            Reached::End => state.as_of = Some(now),
        }
    }

    /// Whether the copy can be shown: caught up, and every block is here that a layout names. `Err` says what is missing.
    ///
    /// # Errors
    /// What is missing, for an operator.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.state();
        if !state.caught_up {
            return Err("inventory's stream has not been read to its end yet".to_owned());
        }
        let missing: usize = state.shows.values().map(ShowCopy::missing).sum();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} blocks have not been published yet")) }
    }

    /// The last moment at which the copy of a show was complete.
    pub fn as_of(&self, show: ShowId) -> Option<Timestamp> {
        let state = self.state();
        state.shows.get(&show).and_then(|show| show.earlier).or(state.as_of)
    }

    /// How a section stands; `None` while the copy lacks any of its blocks.
    pub fn section(&self, show: ShowId, section: SectionId) -> Option<Availability> {
        let state = self.state();
        let copy = state.shows.get(&show)?;
        let mut sum: Option<Availability> = None;
        for layout in copy.layout.iter().filter(|layout| layout.section_id == section) {
            let block = copy.blocks.get(&layout.block_id)?;
            let sum = sum.get_or_insert_default();
            sum.capacity += u64::from(block.capacity);
            sum.free += u64::from(block.free);
            sum.held += u64::from(block.held) + u64::from(block.attached);
            sum.sold += u64::from(block.sold);
        }
        sum
    }

    /// Every numbered seat of a section, best row first.
    pub fn seats(&self, show: ShowId, section: SectionId) -> Option<Vec<Seat>> {
        let state = self.state();
        let copy = state.shows.get(&show)?;
        let mut seats = Vec::new();
        for layout in copy.layout.iter().filter(|layout| layout.section_id == section) {
            seats.extend(seats_of_block(layout, copy.blocks.get(&layout.block_id)?));
        }
        Some(seats)
    }
}

impl ShowCopy {
    fn missing(&self) -> usize {
        self.layout.iter().filter(|layout| !self.blocks.contains_key(&layout.block_id)).count()
    }
}

fn seats_of_block<'a>(layout: &'a BlockLayout, block: &'a BlockState) -> impl Iterator<Item = Seat> + 'a {
    let labels =
        layout.rows.iter().flat_map(|row| (0..row.seats).map(move |n| (&row.label, row.first_number + n)));
    let letters = block.seats.as_deref().unwrap_or_default().bytes();
    labels.zip(letters).zip(0..).map(|(((row, number), letter), index)| Seat {
        seat_id: SeatId { block: layout.block_id, index },
        row: row.clone(),
        number,
        state: seat_state(letter),
    })
}

const fn seat_state(letter: u8) -> SeatState {
    match letter {
        b'f' => SeatState::Free,
        b's' => SeatState::Sold,
        b'b' => SeatState::Blocked,
        // Held and attached look the same from outside; so does a letter that a newer inventory may invent.
        _ => SeatState::Held,
    }
}

#[cfg(test)]
mod tests {
    use stampede_contracts::event::RowSpan;

    use super::*;

    fn block(show_id: ShowId, section_id: SectionId, number: i64, version: i64, seats: &str) -> BlockState {
        let count = |letter| seats.matches(letter).count() as u32;
        BlockState {
            show_id,
            section_id,
            block_id: BlockId::from_number(number),
            version,
            capacity: seats.len() as u32,
            free: count('f'),
            held: count('h'),
            attached: count('a'),
            sold: count('s'),
            blocked: count('b'),
            seats: Some(seats.to_owned()),
            as_of: Timestamp::now(),
        }
    }

    fn layout(section_id: SectionId, number: i64) -> BlockLayout {
        let rows = vec![
            RowSpan { label: "A".into(), first_number: 1, seats: 2 },
            RowSpan { label: "B".into(), first_number: 5, seats: 2 },
        ];
        BlockLayout { block_id: BlockId::from_number(number), section_id, shard: 0, capacity: 4, rows }
    }

    #[test]
    fn the_highest_version_wins_in_any_order() {
        let (copies, show, section) = (Copies::default(), ShowId::new(), SectionId::new());
        copies.apply_layout(LayoutPublished { show_id: show, blocks: vec![layout(section, 1)] });
        copies.apply_block(block(show, section, 1, 2, "fhas"));
        copies.apply_block(block(show, section, 1, 1, "ffff"));
        let expected = Availability { capacity: 4, free: 1, held: 2, sold: 1 };
        assert_eq!(copies.section(show, section), Some(expected));
    }

    #[test]
    fn it_is_ready_when_every_named_block_is_here() {
        let (copies, show, section) = (Copies::default(), ShowId::new(), SectionId::new());
        assert!(copies.ready().is_err());
        copies.reached(Reached::Present, Timestamp::now());
        assert_eq!(copies.as_of(show), None);
        assert_eq!(copies.ready(), Ok(()));
        let blocks = vec![layout(section, 1), layout(section, 2)];
        copies.apply_layout(LayoutPublished { show_id: show, blocks });
        copies.apply_block(block(show, section, 1, 1, "ffff"));
        assert!(copies.ready().is_err());
        assert_eq!(copies.section(show, section), None);
        copies.apply_block(block(show, section, 2, 1, "ffff"));
        assert_eq!(copies.ready(), Ok(()));
        assert_eq!(copies.section(show, section).map(|now| now.free), Some(8));
    }

    #[test]
    fn it_is_as_old_as_the_last_word_of_the_stream_that_told_of_the_show() {
        let (copies, show, other) = (Copies::default(), ShowId::new(), ShowId::new());
        let at = |second: i64| Timestamp::from_unix_millis(second * 1_000).unwrap();
        copies.apply_layout(LayoutPublished { show_id: show, blocks: vec![] });
        copies.reached(Reached::End, at(1));
        assert_eq!(copies.as_of(show), Some(at(1)));

        // Another stream, which has been read to its end and does not have the show yet; twice.
        for again in [2, 4] {
            copies.reached(Reached::Beginning, at(again));
            copies.reached(Reached::End, at(again + 1));
            assert_eq!((copies.as_of(show), copies.as_of(other)), (Some(at(1)), Some(at(again + 1))));
        }
        copies.apply_layout(LayoutPublished { show_id: show, blocks: vec![] });
        assert_eq!(copies.as_of(show), Some(at(5)));
    }

    #[test]
    fn a_seat_has_its_label_and_its_state() {
        let (copies, show, section) = (Copies::default(), ShowId::new(), SectionId::new());
        copies.apply_layout(LayoutPublished { show_id: show, blocks: vec![layout(section, 7)] });
        copies.apply_block(block(show, section, 7, 1, "fsab"));
        let seats = copies.seats(show, section).unwrap();
        let told: Vec<_> = seats
            .iter()
            .map(|seat| (seat.seat_id.to_string(), &*seat.row, seat.number, seat.state))
            .collect();
        assert_eq!(
            told,
            [
                ("b7-0".to_owned(), "A", 1, SeatState::Free),
                ("b7-1".to_owned(), "A", 2, SeatState::Sold),
                ("b7-2".to_owned(), "B", 5, SeatState::Held),
                ("b7-3".to_owned(), "B", 6, SeatState::Blocked),
            ]
        );
    }
}
