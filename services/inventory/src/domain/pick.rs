//! The best seats of a block.
//!
//! Side by side in the best row that has room; within that row so that no single seat is left over that nobody wants,
//! and as near to the middle as possible. Where nobody can sit side by side, the group is torn into as few parts as
//! possible.

use std::ops::Range;

use stampede_contracts::event::RowSpan;

use super::block::Seat;

/// Chooses `quantity` free seats; `None` when there are not so many. `seats` has one letter a seat, in the order of
/// `rows`. The indices are ascending.
pub fn best(seats: &str, rows: &[RowSpan], quantity: u32) -> Option<Vec<u16>> {
    let quantity = usize::try_from(quantity).ok().filter(|quantity| *quantity > 0)?;
    let free: Vec<bool> = seats.bytes().map(|letter| letter == Seat::Free.letter()).collect();
    let together = row_ranges(rows, free.len()).find_map(|row| side_by_side(&free, row, quantity));
    let chosen = match together {
        Some(first) => (first..first + quantity).collect(),
        None => in_few_parts(&free, rows, quantity)?,
    };
    chosen.into_iter().map(|index| u16::try_from(index).ok()).collect()
}

/// The most people who can sit side by side.
pub fn longest_run(seats: &str, rows: &[RowSpan]) -> u32 {
    let free: Vec<bool> = seats.bytes().map(|letter| letter == Seat::Free.letter()).collect();
    let longest = runs(&free, rows).map(|run| run.len()).max().unwrap_or_default();
    u32::try_from(longest).unwrap_or(u32::MAX)
}

/// The first seat of the best place for a group in one row.
fn side_by_side(free: &[bool], row: Range<usize>, quantity: usize) -> Option<usize> {
    let last_first = row.end.checked_sub(quantity)?;
    (row.start..=last_first)
        .filter(|first| free[*first..first + quantity].iter().all(|free| *free))
        .min_by_key(|first| {
            let taken = *first..first + quantity;
            // Twice the distance of the group's middle from the row's, so that it stays a whole number.
            let off_centre = (row.start + row.end).abs_diff(taken.start + taken.end);
            (left_alone(free, &row, &taken), off_centre, *first)
        })
}

/// How many free seats would be left without a free neighbour at the ends of a group.
fn left_alone(free: &[bool], row: &Range<usize>, taken: &Range<usize>) -> usize {
    let is_free = |index: usize| row.contains(&index) && free[index];
    let before =
        taken.start > 0 && is_free(taken.start - 1) && !(taken.start > 1 && is_free(taken.start - 2));
    let behind = is_free(taken.end) && !is_free(taken.end + 1);
    usize::from(before) + usize::from(behind)
}

/// No run is long enough: whole runs, the longest first, and for the last part the shortest run that will do. No
/// other choice has fewer parts, because no runs hold more than the longest ones.
fn in_few_parts(free: &[bool], rows: &[RowSpan], quantity: usize) -> Option<Vec<usize>> {
    let mut runs: Vec<Range<usize>> = runs(free, rows).collect();
    // Stable: among runs of one length the best row stays first.
    runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
    let mut chosen = Vec::with_capacity(quantity);
    for (at, run) in runs.iter().enumerate() {
        let missing = quantity - chosen.len();
        if run.len() >= missing {
            let fitting = runs[at..].iter().take_while(|run| run.len() >= missing);
            let last = fitting.min_by_key(|run| run.len()).unwrap_or(run);
            chosen.extend(last.start..last.start + missing);
            chosen.sort_unstable();
            return Some(chosen);
        }
        chosen.extend(run.clone());
    }
    None
}

/// Longest stretches of free seats within a row, best row first.
fn runs(free: &[bool], rows: &[RowSpan]) -> impl Iterator<Item = Range<usize>> {
    row_ranges(rows, free.len()).flat_map(move |row| {
        let (start, end) = (row.start, row.end);
        let begins = move |index: &usize| free[*index] && (*index == start || !free[*index - 1]);
        (start..end).filter(begins).map(move |first| {
            let length = free[first..end].iter().take_while(|free| **free).count();
            first..first + length
        })
    })
}

