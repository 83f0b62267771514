//! Rule 3: what the provider took for a settled order, and gave back.

use std::collections::HashMap;

use anyhow::Result;
use futures::TryStreamExt;
use stampede_contracts::OrderId;
use stampede_contracts::api::OrderState;

use super::picture::{Holds, Order, Orders};
use super::report::Found;
use super::snapshot::Snapshots;

/// What the provider's ledger says of one purchase, in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    captured: i64,
    refunded: i64,
    /// Of all of them; with a comma if there are several.
    currency: String,
}

/// Charges by what the merchant called the purchase.
pub(super) type Charges = HashMap<String, Charge>;

pub(super) async fn charges(now: &mut Snapshots) -> Result<Charges> {
    let mut rows = sqlx::query_as::<_, (String, i64, i64, String)>(
        "SELECT coalesce(reference, 'nothing'), coalesce(sum(amount) FILTER (WHERE status = 'captured'), 0)::bigint,
            coalesce(sum(amount) FILTER (WHERE status = 'refunded'), 0)::bigint,
            coalesce(string_agg(DISTINCT currency, ','), '')
         FROM operation WHERE status IN ('captured', 'refunded') GROUP BY reference",
    )
    .fetch(&mut *now.psp);
    let mut charges = Charges::new();
    while let Some((reference, captured, refunded, currency)) = rows.try_next().await? {
        charges.insert(reference, Charge { captured, refunded, currency });
    }
    Ok(charges)
}

pub(super) fn check(orders: &Orders, holds: &Holds, charges: &Charges) -> Found {
    let mut found = Found::default();
    let settled = || orders.values().filter(|order| order.is_settled);
    found.checked(settled().count(), "settled orders");
    found.checked(charges.len(), "orders that were charged");
    let nothing = Charge::default();
    for order in settled() {
        let charge = charges.get(&order.id.to_string()).unwrap_or(&nothing);
        let wrong = wrong_charge(order, charge)
            .or_else(|| wrong_tickets(order))
            .or_else(|| wrong_price(order, holds));
        if let Some(why) = wrong {
            found.broken(why);
        }
    }
    for (reference, charge) in charges {
        let is_known = reference.parse().is_ok_and(|id: OrderId| orders.contains_key(&id));
        if !is_known {
            let captured = amount(charge.captured, &charge.currency);
            found.broken(format!("the provider took {captured} for {reference}, and there is no such order"));
        }
    }
    found
}

fn wrong_charge(order: &Order, charge: &Charge) -> Option<String> {
    let (price, currency) = match &order.price {
        Some(price) => (price.amount(), price.currency().to_string()),
        None => (0, String::new()),
    };
    let kept = charge.captured - charge.refunded;
    let due = if order.tickets > 0 { price } else { 0 };
    let is_same_currency = charge.captured == 0 || charge.currency == currency;
    if kept == due && charge.refunded >= 0 && is_same_currency {
        return None;
    }
    Some(format!(
        "order {} is {} with {} valid tickets at {}, and the provider took {} and gave back {}",
        order.id,
        order.state.as_str(),
        order.tickets,
        amount(price, &currency),
        amount(charge.captured, &charge.currency),
        amount(charge.refunded, &charge.currency),
    ))
}

fn wrong_tickets(order: &Order) -> Option<String> {
    let due = if order.state == OrderState::Confirmed { i64::from(order.quantity) } else { 0 };
    (order.places != due).then(|| {
        let (id, state) = (order.id, order.state.as_str());
        format!(
            "order {id} is {state} for {} places, and {} of them have a valid ticket",
            order.quantity, order.places
        )
    })
}

/// The price was frozen in the hold.
fn wrong_price(order: &Order, holds: &Holds) -> Option<String> {
    let (price, hold) = (order.price?, holds.get(&order.hold.uuid())?);
    let is_frozen = price == hold.price && order.quantity == hold.quantity;
    (!is_frozen).then(|| {
        format!(
            "order {} is for {} places at {price}, and hold {} for {} at {}",
            order.id, order.quantity, hold.id, hold.quantity, hold.price
        )
    })
}

fn amount(minor: i64, currency: &str) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let minor = minor.unsigned_abs();
    format!("{sign}{}.{:02} {currency}", minor / 100, minor % 100).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::purchase;
    use super::*;

    fn charge(captured: i64, refunded: i64) -> Charge {
        Charge { captured, refunded, currency: "EUR".to_owned() }
    }

    fn broken(order: Order, charge: Charge) -> u64 {
        let charges = Charges::from([(order.id.to_string(), charge)]);
        check(&Orders::from([(order.id, order)]), &Holds::new(), &charges).broken
    }

    #[test]
    fn with_tickets_the_price_and_without_nothing() {
        let (confirmed, _) = purchase();
        let cancelled =
            Order { state: OrderState::Cancelled, tickets: 0, places: 0, seats: Vec::new(), ..confirmed };
        for (captured, refunded, with, without) in
            [(5_000, 0, 0, 1), (5_000, 5_000, 1, 0), (5_000, 2_500, 1, 1), (10_000, 0, 1, 1), (0, 0, 1, 0)]
        {
            assert_eq!(broken(confirmed.clone(), charge(captured, refunded)), with, "{captured} {refunded}");
            assert_eq!(
                broken(cancelled.clone(), charge(captured, refunded)),
                without,
                "{captured} {refunded}"
            );
        }
        let dollars = Charge { currency: "USD".to_owned(), ..charge(5_000, 0) };
        assert_eq!(broken(confirmed, dollars), 1);
    }

    #[test]
    fn a_confirmed_order_has_all_its_tickets() {
        let (order, _) = purchase();
        assert_eq!(broken(Order { tickets: 1, places: 1, ..order.clone() }, charge(5_000, 0)), 1);
        // A second ticket for one of the seats is another rule's.
        assert_eq!(broken(Order { tickets: 3, ..order }, charge(5_000, 0)), 0);
    }

    #[test]
    fn what_is_charged_was_ordered_at_the_price_of_the_hold() {
        let charges = Charges::from([("ord_x".to_owned(), charge(1, 0))]);
        assert_eq!(check(&Orders::new(), &Holds::new(), &charges).broken, 1);
        let (order, hold) = purchase();
        let charges = Charges::from([(order.id.to_string(), charge(5_000, 0))]);
        let holds = Holds::from([(hold.id.uuid(), super::super::picture::Hold { quantity: 3, ..hold })]);
        assert_eq!(check(&Orders::from([(order.id, order)]), &holds, &charges).broken, 1);
    }
}
