//! Rules 7 and 8: what buyers were told, and what was stored to be told again, against the databases.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use futures::TryStreamExt;
use ring::digest::{SHA256, digest};
use sqlx::types::Json;
use stampede_contracts::api::{self, OrderState, PlaceState};
use stampede_contracts::inventory::{HoldState, HoldView};
use stampede_contracts::{OrderId, Timestamp};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Rule;
use super::picture::{Forgotten, Order, Orders};
use super::report::Found;
use super::snapshot::{Snapshots, count, find};
use super::told::{Final, Told, ToldOrder, ToldPlace};
use crate::secrets::hex;

/// Keys are kept for a day; one that is not much younger may be forgotten already.
const KEYS_KEPT_FOR: Duration = Duration::from_secs(23 * 60 * 60);

/// What was found for both rules.
#[derive(Default)]
pub(super) struct Promises {
    pub(super) kept: Found,
    pub(super) same: Found,
}

pub(super) async fn check(
    now: &mut Snapshots,
    told: &Told,
    orders: &Orders,
    forgotten: &Forgotten,
) -> Result<Promises> {
    let mut promises = Promises::default();
    for (rule, why) in &told.contradictions {
        match rule {
            Rule::SameReply => promises.same.broken(why.clone()),
            _ => promises.kept.broken(why.clone()),
        }
    }
    holds(&mut promises, now, told, forgotten).await?;
    let answers = answers(now).await?;
    placed(&mut promises.kept, told, orders, &answers);
    keys(&mut promises, now, told, &answers);
    tickets(&mut promises.kept, now, told).await?;
    places(&mut promises.kept, now, told, forgotten).await?;
    hold_keys(&mut promises.same, now, told).await?;
    promises.same.checked(told.repeats, "repeated answers");
    count(
        &mut promises.kept,
        &mut now.orders,
        "stored answers",
        "SELECT count(*) FROM orders WHERE reply_status IS NOT NULL",
    )
    .await?;
    find(&mut promises.kept, &mut now.orders, now.cutoff, STORED_OTHERWISE).await?;
    Ok(promises)
}

/// A stored answer says what became of the order, whoever asked for it.
const STORED_OTHERWISE: &str = "
    SELECT format('order ord_%s was answered %s, and is %s', replace(order_id::text, '-', ''), reply_status, state)
    FROM orders
    WHERE (reply_status = 201 AND (state NOT IN ('confirmed', 'cancelling', 'cancelled')
            OR (state <> 'confirmed' AND cancel_requested_at IS NULL)))
        OR (reply_status = 402 AND state <> 'declined')
        OR (reply_status = 409 AND state NOT IN ('failed', 'cancelled'))";

/// Every hold is there, and what is stored gives the very bytes of the answer.
async fn holds(
    promises: &mut Promises,
    now: &mut Snapshots,
    told: &Told,
    forgotten: &Forgotten,
) -> Result<()> {
    promises.kept.checked(told.holds.len(), "holds");
    let ids: Vec<Uuid> = told.holds.keys().map(|hold| hold.uuid()).collect();
    let mut missing: HashMap<Uuid, _> =
        told.holds.iter().map(|(hold, told)| (hold.uuid(), (hold, told))).collect();
    let mut rows = sqlx::query_as::<_, (Uuid, String, Json<HoldView>)>(
        "SELECT id, state, placed FROM hold WHERE id = ANY($1)",
    )
    .bind(ids)
    .fetch(&mut *now.inventory);
    while let Some((id, state, Json(placed))) = rows.try_next().await? {
        let Some((hold, answer)) = missing.remove(&id) else { continue };
        if let Some(line) = answer.released.filter(|_| state != "freed") {
            let why = format!("hold {hold} was told to be released ({}), and is {state}", told.place(line));
            promises.kept.broken(why);
        }
        if let Some(first) = &answer.digest
            && *first != hex(digest(&SHA256, &reply(placed)?).as_ref())
        {
            let why = format!(
                "hold {hold} was answered ({}) with other words than are stored",
                told.place(answer.line)
            );
            promises.kept.broken(why);
        }
    }
    for (hold, answer) in missing.values().filter(|(hold, _)| !forgotten.blocks.contains(&hold.block())) {
        promises
            .kept
            .broken(format!("hold {hold} was acknowledged ({}), and is not there", told.place(answer.line)));
    }
    Ok(())
}

/// As the gateway answers when a hold is placed.
fn reply(placed: HoldView) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&api::Hold {
        hold_id: placed.hold_id,
        show_id: placed.show_id,
        section_id: placed.section_id,
        quantity: placed.quantity,
        seats: placed.seats,
        total: placed.total,
        expires_at: placed.expires_at,
        state: HoldState::Held,
    })
}

/// What `orders` stored to be told again.
#[derive(sqlx::FromRow)]
struct Answer {
    order_id: Uuid,
    idempotency_key: Option<String>,
    order_secret: String,
    reply_status: Option<i16>,
    digest: Option<String>,
    is_cancel_requested: bool,
}

