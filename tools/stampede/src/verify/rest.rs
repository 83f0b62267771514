//! Waiting until things have come to rest, because most rules are about what has.

use std::time::Duration;

use anyhow::Result;
use sqlx::PgPool;
use tokio::time::Instant;

use super::{Databases, Options};

/// How often it is looked whether things have come to rest.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What has not come to rest.
pub type Restless = Vec<(i64, &'static str)>;

/// A query that counts what is not at rest. `$1` is the number of seconds that things may be young.
struct Unrest {
    of: fn(&Databases) -> &PgPool,
    what: &'static str,
    count: &'static str,
}

const UNREST: &[Unrest] = &[
    Unrest {
        of: |databases| &databases.orders,
        what: "orders to settle",
        count:
            "SELECT count(*) FROM orders WHERE state IN ('pending', 'failing', 'cancelling')
                AND greatest(created_at, cancel_requested_at) < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.orders,
        what: "steps to take",
        count: "SELECT count(*) FROM step WHERE state = 'open'
                AND created_at < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.orders,
        what: "messages in the outbox of orders",
        count: "SELECT count(*) FROM outbox WHERE created_at < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.payments,
        what: "operations to find the outcome of",
        count: "SELECT count(*) FROM operation WHERE outcome IS NULL
                AND taken_at < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.payments,
        what: "messages in the outbox of payments",
        count: "SELECT count(*) FROM outbox WHERE created_at < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.notify,
        what: "mails to send",
        count: "SELECT count(*) FROM mail WHERE state = 'open'
                AND created_at < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.notify,
        what: "messages in the outbox of notify",
        count: "SELECT count(*) FROM outbox WHERE created_at < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.inventory,
        what: "holds to end",
        count: "SELECT count(*) FROM hold WHERE state IN ('held', 'attached')
                AND coalesce(attached_until, expires_at) < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.inventory,
        what: "messages in the outbox of inventory",
        count: "SELECT count(*) FROM outbox WHERE created_at < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.lobby,
        what: "people in a lobby to be told",
        count: "SELECT count(*) FROM place JOIN show USING (show_id)
                WHERE (state = 'waiting' OR (state = 'early' AND sale_opens_at <= clock_timestamp()))
                    AND greatest(joined_at, drawn_at) < clock_timestamp() - make_interval(secs => $1)",
    },
    Unrest {
        of: |databases| &databases.lobby,
        what: "slots to end",
        count: "SELECT count(*) FROM place WHERE state = 'admitted'
                AND pass_expires_at + interval '1 second' < clock_timestamp() - make_interval(secs => $1)",
    },
];

/// Waits until everything that is old enough has come to rest, or the time is over. `progress` hears of every change;
/// what is left is returned.
pub(super) async fn wait(
    databases: &Databases,
    options: &Options,
    mut progress: impl FnMut(&Restless),
) -> Result<Restless> {
    let until = Instant::now() + options.settle_within;
    let mut told = Restless::new();
    loop {
        let restless = look(databases, options.younger_than).await?;
        if restless != told {
            progress(&restless);
            told.clone_from(&restless);
        }
        if restless.is_empty() || Instant::now() >= until {
            return Ok(restless);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(databases: &Databases, younger_than: Duration) -> Result<Restless> {
    let mut restless = Restless::new();
    for unrest in UNREST {
        let count: i64 = sqlx::query_scalar(unrest.count)
            .bind(younger_than.as_secs_f64())
            .fetch_one((unrest.of)(databases))
            .await?;
        if count > 0 {
            restless.push((count, unrest.what));
        }
    }
    Ok(restless)
}
