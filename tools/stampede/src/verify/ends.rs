//! Rule 9: everything that was begun ends. What is younger than the cutoff still has time.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use stampede_contracts::inventory::HoldState;
use stampede_contracts::{OrderId, StepId};
use uuid::Uuid;

use super::picture::{Holds, Orders};
use super::report::Found;
use super::sales::word;
use super::snapshot::{Snapshots, count, find};

/// Headers of a mail that are read.
const HEADERS_MAX_BYTES: u64 = 8 * 1024;

pub(super) async fn check(now: &mut Snapshots, orders: &Orders, holds: &Holds) -> Result<Found> {
    let mut found = Found::default();
    found.checked(orders.len(), "orders");
    found.checked(holds.len(), "holds");
    for query in [UNSETTLED, OPEN_STEPS] {
        find(&mut found, &mut now.orders, now.cutoff, query).await?;
    }
    find(&mut found, &mut now.payments, now.cutoff, OPEN_OPERATIONS).await?;
    find(&mut found, &mut now.inventory, now.cutoff, OVERDUE_HOLDS).await?;
    outlived(&mut found, orders, holds);
    count(&mut found, &mut now.lobby, "places in lobbies", "SELECT count(*) FROM place").await?;
    find(&mut found, &mut now.lobby, now.cutoff, STILL_THERE).await?;
    Ok(found)
}

/// An order may be confirmed for a year; cancelling it begins anew.
const UNSETTLED: &str = "
    SELECT format('order ord_%s is %s since %s', replace(order_id::text, '-', ''), state,
        greatest(created_at, cancel_requested_at))
    FROM orders
    WHERE state IN ('pending', 'failing', 'cancelling') AND greatest(created_at, cancel_requested_at) < $1";

/// Of orders that are settled: the others have their own sentence, and mails theirs.
const OPEN_STEPS: &str = "
    SELECT format('step %s of order ord_%s (stp_%s) is open since %s, and the order is %s', kind,
        replace(order_id::text, '-', ''), replace(step_id::text, '-', ''), step.created_at, orders.state)
    FROM step JOIN orders USING (order_id)
    WHERE step.state = 'open' AND step.created_at < $1 AND orders.settled_at < $1 AND kind NOT LIKE 'notify_%'";

const OPEN_OPERATIONS: &str = "
    SELECT format('%s of ord_%s at the provider (stp_%s) is open since %s: %s', action,
        replace(order_id::text, '-', ''), replace(step_id::text, '-', ''), taken_at, coalesce(last_error, 'no error'))
    FROM operation WHERE outcome IS NULL AND taken_at < $1";

const OVERDUE_HOLDS: &str = "
    SELECT format('hld_b%s_%s is %s and should have ended at %s', block, replace(id::text, '-', ''), state,
        coalesce(attached_until, expires_at))
    FROM hold WHERE state IN ('held', 'attached') AND coalesce(attached_until, expires_at) < $1";

/// A slot ends one second after its pass, because until then a clock may think it valid.
const STILL_THERE: &str = "
    SELECT format('place lby_%s is early, and the sale of show shw_%s opened at %s', replace(place_id::text, '-', ''),
        replace(show_id::text, '-', ''), sale_opens_at)
    FROM place JOIN show USING (show_id)
    WHERE state = 'early' AND greatest(sale_opens_at, joined_at) < $1
    UNION ALL
    SELECT format('place lby_%s with number %s of show shw_%s waits since %s', replace(place_id::text, '-', ''), number,
        replace(show_id::text, '-', ''), greatest(joined_at, drawn_at))
    FROM place JOIN show USING (show_id)
    WHERE state = 'waiting' AND greatest(joined_at, drawn_at) < $1
    UNION ALL
    SELECT format('place lby_%s has a slot that should have ended at %s', replace(place_id::text, '-', ''),
        pass_expires_at)
    FROM place WHERE state = 'admitted' AND pass_expires_at + interval '1 second' < $1";

/// Holds that are still attached to an order that has come to rest, or that there never was.
fn outlived(found: &mut Found, orders: &Orders, holds: &Holds) {
    for hold in holds.values().filter(|hold| hold.state == HoldState::Attached) {
        let Some(id) = hold.order else { continue };
        let state = match orders.get(&id) {
            Some(order) if order.is_settled => order.state.as_str(),
            Some(_) => continue,
            None => "not there",
        };
        found.broken(format!("hold {} is {} to order {id}, which is {state}", hold.id, word(hold.state)));
    }
}

