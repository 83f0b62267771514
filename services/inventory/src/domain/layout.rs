//! Cutting sections into blocks.

use stampede_contracts::ShowId;
use stampede_contracts::event::{Row, RowSpan, Seating};
use stampede_contracts::inventory::SHARDS;

/// The most seats of one block. A thousand letters fit on a database page with room to spare.
pub const BLOCK_SEATS_MAX: u32 = 1_000;

/// A block as it is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Seats or places.
    pub capacity: u32,
    /// Its row spans; empty for general admission.
    pub rows: Vec<RowSpan>,
}

/// Cuts a section into blocks, the best first, along its rows. A row is cut only when it is longer than a block.
pub fn cut(seating: &Seating) -> Vec<Piece> {
    match seating {
        Seating::GeneralAdmission(places) => {
            even(*places).map(|capacity| Piece { capacity, rows: Vec::new() }).collect()
        }
        Seating::Rows(rows) => cut_rows(rows),
    }
}

fn cut_rows(rows: &[Row]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for row in rows.iter().filter(|row| row.seats > 0) {
        let mut first_number = 1;
        for seats in even(row.seats) {
            let span = RowSpan { label: row.label.clone(), first_number, seats };
            first_number += seats;
            match pieces.last_mut() {
                Some(piece) if piece.capacity + seats <= BLOCK_SEATS_MAX => {
                    piece.capacity += seats;
                    piece.rows.push(span);
                }
                _ => pieces.push(Piece { capacity: seats, rows: vec![span] }),
            }
        }
    }
    pieces
}

/// As few parts of at most [`BLOCK_SEATS_MAX`] as there can be, of nearly the same size.
fn even(total: u32) -> impl Iterator<Item = u32> {
    let parts = total.div_ceil(BLOCK_SEATS_MAX);
    (0..parts).map(move |part| total / parts + u32::from(part < total % parts))
}

/// The shard of a show's block: neighbours lie in different shards, and every show begins with another.
pub fn shard(show: ShowId, nth: usize) -> i16 {
    let show = show.uuid().as_u128() % u128::from(SHARDS);
    let shard = (show + nth as u128) % u128::from(SHARDS);
    i16::try_from(shard).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stampede_contracts::event::{
        BlockLayout, BlockState, LayoutPublished, SHOW_ROWS_MAX, SHOW_SEATS_MAX,
    };
    use stampede_contracts::topology::MESSAGE_MAX_BYTES;
    use stampede_contracts::{BlockId, SectionId, Timestamp};

    use super::*;

    fn row(label: &str, seats: u32) -> Row {
        Row { label: label.to_owned(), seats }
    }

    #[test]
    fn a_small_section_is_one_block() {
        let pieces = cut(&Seating::Rows(vec![row("A", 10), row("B", 12)]));
        let spans = vec![
            RowSpan { label: "A".to_owned(), first_number: 1, seats: 10 },
            RowSpan { label: "B".to_owned(), first_number: 1, seats: 12 },
        ];
        assert_eq!(pieces, [Piece { capacity: 22, rows: spans }]);
    }

    #[test]
    fn general_admission_is_cut_into_even_blocks() {
        let capacities = |places| -> Vec<u32> {
            cut(&Seating::GeneralAdmission(places)).iter().map(|piece| piece.capacity).collect()
        };
        assert_eq!(capacities(0), [0; 0]);
        assert_eq!(capacities(1_000), [1_000]);
        assert_eq!(capacities(2_500), [834, 833, 833]);
    }

    #[test]
    fn neighbours_lie_in_different_shards() {
        let show = ShowId::new();
        let shards: std::collections::HashSet<i16> = (0..64).map(|nth| shard(show, nth)).collect();
        assert_eq!(shards.len(), 64);
        assert!(shards.iter().all(|shard| (0..64).contains(shard)));
    }

    /// Room for the headers of a message beside its payload.
    const HEADERS_BYTES: usize = 4 * 1024;

    /// The most to say: as many rows as there may be, long labels, and rows so long that each is a block.
    #[test]
    fn the_layout_of_the_largest_show_fits_into_a_message() {
        let label = |nth| format!("{nth:04}{}", "\u{1f39f}".repeat(12));
        let (show, section_id) = (ShowId::new(), SectionId::new());
        for seats in [40, 501] {
            let rows = SHOW_ROWS_MAX.min(usize::try_from(SHOW_SEATS_MAX).unwrap() / seats);
            let seats = u32::try_from(seats).unwrap();
            let rows = (0..rows).map(|nth| row(&label(nth), seats)).collect();
            let blocks = (0..).zip(cut(&Seating::Rows(rows))).map(|(nth, piece)| BlockLayout {
                block_id: BlockId::from_number(i64::MAX - nth),
                section_id,
                shard: 63,
                capacity: piece.capacity,
                rows: piece.rows,
            });
            let layout = LayoutPublished { show_id: show, blocks: blocks.collect() };
            let size = serde_json::to_vec(&layout).unwrap().len();
            assert!(size + HEADERS_BYTES < MESSAGE_MAX_BYTES, "{size} bytes for rows of {seats}");
        }
    }

    #[test]
    fn the_state_of_the_largest_block_is_a_small_message() {
        let state = BlockState {
            show_id: ShowId::new(),
            section_id: SectionId::new(),
            block_id: BlockId::from_number(i64::MAX),
            version: i64::MAX,
            capacity: BLOCK_SEATS_MAX,
            free: BLOCK_SEATS_MAX,
            held: BLOCK_SEATS_MAX,
            attached: BLOCK_SEATS_MAX,
            sold: BLOCK_SEATS_MAX,
            blocked: BLOCK_SEATS_MAX,
            seats: Some("s".repeat(1_000)),
            as_of: Timestamp::now(),
        };
        let size = serde_json::to_vec(&state).unwrap().len();
        assert!(size < 2 * 1024, "{size}");
    }

    proptest! {
        #[test]
        fn every_seat_lies_in_exactly_one_block(sizes in prop::collection::vec(0_u32..3_500, 0..40)) {
            let rows: Vec<Row> = sizes.iter().enumerate().map(|(nth, seats)| row(&nth.to_string(), *seats)).collect();
            let pieces = cut(&Seating::Rows(rows.clone()));
            for piece in &pieces {
                prop_assert!((1..=BLOCK_SEATS_MAX).contains(&piece.capacity));
                prop_assert_eq!(piece.capacity, piece.rows.iter().map(|span| span.seats).sum::<u32>());
            }
            let spans: Vec<&RowSpan> = pieces.iter().flat_map(|piece| &piece.rows).collect();
            let mut at = 0;
            for row in rows.iter().filter(|row| row.seats > 0) {
                let mut next_number = 1;
                let first = at;
                while next_number <= row.seats {
                    prop_assert_eq!(&spans[at].label, &row.label);
                    prop_assert_eq!(spans[at].first_number, next_number);
                    next_number += spans[at].seats;
                    at += 1;
                }
                prop_assert_eq!(next_number, row.seats + 1);
                prop_assert!(row.seats > BLOCK_SEATS_MAX || at == first + 1, "cut without need");
            }
            prop_assert_eq!(at, spans.len());
        }
    }
}
