//! The functions over request-reply: `rpc.inventory.<shard>.<function>` and `rpc.inventory.any.<function>`.
//!
//! One queue group, because today any replica serves any shard.

use stampede_bus::{Bus, Responder, ResponderSettings};
use stampede_contracts::inventory::{
    AttachHold, ClosePass, ConfirmHold, DetachHold, FreeHold, GetHold, Hold, ReleaseHold,
};

use crate::inventory::Inventory;

/// Offers all functions.
pub fn responder(inventory: &Inventory, bus: Bus, workers: usize, queue: usize) -> Responder {
    let settings = ResponderSettings {
        subject: "rpc.inventory.*.*".to_owned(),
        queue: "inventory".to_owned(),
        capacity: queue,
        workers,
    };
    /// `on!(responder, Function, method)`: each handler has a clone of its own.
    macro_rules! on {
        ($responder:expr, $function:ty, $method:ident) => {{
            let inventory = inventory.clone();
            $responder.on::<$function, _, _>(move |request, _context| {
                let inventory = inventory.clone();
                async move { inventory.$method(&request).await }
            })
        }};
    }
    let responder = Responder::new(bus, settings);
    let responder = on!(responder, Hold, hold);
    let responder = on!(responder, GetHold, get);
    let responder = on!(responder, ReleaseHold, release);
    let responder = on!(responder, AttachHold, attach);
    let responder = on!(responder, DetachHold, detach);
    let responder = on!(responder, ConfirmHold, confirm);
    let responder = on!(responder, FreeHold, free);
    on!(responder, ClosePass, close_pass)
}
