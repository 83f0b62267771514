//! Rule 5, as far as it lies between `orders` and `inventory`: tickets belong to seats that are sold to their order,
//! and what is sold has a sale.

use stampede_contracts::api::OrderState;
use stampede_contracts::inventory::HoldState;

use super::picture::{Forgotten, Hold, Holds, Order, Orders};
use super::report::Found;

pub(super) fn check(orders: &Orders, holds: &Holds, forgotten: &Forgotten) -> Found {
    let mut found = Found::default();
    let settled = || orders.values().filter(|order| order.is_settled);
    found.checked(settled().filter(|order| order.tickets > 0).count(), "orders with tickets");
    let is_kept = |order: &&Order| !forgotten.blocks.contains(&order.hold.block());
    for order in settled().filter(is_kept) {
        if let Some(why) = unsold(order, holds.get(&order.hold.uuid())) {
            found.broken(why);
        }
    }
    for hold in holds.values().filter(|hold| hold.state == HoldState::Sold) {
        if let Some(why) = unwanted(hold, orders) {
            found.broken(why);
        }
    }
    found
}

/// Why the tickets of an order have no seats.
fn unsold(order: &Order, hold: Option<&Hold>) -> Option<String> {
    if order.tickets == 0 {
        return None;
    }
    let Some(hold) = hold else {
        return Some(format!("order {} has tickets for hold {}, which there is not", order.id, order.hold));
    };
    if hold.state != HoldState::Sold || hold.order != Some(order.id) {
        let to = hold.order.map_or_else(|| "nobody".to_owned(), |other| other.to_string());
        let (id, state) = (hold.id, word(hold.state));
        return Some(format!("order {} has tickets, and its hold {id} is {state} (to {to})", order.id));
    }
    if hold.session != order.session {
        return Some(format!("order {} bought hold {} of another session", order.id, hold.id));
    }
    let stranger = order.seats.iter().find(|seat| !hold.has(seat))?;
    Some(format!("order {} has a ticket for seat {stranger}, which hold {} has not", order.id, hold.id))
}

/// Why a sold hold should not be sold.
fn unwanted(hold: &Hold, orders: &Orders) -> Option<String> {
    let Some(id) = hold.order else { return Some(format!("hold {} is sold to nobody", hold.id)) };
    let Some(order) = orders.get(&id) else {
        return Some(format!("hold {} is sold to order {id}, which there is not", hold.id));
    };
    if order.hold != hold.id {
        return Some(format!("hold {} is sold to order {id}, which ordered {}", hold.id, order.hold));
    }
    // Until it has come to rest it may be on its way to confirmed, or its seats on their way to free.
    let lost = order.is_settled && order.state != OrderState::Confirmed;
    lost.then(|| format!("hold {} is sold to order {id}, which is {}", hold.id, order.state.as_str()))
}

pub(super) const fn word(state: HoldState) -> &'static str {
    match state {
        HoldState::Held => "held",
        HoldState::Attached => "attached",
        HoldState::Sold => "sold",
        HoldState::Freed => "freed",
    }
}

#[cfg(test)]
mod tests {
    use stampede_contracts::OrderId;

    use super::super::picture::tests::purchase;
    use super::*;

    fn broken(order: Order, hold: Hold) -> u64 {
        let (orders, holds) = (Orders::from([(order.id, order)]), Holds::from([(hold.id.uuid(), hold)]));
        check(&orders, &holds, &Forgotten::default()).broken
    }

    #[test]
    fn a_purchase_is_in_order() {
        let (order, hold) = purchase();
        assert_eq!(broken(order, hold), 0);
    }

    #[test]
    fn a_ticket_needs_a_seat_that_is_sold_to_its_order() {
        let (order, hold) = purchase();
        let freed = Hold { state: HoldState::Freed, ..hold.clone() };
        assert_eq!(broken(order.clone(), freed), 1);
        let elsewhere = Order { seats: vec!["b7-9".to_owned()], ..order };
        assert_eq!(broken(elsewhere, hold.clone()), 1);
        // Both sides of it are told: the tickets without seats, and the seats without an order.
        let of_another = Hold { order: Some(OrderId::new()), ..hold };
        assert_eq!(broken(order, of_another), 2);
    }

    #[test]
    fn seats_do_not_stay_sold_to_an_order_that_failed() {
        let (order, hold) = purchase();
        let failed = Order { state: OrderState::Failed, tickets: 0, places: 0, seats: Vec::new(), ..order };
        assert_eq!(broken(failed.clone(), hold.clone()), 1);
        assert_eq!(broken(Order { is_settled: false, ..failed }, hold), 0, "it may be on its way");
    }
}
