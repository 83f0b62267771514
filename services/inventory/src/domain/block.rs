//! A block: the seats or places that are locked, changed and published together.

use std::fmt;

/// State of one seat or place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seat {
    /// Can be held.
    Free,
    /// Held and not ordered.
    Held,
    /// Ordered and not paid.
    Attached,
    /// Sold.
    Sold,
    /// Never for sale.
    Blocked,
}

impl Seat {
    /// Its letter in a block.
    pub const fn letter(self) -> u8 {
        match self {
            Self::Free => b'f',
            Self::Held => b'h',
            Self::Attached => b'a',
            Self::Sold => b's',
            Self::Blocked => b'b',
        }
    }

    /// Its word in the journal and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Held => "held",
            Self::Attached => "attached",
            Self::Sold => "sold",
            Self::Blocked => "blocked",
        }
    }
}

/// How many seats are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Can be held.
    pub free: u32,
    /// Held and not ordered.
    pub held: u32,
    /// Ordered and not paid.
    pub attached: u32,
    /// Sold.
    pub sold: u32,
    /// Never for sale.
    pub blocked: u32,
}

impl Counts {
    fn of(&mut self, state: Seat) -> &mut u32 {
        match state {
            Seat::Free => &mut self.free,
            Seat::Held => &mut self.held,
            Seat::Attached => &mut self.attached,
            Seat::Sold => &mut self.sold,
            Seat::Blocked => &mut self.blocked,
        }
    }
}

/// What a hold has of its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// Seats by their index, ascending.
    Numbered(Vec<u16>),
    /// So many places without numbers.
    Unnumbered(u32),
}

impl Places {
    /// How many.
    pub fn quantity(&self) -> u32 {
        match self {
            Self::Numbered(seats) => u32::try_from(seats.len()).unwrap_or(u32::MAX),
            Self::Unnumbered(quantity) => *quantity,
        }
    }
}

/// A block's seats and a hold do not fit together: a fault in this program or in the database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{quantity} places of the block are not all {from}")]
pub struct Inconsistent {
    quantity: u32,
    from: &'static str,
}

/// The part of a block that changes.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// How many seats are in which state.
    pub counts: Counts,
    /// One letter a seat; absent for general admission.
    pub seats: Option<String>,
    /// Grows by one with every change.
    pub version: i64,
}

impl Block {
    /// Whether all these places are in one state.
    pub fn are(&self, places: &Places, state: Seat) -> bool {
        match (places, &self.seats) {
            (Places::Numbered(wanted), Some(seats)) => {
                wanted.iter().all(|index| seats.as_bytes().get(usize::from(*index)) == Some(&state.letter()))
            }
            (Places::Unnumbered(quantity), None) => *self.counts.clone().of(state) >= *quantity,
            _ => false,
        }
    }

    /// Takes places from one state to another: the next version of the block.
    ///
    /// # Errors
    /// [`Inconsistent`] when they are not all in the first state; nothing is changed then.
    pub fn take(&mut self, places: &Places, from: Seat, to: Seat) -> Result<(), Inconsistent> {
        let quantity = places.quantity();
        let inconsistent = Inconsistent { quantity, from: from.as_str() };
        if !self.are(places, from) {
            return Err(inconsistent);
        }
        let left = self.counts.of(from).checked_sub(quantity).ok_or(inconsistent)?;
        if let (Places::Numbered(indices), Some(seats)) = (places, &mut self.seats) {
            let letter = char::from(to.letter());
            *seats = seats
                .char_indices()
                .map(|(at, old)| {
                    // At most eight indices: looking through them is faster than any set.
                    if indices.iter().any(|index| usize::from(*index) == at) { letter } else { old }
                })
                .collect();
        }
        *self.counts.of(from) = left;
        *self.counts.of(to) += quantity;
        self.version += 1;
        Ok(())
    }
}

impl fmt::Debug for Block {
    // A thousand letters help nobody in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("version", &self.version).field("counts", &self.counts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(seats: &str) -> Block {
        let count = |letter| u32::try_from(seats.matches(letter).count()).unwrap();
        let counts = Counts {
            free: count('f'),
            held: count('h'),
            attached: count('a'),
            sold: count('s'),
            blocked: count('b'),
        };
        Block { counts, seats: Some(seats.to_owned()), version: 1 }
    }

    #[test]
    fn taken_seats_change_their_letters_and_the_counts() {
        let mut changed = block("ffhsb");
        changed.take(&Places::Numbered(vec![0, 1]), Seat::Free, Seat::Held).unwrap();
        assert_eq!(changed, Block { version: 2, ..block("hhhsb") });
    }

    #[test]
    fn seats_in_another_state_are_not_taken() {
        let mut changed = block("fhs");
        for places in [vec![0, 1], vec![2], vec![3]] {
            assert!(changed.take(&Places::Numbered(places), Seat::Free, Seat::Held).is_err());
        }
        assert!(changed.take(&Places::Unnumbered(1), Seat::Free, Seat::Held).is_err(), "not without numbers");
        assert_eq!(changed, block("fhs"));
    }

    #[test]
    fn places_without_numbers_are_only_counted() {
        let counts = Counts { free: 3, ..Counts::default() };
        let mut changed = Block { counts, seats: None, version: 7 };
        changed.take(&Places::Unnumbered(2), Seat::Free, Seat::Held).unwrap();
        assert_eq!(changed.counts, Counts { free: 1, held: 2, ..Counts::default() });
        assert!(changed.take(&Places::Unnumbered(2), Seat::Free, Seat::Held).is_err());
        assert_eq!(changed.version, 8);
    }
}
