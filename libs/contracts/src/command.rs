//! Commands: steps of a saga on work queues. Ids only; the receiver fetches what is personal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Event, Money, OrderId, StepId};

/// What the payment provider is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentAction {
    /// Reserve the amount on the card.
    Authorise,
    /// Take what was reserved.
    Capture,
    /// Give a reservation back. Also settles an authorisation whose outcome is unknown: whatever it was, it ends
    /// voided or never happens.
    Void,
    /// Give back what was taken.
    Refund,
}

impl PaymentAction {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorise => "authorise",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }
}

/// A step for `payments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentCommand {
    /// The step, at the same time the key at the provider.
    pub step_id: StepId,
    /// The order.
    pub order_id: OrderId,
    /// What to do.
    pub action: PaymentAction,
    /// How much.
    pub amount: Money,
    /// The authorise step that a capture, void or refund is about; absent for authorise.
    pub authorisation: Option<StepId>,
}

impl Event for PaymentCommand {
    const TYPE: &'static str = "stampede.payments.command.v1";
    const SOURCE: &'static str = "orders";

    fn subject(&self) -> String {
        format!("cmd.payments.{}", self.action.as_str())
    }

    fn correlation_id(&self) -> Option<String> {
        Some(self.order_id.to_string())
    }
}

/// Which mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailKind {
    /// The tickets.
    Tickets,
    /// The order was cancelled and the money goes back.
    Cancelled,
    /// The order that was answered 202 failed; nothing was charged.
    Failed,
}

impl MailKind {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tickets => "tickets",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// A mail for `notify` to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MailCommand {
    /// The step; the mail's `Message-ID`, so that a duplicate is marked as one.
    pub step_id: StepId,
    /// The order.
    pub order_id: OrderId,
    /// Which mail.
    pub kind: MailKind,
}

impl Event for MailCommand {
    const TYPE: &'static str = "stampede.notify.command.v1";
    const SOURCE: &'static str = "orders";

    fn subject(&self) -> String {
        format!("cmd.notify.{}", self.kind.as_str())
    }

    fn correlation_id(&self) -> Option<String> {
        Some(self.order_id.to_string())
    }
}
