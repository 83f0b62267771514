//! Where is my ticket? The story of an order, told from its row, its steps and its tickets.

use stampede_contracts::{
    Timestamp,
    api::{self, OrderState, TimelineEntry},
    command::MailKind,
};

use super::{Order, Step, StepKind, StepState, Ticket};

impl Order {
    /// The order as a buyer reads it. `tickets` are all it ever had.
    pub fn to_api(&self, tickets: &[Ticket]) -> api::Order {
        let facts = self.facts.as_ref();
        api::Order {
            order_id: self.id,
            state: self.state,
            show_id: facts.map(|facts| facts.show_id),
            hold_id: self.hold_id,
            total: facts.map(|facts| facts.total),
            created_at: self.created_at,
            cancel_until: facts.map(|facts| facts.show.cancel_until),
            tickets: tickets.iter().cloned().map(api::Ticket::from).collect(),
            order_secret: None,
            timeline: self.timeline(tickets),
            trace_id: self.trace_id().map(str::to_owned),
        }
    }

    fn timeline(&self, tickets: &[Ticket]) -> Vec<TimelineEntry> {
        let mut entries = vec![entry(self.created_at, "placed", "done", None)];
        if let Some(at) = self.cancel_requested_at {
            entries.push(entry(at, "cancel", "requested", None));
        }
        if let Some(at) = tickets.first().and_then(|ticket| ticket.revoked_at) {
            entries.push(entry(at, "tickets", "revoked", None));
        }
        for step in &self.steps {
            entries.extend(step.story());
        }
        if let Some(ticket) = tickets.first() {
            let seats = format!("{} issued", count(tickets.len()));
            entries.push(entry(ticket.created_at, "tickets", "done", Some(&seats)));
        }
        if let Some(at) = self.settled_at {
            entries.push(entry(at, "order", self.state.as_str(), self.why()));
        }
        // Stable, so what happened within a millisecond stays in the order in which it is told here: what leads to a
        // step before it, what follows from one behind it.
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    /// Why a settled order ended as it did, where the steps do not say it by themselves.
    fn why(&self) -> Option<&'static str> {
        let refused = |kind| self.step_state(kind) == Some(StepState::Refused);
        match self.state {
            OrderState::Failed if refused(StepKind::Attach) => Some("the hold had ended"),
            OrderState::Failed if refused(StepKind::Confirm) => Some("the seats were lost"),
            OrderState::Failed if refused(StepKind::Capture) => {
                Some("the provider refused the payment for good")
            }
            OrderState::Failed => Some("it was not decided in time; nothing was charged"),
            OrderState::Declined => Some("the payment was declined; the seats are held again"),
            OrderState::Cancelled if self.is_captured() => Some("the payment was given back"),
            OrderState::Cancelled => Some("nothing was charged"),
            _ => None,
        }
    }
}

impl Step {
    /// Begun, sent again, ended.
    fn story(&self) -> impl Iterator<Item = TimelineEntry> {
        let word = match self.kind {
            StepKind::Notify(_) => "notify",
            kind => kind.as_str(),
        };
        let began = entry(self.created_at, word, "started", self.kind.purpose());
        let repeated = self.repeated_at.map(|at| {
            let detail = format!("sent again, {} in all", times(self.attempt + 1));
            entry(at, word, "repeated", Some(&detail))
        });
        let came_of_it = match (self.kind, self.state) {
            // What the provider says about it is for the operator.
            (StepKind::Refund, StepState::Refused) => Some(
                "the provider refused to give the money back; a person looks at it, and it is asked for again",
            ),
            _ => self.outcome.as_deref(),
        };
        let ended = self.done_at.map(|at| entry(at, word, self.state.as_str(), came_of_it));
        [Some(began), repeated, ended].into_iter().flatten()
    }
}

impl StepKind {
    fn purpose(self) -> Option<&'static str> {
        match self {
            Self::Notify(MailKind::Tickets) => Some("mail with the tickets"),
            Self::Notify(MailKind::Cancelled) => Some("mail about the cancellation"),
            Self::Notify(MailKind::Failed) => Some("mail about the failed order"),
            Self::Detach => Some("the seats go back to the hold"),
            Self::Free => Some("the seats are released"),
            Self::Void => Some("the reservation of the money is given back"),
            Self::Refund => Some("the money is given back"),
            Self::Attach | Self::Authorise | Self::Confirm | Self::Capture => None,
        }
    }
}

fn entry(at: Timestamp, step: &str, state: &str, detail: Option<&str>) -> TimelineEntry {
    TimelineEntry { at, step: step.to_owned(), state: state.to_owned(), detail: detail.map(str::to_owned) }
}

fn count(tickets: usize) -> String {
    if tickets == 1 { "1 ticket".to_owned() } else { format!("{tickets} tickets") }
}

fn times(number: u32) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}