#[derive(Default)]
struct Answers {
    of_order: HashMap<OrderId, Answer>,
    of_key: HashMap<String, OrderId>,
}

async fn answers(now: &mut Snapshots) -> Result<Answers> {
    let mut rows = sqlx::query_as::<_, Answer>(
        "SELECT order_id, idempotency_key, order_secret, reply_status, encode(sha256(reply_body), 'hex') AS digest,
            cancel_requested_at IS NOT NULL AS is_cancel_requested FROM orders",
    )
    .fetch(&mut *now.orders);
    let mut answers = Answers::default();
    while let Some(answer) = rows.try_next().await? {
        let id = OrderId::from_uuid(answer.order_id);
        if let Some(key) = &answer.idempotency_key {
            answers.of_key.insert(key.clone(), id);
        }
        answers.of_order.insert(id, answer);
    }
    Ok(answers)
}

/// Every order is there, and as it was told or further.
fn placed(kept: &mut Found, told: &Told, orders: &Orders, answers: &Answers) {
    kept.checked(told.orders.len(), "orders");
    for (id, said) in &told.orders {
        let (Some(order), Some(answer)) = (orders.get(id), answers.of_order.get(id)) else {
            kept.broken(format!("order {id} was acknowledged ({}), and is not there", told.place(said.line)));
            continue;
        };
        if let Some(why) = other_order(order, answer, said) {
            kept.broken(format!("order {id} {why} ({})", told.place(said.line)));
        }
        for (state, line) in &said.states {
            if !may_follow(*state, order.state, answer.is_cancel_requested) {
                let (said, is) = (state.as_str(), order.state.as_str());
                kept.broken(format!("order {id} was told to be {said} ({}), and is {is}", told.place(*line)));
            }
        }
        if let Some(line) = said.cancelled.filter(|_| !answer.is_cancel_requested) {
            let why =
                format!("order {id} was told to be cancelled ({}), and nobody knows of it", told.place(line));
            kept.broken(why);
        }
    }
}

fn other_order(order: &Order, answer: &Answer, said: &ToldOrder) -> Option<String> {
    if order.hold != said.hold {
        return Some(format!("was told to be for hold {}, and is for {}", said.hold, order.hold));
    }
    if said.total.is_some() && said.total != order.price {
        return Some("was told another price".to_owned());
    }
    let is_other = said.secret.as_ref().is_some_and(|secret| *secret != answer.order_secret);
    is_other.then(|| "was told another secret".to_owned())
}

/// Whether an order that was told to be in one state can be in the other now.
fn may_follow(told: OrderState, is: OrderState, is_cancel_requested: bool) -> bool {
    use OrderState::{Cancelled, Cancelling, Confirmed, Declined, Failed, Failing, Pending};
    match told {
        Pending => true,
        Confirmed => is == Confirmed || (matches!(is, Cancelling | Cancelled) && is_cancel_requested),
        Failing => matches!(is, Failing | Failed),
        Cancelling => matches!(is, Cancelling | Cancelled),
        Declined | Failed | Cancelled => is == told,
    }
}

/// The answer to a key is the one that is stored for it.
fn keys(promises: &mut Promises, now: &Snapshots, told: &Told, answers: &Answers) {
    promises.same.checked(told.order_keys.len(), "keys of orders");
    for (key, said) in &told.order_keys {
        let stored = answers.of_key.get(key).and_then(|order| answers.of_order.get(order));
        let Some(stored) = stored else {
            if !may_be_forgotten(said, now.cutoff) {
                let why = format!(
                    "key {key} was answered {} ({}), and no order has it",
                    said.status,
                    told.place(said.line)
                );
                promises.kept.broken(why);
            }
            continue;
        };
        let is_same = stored.reply_status.is_some_and(|status| u16::try_from(status) == Ok(said.status))
            && stored.digest.as_ref() == Some(&said.digest);
        if !is_same {
            let status =
                stored.reply_status.map_or_else(|| "nothing".to_owned(), |status| status.to_string());
            promises.same.broken(format!(
                "key {key} was answered {} ({}), and {status} with other bytes is stored for {}",
                said.status,
                told.place(said.line),
                OrderId::from_uuid(stored.order_id)
            ));
        }
    }
}

fn may_be_forgotten(said: &Final, now: OffsetDateTime) -> bool {
    said.at.inner() + KEYS_KEPT_FOR < now
}

