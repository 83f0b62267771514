//! Whom the lobby talks to: `inventory`, which has the last word on passes.

use stampede_bus::{Bus, CallError};
use stampede_contracts::{
    Function, PassId, SessionId, ShowId,
    inventory::{ClosePass, ClosePassOf, PassEnd},
};

/// Closes a pass; a held hold that was made with it is released.
///
/// # Errors
/// [`CallError`].
pub async fn close_pass(
    bus: &Bus,
    pass_id: PassId,
    session: SessionId,
    show: ShowId,
) -> Result<PassEnd, CallError> {
    let subject = format!("rpc.{}.any.{}", ClosePass::SERVICE, ClosePass::NAME);
    bus.call_repeatedly::<ClosePass>(subject, &ClosePassOf { pass_id, session, show }).await
}
