//! The rules that are checked, as they are numbered in the architecture's "What must always hold".

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// 1: at most one valid ticket per seat, never two holds on one seat.
    SeatOnce,
    /// 2: free + held + attached + sold + blocked = capacity, and seats, holds and counters agree.
    Capacity,
    /// 3: a settled order was charged its price or nothing, and its price exactly when it has tickets.
    Price,
    /// 4: one capture an order, every authorisation ended, both ledgers agree, double entry sums to zero.
    Ledgers,
    /// 5: no sale on a hold that was not attached to that order; the journal's order decides.
    Attached,
    /// 7: what was acknowledged is in the databases.
    Kept,
    /// 8: same key, same reply.
    SameReply,
    /// 9: everything that was begun ends.
    Ends,
    /// 11: passes in number order; one place and one live hold; slots within the cap.
    Lobby,
    /// 12: what is personal or secret reaches no stream, no dead letter and no log.
    Private,
}

impl Rule {
    /// Every rule, in order.
    pub const ALL: [Self; 10] = [
        Self::SeatOnce,
        Self::Capacity,
        Self::Price,
        Self::Ledgers,
        Self::Attached,
        Self::Kept,
        Self::SameReply,
        Self::Ends,
        Self::Lobby,
        Self::Private,
    ];

    /// Its number in ARCHITECTURE.md.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::SeatOnce => "1",
            Self::Capacity => "2",
            Self::Price => "3",
            Self::Ledgers => "4",
            Self::Attached => "5",
            Self::Kept => "7",
            Self::SameReply => "8",
            Self::Ends => "9",
            Self::Lobby => "11",
            Self::Private => "12",
        }
    }

    /// A few words for the table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::SeatOnce => "a seat is sold once, and held once",
            Self::Capacity => "every place is accounted for",
            Self::Price => "charged the price with tickets, or nothing",
            Self::Ledgers => "captured once; both ledgers agree",
            Self::Attached => "sold only to the order it was attached to",
            Self::Kept => "what was acknowledged is there",
            Self::SameReply => "same key, same reply",
            Self::Ends => "everything that was begun ends",
            Self::Lobby => "lobby: in order, once, within the slots",
            Self::Private => "no secret in a stream or a log",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_titles_are_those_of_the_architecture() {
        let map = crate::state::workspace().unwrap().join("ARCHITECTURE.md");
        let map = std::fs::read_to_string(map).unwrap().to_lowercase();
        for rule in Rule::ALL {
            let line = format!("\n{}. **{}", rule.number(), rule.title());
            assert_eq!(map.matches(&line).count(), 1, "{line}");
        }
    }
}