async fn tickets(kept: &mut Found, now: &mut Snapshots, told: &Told) -> Result<()> {
    let mut missing: HashMap<Uuid, _> = told
        .orders
        .iter()
        .flat_map(|(order, said)| {
            said.tickets.iter().map(move |ticket| (ticket.id.uuid(), (order, said, ticket)))
        })
        .collect();
    kept.checked(missing.len(), "tickets");
    let ids: Vec<Uuid> = missing.keys().copied().collect();
    let mut rows = sqlx::query_as::<_, (Uuid, Uuid, Option<String>, String)>(
        "SELECT ticket_id, order_id, seat, code FROM ticket WHERE ticket_id = ANY($1)",
    )
    .bind(ids)
    .fetch(&mut *now.orders);
    while let Some((id, order_id, seat, code)) = rows.try_next().await? {
        let Some((order, said, ticket)) = missing.remove(&id) else { continue };
        if order.uuid() != order_id || ticket.seat != seat || ticket.code != code {
            let place = told.place(said.line);
            kept.broken(format!("ticket {} of order {order} is another than was given ({place})", ticket.id));
        }
    }
    for (order, said, ticket) in missing.values() {
        let place = told.place(said.line);
        kept.broken(format!("ticket {} of order {order} was given ({place}), and is not there", ticket.id));
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct PlaceRow {
    place_id: Uuid,
    show_id: Uuid,
    number: Option<i64>,
    state: String,
    pass_expires_at: Option<OffsetDateTime>,
}

async fn places(kept: &mut Found, now: &mut Snapshots, told: &Told, forgotten: &Forgotten) -> Result<()> {
    kept.checked(told.places.len(), "places in lobbies");
    let mut missing: HashMap<Uuid, _> =
        told.places.iter().map(|(place, said)| (place.uuid(), (place, said))).collect();
    let ids: Vec<Uuid> = missing.keys().copied().collect();
    let mut rows = sqlx::query_as::<_, PlaceRow>(
        "SELECT place_id, show_id, number, state, pass_expires_at FROM place WHERE place_id = ANY($1)",
    )
    .bind(ids)
    .fetch(&mut *now.lobby);
    while let Some(row) = rows.try_next().await? {
        let Some((place, said)) = missing.remove(&row.place_id) else { continue };
        if !is_as_told(&row, said) {
            let line = told.place(said.line);
            kept.broken(format!(
                "place {place} was told to be {} with number {} ({line}), and is {} with number {}",
                place_word(said.state),
                said.number.map_or_else(|| "none".to_owned(), |number| number.to_string()),
                row.state,
                row.number.map_or_else(|| "none".to_owned(), |number| number.to_string()),
            ));
        }
    }
    for (place, said) in missing.values().filter(|(_, said)| !forgotten.lines.contains(&said.show.uuid())) {
        let line = told.place(said.line);
        kept.broken(format!("place {place} was acknowledged ({line}), and is not there"));
    }
    Ok(())
}

fn is_as_told(row: &PlaceRow, said: &ToldPlace) -> bool {
    let number = row.number.and_then(|number| u64::try_from(number).ok());
    let may_follow = match said.state {
        PlaceState::Early => true,
        PlaceState::Waiting => row.state != "early",
        PlaceState::Admitted => matches!(row.state.as_str(), "admitted" | "expired" | "left"),
        ended => row.state == place_word(ended),
    };
    let pass_expires_at = row.pass_expires_at.map(Timestamp::from);
    may_follow
        && row.show_id == said.show.uuid()
        && (said.number.is_none() || said.number == number)
        && (said.pass_expires_at.is_none() || said.pass_expires_at == pass_expires_at)
}

const fn place_word(state: PlaceState) -> &'static str {
    match state {
        PlaceState::Early => "early",
        PlaceState::Waiting => "waiting",
        PlaceState::Admitted => "admitted",
        PlaceState::SoldOut => "sold_out",
        PlaceState::Expired => "expired",
        PlaceState::Left => "left",
    }
}

/// A key that is still remembered leads to the hold that was answered.
async fn hold_keys(same: &mut Found, now: &mut Snapshots, told: &Told) -> Result<()> {
    same.checked(told.hold_keys.len(), "keys of holds");
    let keys: Vec<String> = told.hold_keys.keys().cloned().collect();
    let mut rows =
        sqlx::query_as::<_, (String, Uuid)>("SELECT key, hold FROM hold_request WHERE key = ANY($1)")
            .bind(keys)
            .fetch(&mut *now.inventory);
    while let Some((key, hold)) = rows.try_next().await? {
        let Some((said, answer)) = told.hold_keys.get(&key) else { continue };
        if said.uuid() != hold {
            let line = told.place(answer.line);
            same.broken(format!(
                "key {key} was answered with hold {said} ({line}), and now leads to another"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmed_order_is_taken_back_only_by_its_buyer() {
        use OrderState::{Cancelled, Cancelling, Confirmed, Declined, Failed, Failing, Pending};
        for (told, is, asked, may) in [
            (Pending, Failed, false, true),
            (Confirmed, Confirmed, false, true),
            (Confirmed, Cancelled, true, true),
            (Confirmed, Cancelled, false, false),
            (Confirmed, Failed, true, false),
            (Failing, Failed, false, true),
            (Cancelling, Cancelled, true, true),
            (Cancelled, Confirmed, true, false),
            (Declined, Declined, false, true),
            (Declined, Confirmed, false, false),
        ] {
            assert_eq!(may_follow(told, is, asked), may, "{told:?} {is:?}");
        }
    }
}
