//! The use cases.

mod cancel;
mod drive;
mod error;
mod place;
mod query;
mod results;
mod sweep;
mod unit;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use stampede_bus::Bus;
use stampede_contracts::signed::SigningKey;
use stampede_idempotency::Fingerprinter;
use stampede_outbox::Outbox;
use stampede_service::Rotating;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use cancel::Cancelled;
pub use error::Error;
pub use place::PlaceOrder;
pub use query::Caller;
pub use results::{Incoming, Sender, Taken};

use crate::clients::Inventory;
use crate::domain::{Pauses, Plans};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::wakeups::Wakeups;

/// How patient the service is.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From placing an order to its pivot, at most.
    pub decide_within: Duration,
    /// How long a step may go without an outcome before it is sent again.
    pub retry: Pauses,
    /// The same for a mail. No step waits for it, and `notify` retries from its own table: only a command that is in neither
    /// the queue nor that table has to be sent again.
    pub mail: Pauses,
    /// How often the sweeper looks.
    pub sweep_every: Duration,
    /// How much one look takes on of each kind of work.
    pub sweep_batch: u32,
    /// How long a key is kept.
    pub keys_kept_for: Duration,
    /// How long a refund that was refused rests.
    pub refund: Pauses,
}

/// What the service is made of. A handle: clones share it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// See [`App`].
pub struct Parts {
    /// The database, for orders that are placed and driven.
    pub store: Store,
    /// The database, for whoever looks.
    pub reads: Store,
    /// The database, for other services that ask for a card or an address.
    pub lookups: Store,
    /// What is to be published.
    pub outbox: Outbox,
    /// The connection that commands and calls go over.
    pub bus: Bus,
    /// The seats.
    pub inventory: Inventory,
    /// Who waits for an order.
    pub wakeups: Wakeups,
    /// The instruments.
    pub metrics: Metrics,
    /// What follows what.
    pub plans: Plans,
    /// Signs ticket codes.
    pub ticket_key: Rotating<SigningKey>,
    /// Recognises repeated requests.
    pub fingerprinter: Rotating<Fingerprinter>,
    /// How patient to be.
    pub timing: Timing,
    /// Owns the sagas at work, which no request may drop.
    pub tasks: TaskTracker,
    /// Cancelled when no new work is to be begun.
    pub shutdown: CancellationToken,
    /// Cancelled a little earlier: what never ends by itself ends now.
    pub draining: CancellationToken,
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Says when streams to clients have to end.
    pub fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// Who waits in this process.
    pub fn wakeups(&self) -> &Wakeups {
        &self.0.wakeups
    }

    /// The database, for whoever looks.
    pub fn reads(&self) -> &Store {
        &self.0.reads
    }

    /// Recognises repeated requests.
    pub fn fingerprinter(&self) -> &Rotating<Fingerprinter> {
        &self.0.fingerprinter
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("timing", &self.0.timing).finish_non_exhaustive()
    }
}
