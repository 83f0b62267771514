//! Holds, asked of the node that owns their shard.

use stampede_bus::Bus;
use stampede_contracts::inventory::{
    GetHold, Hold, HoldAnswer, HoldOf, HoldView, PlaceHold, ReleaseHold, Want,
};
use stampede_contracts::{BlockId, Code, Function, Problem};

use super::layout::Layout;

/// Inventory, as the door sees it.
#[derive(Debug, Clone)]
pub struct Inventory {
    bus: Bus,
    layout: Layout,
}

impl Inventory {
    /// Over this connection, with this idea of where blocks lie.
    pub fn new(bus: Bus, layout: Layout) -> Self {
        Self { bus, layout }
    }

    /// Holds seats. The same key is asked again inside the deadline until there is an answer.
    ///
    /// # Errors
    /// Inventory's own refusal; `unavailable` or `deadline_exceeded` when there was no answer.
    pub async fn hold(&self, mut wish: PlaceHold) -> Result<HoldView, Problem> {
        let chosen = match &wish.want {
            Want::Seats(seats) => seats.first().map(|seat| seat.block),
            Want::Best { .. } => None,
        };
        let shard = chosen.and_then(|block| self.layout.shard(block));
        wish.block = chosen.filter(|_| shard.is_some());
        match self.bus.call_repeatedly::<Hold>(subject::<Hold>(shard), &wish).await? {
            HoldAnswer::Held(hold) => Ok(*hold),
            // The owner of chosen seats says so of its block, and no other block has these seats.
            HoldAnswer::Full { .. } => Err(Problem::new(Code::SeatsTaken)),
        }
    }

    /// Reads a hold.
    ///
    /// # Errors
    /// `hold_not_found`, `unavailable`, `deadline_exceeded`.
    pub async fn get(&self, hold: HoldOf) -> Result<HoldView, Problem> {
        let subject = self.subject_of::<GetHold>(hold.hold_id.block());
        Ok(self.bus.read::<GetHold>(subject, &hold).await?)
    }

    /// Releases a held hold; one that has ended is no error.
    ///
    /// # Errors
    /// `hold_not_found`, `hold_attached`, `unavailable`, `deadline_exceeded`.
    pub async fn release(&self, hold: HoldOf) -> Result<HoldView, Problem> {
        let subject = self.subject_of::<ReleaseHold>(hold.hold_id.block());
        Ok(self.bus.call_repeatedly::<ReleaseHold>(subject, &hold).await?)
    }

    fn subject_of<F: Function>(&self, block: BlockId) -> String {
        subject::<F>(self.layout.shard(block))
    }
}

fn subject<F: Function>(shard: Option<u16>) -> String {
    match shard {
        Some(shard) => format!("rpc.{}.{shard}.{}", F::SERVICE, F::NAME),
        None => format!("rpc.{}.any.{}", F::SERVICE, F::NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_goes_to_anybody() {
        assert_eq!(subject::<Hold>(None), "rpc.inventory.any.hold");
        assert_eq!(subject::<GetHold>(Some(63)), "rpc.inventory.63.get");
    }
}
