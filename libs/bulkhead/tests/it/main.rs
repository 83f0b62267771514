//! The bulkhead as a handle, as a layer, and in a real server.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod layer;
mod places;
mod server;
mod trace;

use std::time::Duration;

use stampede_bulkhead::{Bulkhead, BulkheadSettings};

const MS: Duration = Duration::from_millis(1);

fn bulkhead(places: u32, waiting_max: usize) -> Bulkhead {
    Bulkhead::try_new(settings(places, waiting_max)).unwrap()
}

fn settings(places: u32, waiting_max: usize) -> BulkheadSettings {
    BulkheadSettings { places, waiting_max, wait_max: 100 * MS }
}