/// The seats of each row as indices in the block, never beyond its end.
fn row_ranges(rows: &[RowSpan], seats: usize) -> impl Iterator<Item = Range<usize>> {
    rows.iter().scan(0_usize, move |next, row| {
        let start = *next;
        *next = start.saturating_add(usize::try_from(row.seats).unwrap_or(usize::MAX)).min(seats);
        Some(start..*next)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(sizes: &[u32]) -> Vec<RowSpan> {
        let span =
            |(nth, seats): (usize, &u32)| RowSpan { label: nth.to_string(), first_number: 1, seats: *seats };
        sizes.iter().enumerate().map(span).collect()
    }

    #[test]
    fn an_empty_row_is_filled_from_the_middle() {
        assert_eq!(best("ffffffffff", &rows(&[10]), 2), Some(vec![4, 5]));
    }

    #[test]
    fn the_best_row_with_room_comes_first() {
        assert_eq!(best("fffsffssffff", &rows(&[8, 4]), 4), Some(vec![8, 9, 10, 11]));
        assert_eq!(best("ffffssssffff", &rows(&[8, 4]), 3), Some(vec![1, 2, 3]));
    }

    #[test]
    fn no_single_seat_is_left_where_it_can_be_helped() {
        // The middle would be 2 and 3, which leaves seat 1 alone.
        assert_eq!(best("sffffs", &rows(&[6]), 2), Some(vec![1, 2]));
        assert_eq!(best("sfffs", &rows(&[5]), 3), Some(vec![1, 2, 3]));
        assert_eq!(best("sfffs", &rows(&[5]), 2), Some(vec![1, 2]), "here it cannot");
    }

    #[test]
    fn nobody_sits_side_by_side_across_a_row_end() {
        assert_eq!(best("sfsfffss", &rows(&[4, 4]), 3), Some(vec![1, 4, 5]));
        assert_eq!(longest_run("sfsfffss", &rows(&[4, 4])), 2);
    }

    #[test]
    fn blocked_held_and_sold_seats_are_not_free() {
        assert_eq!(best("bhasf", &rows(&[5]), 1), Some(vec![4]));
        assert_eq!(best("bhasf", &rows(&[5]), 2), None);
        assert_eq!(best("fff", &rows(&[3]), 0), None);
    }

    /// Parts that a choice falls into.
    fn parts(chosen: &[usize], row_of: &[usize]) -> usize {
        let joined = |pair: &&[usize]| pair[0] + 1 == pair[1] && row_of[pair[0]] == row_of[pair[1]];
        chosen.len() - chosen.windows(2).filter(joined).count()
    }

    /// Every choice of `quantity` out of `free`, the slow way.
    fn choices(free: &[usize], quantity: usize) -> Vec<Vec<usize>> {
        if quantity == 0 {
            return vec![Vec::new()];
        }
        let with_first = |at: usize| {
            choices(&free[at + 1..], quantity - 1).into_iter().map(move |mut rest| {
                rest.insert(0, free[at]);
                rest
            })
        };
        (0..free.len()).flat_map(with_first).collect()
    }

    proptest! {
        #[test]
        fn it_chooses_as_one_who_tries_everything(
            block in prop::collection::vec(prop::collection::vec(prop::bool::weighted(0.6), 1..5), 1..4),
            quantity in 1_usize..6,
        ) {
            let sizes: Vec<u32> = block.iter().map(|row| u32::try_from(row.len()).unwrap()).collect();
            let row_of: Vec<usize> = (0..).zip(&block).flat_map(|(nth, row)| vec![nth; row.len()]).collect();
            let seats: String = block.iter().flatten().map(|free| if *free { 'f' } else { 's' }).collect();
            let free: Vec<usize> = seats.match_indices('f').map(|(index, _)| index).collect();

            let found = best(&seats, &rows(&sizes), u32::try_from(quantity).unwrap());
            let all = choices(&free, quantity);
            prop_assert_eq!(found.is_some(), !all.is_empty());
            let Some(found) = found else { return Ok(()) };
            let found: Vec<usize> = found.into_iter().map(usize::from).collect();
            prop_assert!(all.contains(&found), "distinct, free, ascending");

            let fewest = all.iter().map(|choice| parts(choice, &row_of)).min().unwrap();
            prop_assert_eq!(parts(&found, &row_of), fewest);
            if fewest == 1 {
                let best_row = all.iter().filter(|choice| parts(choice, &row_of) == 1).map(|choice| row_of[choice[0]]).min();
                prop_assert_eq!(Some(row_of[found[0]]), best_row);
                let alone = |choice: &[usize]| {
                    let is_free = |index: Option<usize>| {
                        index.is_some_and(|index| row_of.get(index) == Some(&row_of[choice[0]])
                            && free.contains(&index) && !choice.contains(&index))
                    };
                    let (first, last) = (choice[0], choice[quantity - 1]);
                    usize::from(is_free(first.checked_sub(1)) && !is_free(first.checked_sub(2)))
                        + usize::from(is_free(Some(last + 1)) && !is_free(Some(last + 2)))
                };
                let fewest_alone = all.iter()
                    .filter(|choice| parts(choice, &row_of) == 1 && Some(row_of[choice[0]]) == best_row)
                    .map(|choice| alone(choice)).min();
                prop_assert_eq!(Some(alone(&found)), fewest_alone);
            }
            let longest = (1..=free.len()).filter(|length| choices(&free, *length).iter().any(|choice| parts(choice, &row_of) == 1)).max();
            prop_assert_eq!(longest_run(&seats, &rows(&sizes)), u32::try_from(longest.unwrap_or(0)).unwrap());
        }
    }
}
