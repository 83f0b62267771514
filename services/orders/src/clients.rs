//! What orders asks of other nodes: the seats, of `inventory`.

use std::time::Duration;

use stampede_bus::{Bus, CallError};
use stampede_contracts::{
    Function, Repeatable,
    inventory::{Attach, AttachHold, ConfirmHold, DetachHold, FreeHold, HoldView, OfOrder},
};
use stampede_deadline::Deadline;

use crate::domain::{Facts, Order, Outcome, Step, StepKind};

/// `inventory`, as the saga sees it.
#[derive(Debug, Clone)]
pub struct Inventory {
    bus: Bus,
    /// How long one go at a step may take, with all its attempts.
    timeout: Duration,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// What became of the step.
    pub outcome: Outcome,
    /// What the hold said, when it was attached.
    pub facts: Option<Facts>,
}

impl Inventory {
    /// A client that spends at most `timeout` on a step.
    pub fn new(bus: Bus, timeout: Duration) -> Self {
        Self { bus, timeout }
    }

    /// Carries a step out, with its id as the key. `None`: the outcome is unknown, and the step has to be tried
    /// again; also for a step that is not a call.
    pub async fn carry_out(&self, order: &Order, step: &Step) -> Option<Called> {
        let hold = OfOrder { hold_id: order.hold_id, order_id: order.id, step: step.id };
        let result = match step.kind {
            StepKind::Attach => {
                let attach = Attach {
                    hold_id: order.hold_id,
                    session: order.session,
                    order_id: order.id,
                    step: step.id,
                    decide_by: order.decide_by,
                };
                self.call::<AttachHold>(&attach).await
            }
            StepKind::Confirm => self.call::<ConfirmHold>(&hold).await,
            StepKind::Detach => self.call::<DetachHold>(&hold).await,
            StepKind::Free => self.call::<FreeHold>(&hold).await,
            StepKind::Authorise
            | StepKind::Capture
            | StepKind::Void
            | StepKind::Refund
            | StepKind::Notify(_) => return None,
        };
        match result {
            Ok(hold) => Some(Called {
                outcome: Outcome::Done { detail: None },
                facts: (step.kind == StepKind::Attach).then(|| hold.into()),
            }),
            Err(CallError::Refused(refusal)) => {
                let outcome = Outcome::Refused { reason: refusal.code().as_str().to_owned() };
                Some(Called { outcome, facts: None })
            }
            Err(error) => {
                tracing::warn!(step = %step.id, kind = step.kind.as_str(), %error, "the outcome of a step is unknown");
                None
            }
        }
    }

    async fn call<F>(&self, request: &F::Request) -> Result<HoldView, CallError>
    where
        F: Function<Reply = HoldView>,
        F::Guarantee: Repeatable,
    {
        // Any node forwards to the owner of the hold's shard: only the gateway and inventory follow the layout.
        let subject = format!("rpc.{}.any.{}", F::SERVICE, F::NAME);
        let asked = self.bus.call_repeatedly::<F>(subject, request);
        stampede_deadline::scope(Deadline::after(self.timeout), asked).await
    }
}