/// Every mail that was wanted was sent, says `notify`, and the mail sink has it. One with tickets is not wanted any more
/// once they are revoked.
pub(super) async fn mails(now: &mut Snapshots, sink: Option<PathBuf>) -> Result<Found> {
    let mut found = Found::default();
    let arrived = match sink {
        Some(folder) => tokio::task::spawn_blocking(move || arrived(&folder)).await??,
        None => HashSet::new(),
    };
    let sent = sent(now).await?;
    let mut rows = sqlx::query_as::<_, (Uuid, Uuid, String)>(
        "SELECT step_id, order_id, kind FROM step
         WHERE kind LIKE 'notify_%' AND state <> 'given_up' AND created_at < $1",
    )
    .bind(now.cutoff)
    .fetch(&mut *now.orders);
    let mut wanted = 0_u64;
    while let Some((step, order, kind)) = rows.try_next().await? {
        wanted += 1;
        let why = match sent.get(&step) {
            None => "was never taken by notify".to_owned(),
            Some(state) if state != "sent" => format!("is {state}"),
            // A person may have emptied the sink, or mails go elsewhere.
            Some(_) if arrived.is_empty() || arrived.contains(&step) => continue,
            Some(_) => "was sent, says notify, and the mail sink has not got it".to_owned(),
        };
        let (step, order) = (StepId::from_uuid(step), OrderId::from_uuid(order));
        found.broken(format!("mail {kind} of order {order} ({step}) {why}"));
    }
    drop(rows);
    confirmed_silently(&mut found, now).await?;
    found.checked(wanted, "mails wanted");
    found.checked(arrived.len(), "mails in the sink");
    Ok(found)
}

async fn sent(now: &mut Snapshots) -> Result<HashMap<Uuid, String>> {
    let mut rows =
        sqlx::query_as::<_, (Uuid, String)>("SELECT step_id, state FROM mail").fetch(&mut *now.notify);
    let mut sent = HashMap::new();
    while let Some((step, state)) = rows.try_next().await? {
        sent.insert(step, state);
    }
    Ok(sent)
}

async fn confirmed_silently(found: &mut Found, now: &mut Snapshots) -> Result<()> {
    const QUERY: &str = "
        SELECT format('order ord_%s is confirmed, and no mail with its tickets was ever wanted',
            replace(order_id::text, '-', ''))
        FROM orders
        WHERE state = 'confirmed' AND settled_at < $1 AND NOT EXISTS (
            SELECT FROM step WHERE step.order_id = orders.order_id AND kind = 'notify_tickets')";
    find(found, &mut now.orders, now.cutoff, QUERY).await
}

/// The steps whose mails lie in a Maildir, read or not: a mail's `Message-ID` is its step.
fn arrived(maildir: &Path) -> Result<HashSet<Uuid>> {
    let mut arrived = HashSet::new();
    for folder in ["new", "cur"].map(|name| maildir.join(name)) {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            // Somebody may be reading and moving mails just now.
            let Ok(file) = File::open(&path) else { continue };
            let mut head = Vec::new();
            file.take(HEADERS_MAX_BYTES)
                .read_to_end(&mut head)
                .with_context(|| format!("cannot read {}", path.display()))?;
            arrived.extend(message_id(&String::from_utf8_lossy(&head)));
        }
    }
    Ok(arrived)
}

fn message_id(mail: &str) -> Option<Uuid> {
    const NAME: &str = "message-id:";
    let is_header = |line: &&str| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    let line = mail.lines().take_while(|line| !line.is_empty()).find(is_header)?;
    let (_, rest) = line.split_once('<')?;
    let step: StepId = rest.split_once('@')?.0.parse().ok()?;
    Some(step.uuid())
}

#[cfg(test)]
mod tests {
    use stampede_contracts::api::OrderState;

    use super::super::picture::tests::purchase;
    use super::super::picture::{Hold, Order};
    use super::*;

    #[test]
    fn the_step_of_a_mail_is_in_its_headers() {
        let step = StepId::new();
        let mail = |header: &str| format!("Subject: x\r\n{header}: <{step}@stampede.example>\r\n\r\nwords");
        assert_eq!(message_id(&mail("Message-ID")), Some(step.uuid()));
        assert_eq!(message_id(&mail("Message-Id")), Some(step.uuid()));
        assert_eq!(message_id(&mail("References")), None);
        assert_eq!(message_id(&format!("Subject: x\r\n\r\nMessage-ID: <{step}@x>")), None, "only words");
    }

    #[test]
    fn a_hold_does_not_outlive_its_order() {
        let (order, hold) = purchase();
        let hold = Hold { state: HoldState::Attached, ..hold };
        let holds = Holds::from([(hold.id.uuid(), hold)]);
        let broken = |orders: Orders| {
            let mut found = Found::default();
            outlived(&mut found, &orders, &holds);
            found.broken
        };
        let failed = Order { state: OrderState::Failed, ..order };
        assert_eq!(broken(Orders::from([(failed.id, failed.clone())])), 1);
        assert_eq!(broken(Orders::from([(failed.id, Order { is_settled: false, ..failed })])), 0);
        assert_eq!(broken(Orders::new()), 1);
    }
}
