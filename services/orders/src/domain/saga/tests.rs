//! Every way an order can go, without a database.

use std::time::Duration;

use stampede_contracts::{
    BlockId, HoldId, Money, OrderId, SessionId, ShowId, StepId, TicketId, Timestamp,
    api::OrderState,
    command::MailKind,
    inventory::{SeatLabel, ShowFacts},
};

use super::*;
use crate::domain::{Facts, OrderSecret, Ticket};

const MINUTE: Duration = Duration::from_secs(60);
const PAUSES: Pauses = Pauses { first: MINUTE, longest: Duration::from_secs(180) };

/// An order on its way, and the plans it follows.
struct Story {
    plans: Plans,
    order: Order,
    now: Timestamp,
}

fn placed() -> Story {
    let now = Timestamp::now();
    let order = Order {
        id: OrderId::new(),
        session: SessionId::new(),
        state: OrderState::Pending,
        hold_id: HoldId::new(BlockId::from_number(1)),
        facts: None,
        secret: OrderSecret::from_random([0; 32]),
        created_at: now,
        decide_by: now + Duration::from_secs(900),
        cancel_requested_at: None,
        settled_at: None,
        traceparent: None,
        replied: None,
        steps: vec![Step::begin(StepId::new(), Attach, now)],
    };
    Story { plans: Plans::try_new(PAUSES).unwrap(), order, now }
}

fn facts(now: Timestamp) -> Facts {
    let starts_at = now + Duration::from_secs(86_400);
    Facts {
        show_id: ShowId::new(),
        show: ShowFacts { title: "Club".into(), venue: "Hall".into(), starts_at, cancel_until: starts_at },
        total: Money::try_new(9_000, "EUR".parse().unwrap()).unwrap(),
        quantity: 1,
        seats: vec![SeatLabel { seat_id: None, section: "A".into(), row: None, number: None }],
    }
}

impl Story {
    fn record(&mut self, kind: StepKind, outcome: Outcome) -> Recorded {
        if kind == Attach && matches!(outcome, Outcome::Done { .. }) {
            self.order.facts = Some(facts(self.now));
        }
        let id = self.order.step(kind).unwrap_or_else(|| panic!("{kind:?} was not begun")).id;
        self.order.record(id, outcome, self.now)
    }

    fn advance(&mut self) -> Vec<StepKind> {
        let advance = self.plans.advance(&mut self.order, self.now, StepId::new).unwrap();
        advance.begun.iter().map(|step| step.kind).collect()
    }

    /// The step happens; what begins then.
    fn done(&mut self, kind: StepKind) -> Vec<StepKind> {
        assert_eq!(self.record(kind, Outcome::Done { detail: None }), Recorded::New);
        self.advance()
    }

    /// The step is refused; what begins then.
    fn refused(&mut self, kind: StepKind) -> Vec<StepKind> {
        assert_eq!(self.record(kind, Outcome::Refused { reason: "no".into() }), Recorded::New);
        self.advance()
    }

    fn cancel(&mut self) -> Vec<StepKind> {
        self.order.request_cancel(self.now);
        self.advance()
    }

    fn too_late(&mut self) -> Vec<StepKind> {
        self.now = self.order.decide_by;
        self.advance()
    }

    /// Goes on as far as the step before `kind` being done.
    fn up_to(mut self, kind: StepKind) -> Self {
        for step in [Attach, Authorise, Confirm, Capture] {
            if step == kind {
                break;
            }
            self.done(step);
        }
        self
    }

    #[track_caller]
    fn is(&self, state: OrderState) {
        assert_eq!(self.order.state, state);
        assert_eq!(self.order.settled_at.is_some(), state.is_settled());
    }
}

#[test]
fn a_purchase_goes_step_by_step_and_ends_with_a_mail() {
    let mut story = placed();
    assert_eq!(story.advance(), []);
    assert_eq!(story.done(Attach), [Authorise]);
    assert_eq!(story.done(Authorise), [Confirm]);
    assert_eq!(story.done(Confirm), [Capture]);
    story.is(OrderState::Pending);
    assert_eq!(story.done(Capture), [Notify(MailKind::Tickets)]);
    story.is(OrderState::Confirmed);
    assert_eq!(story.done(Notify(MailKind::Tickets)), []);
    story.is(OrderState::Confirmed);
}

#[test]
fn a_hold_that_is_gone_fails_the_order_at_once() {
    let mut story = placed();
    assert_eq!(story.refused(Attach), []);
    story.is(OrderState::Failed);
}

#[test]
fn a_decline_is_told_only_after_the_hold_is_held_again() {
    let mut story = placed().up_to(Authorise);
    assert_eq!(story.refused(Authorise), [Detach]);
    story.is(OrderState::Pending);
    // Neither the clock nor the buyer can turn a decline into something else.
    assert_eq!(story.too_late(), []);
    assert_eq!(story.cancel(), []);
    assert_eq!(story.done(Detach), []);
    story.is(OrderState::Declined);
}

#[test]
fn a_hold_that_ended_meanwhile_needs_no_detaching() {
    let mut story = placed().up_to(Authorise);
    story.refused(Authorise);
    assert_eq!(story.refused(Detach), []);
    story.is(OrderState::Declined);
}

#[test]
fn lost_seats_void_the_authorisation() {
    let mut story = placed().up_to(Confirm);
    assert_eq!(story.refused(Confirm), [Void, Free]);
    story.is(OrderState::Failing);
    assert_eq!(story.refused(Free), [], "they are gone, there is nothing to release");
    story.is(OrderState::Failing);
    assert_eq!(story.done(Void), []);
    story.is(OrderState::Failed);
}

#[test]
fn an_order_that_is_not_decided_in_time_releases_its_seats_and_settles_the_money() {
    let mut story = placed().up_to(Authorise);
    assert_eq!(story.too_late(), [Void, Free]);
    story.is(OrderState::Failing);
    assert_eq!(story.order.step_state(Authorise), Some(StepState::GivenUp));
    assert!(story.order.card_is_spent());
    assert_eq!(story.done(Free), []);
    story.is(OrderState::Failing);
    assert_eq!(story.done(Void), []);
    story.is(OrderState::Failed);
}

#[test]
fn seats_whose_sale_is_unknown_are_released_too() {
    let mut story = placed().up_to(Confirm);
    assert_eq!(story.too_late(), [Void, Free]);
    assert_eq!(story.order.step_state(Confirm), Some(StepState::GivenUp));
}

#[test]
fn an_attach_whose_outcome_is_unknown_is_undone_at_once() {
    for gives_up in [Story::cancel, Story::too_late] {
        let mut story = placed();
        assert_eq!(gives_up(&mut story), [Free], "and no authorisation is begun");
        assert!(!story.order.state.is_settled());
        assert_eq!(story.record(Attach, Outcome::Done { detail: None }), Recorded::Known);
        assert_eq!(story.done(Free), []);
        assert!(story.order.state.is_settled());
    }
}

#[test]
fn a_result_that_comes_too_late_to_go_on_is_recorded_and_undone() {
    let mut story = placed().up_to(Authorise);
    story.now = story.order.decide_by;
    assert_eq!(
        story.done(Authorise),
        [Void, Free],
        "the clock is looked at under the lock, with every result"
    );
    story.is(OrderState::Failing);
}

#[test]
fn an_authorisation_that_comes_after_giving_up_changes_nothing() {
    let mut story = placed().up_to(Authorise);
    story.too_late();
    for outcome in [Outcome::Done { detail: None }, Outcome::Refused { reason: "declined".into() }] {
        assert_eq!(story.record(Authorise, outcome), Recorded::Known);
        assert_eq!(story.advance(), []);
    }
    story.is(OrderState::Failing);
}

#[test]
fn behind_the_pivot_the_clock_means_nothing() {
    let mut story = placed().up_to(Capture);
    assert_eq!(story.too_late(), []);
    story.is(OrderState::Pending);
    assert_eq!(story.done(Capture), [Notify(MailKind::Tickets)]);
    story.is(OrderState::Confirmed);
}

#[test]
fn only_a_refused_capture_turns_a_decided_order_around() {
    let mut story = placed().up_to(Capture);
    assert_eq!(story.refused(Capture), [Void, Free]);
    story.is(OrderState::Failing);
    story.done(Free);
    story.done(Void);
    story.is(OrderState::Failed);
}

#[test]
fn cancelling_before_the_pivot_undoes_and_gives_nothing_back() {
    for at in [Authorise, Confirm] {
        let mut story = placed().up_to(at);
        assert_eq!(story.cancel(), [Void, Free]);
        story.is(OrderState::Cancelling);
        story.done(Void);
        assert_eq!(story.done(Free), []);
        story.is(OrderState::Cancelled);
    }
}

#[test]
fn cancelling_while_the_capture_is_open_waits_for_it() {
    let mut story = placed().up_to(Capture);
    assert_eq!(story.cancel(), []);
    story.is(OrderState::Pending);
    assert_eq!(story.done(Capture), [Free], "no tickets are issued, the seats go first");
    story.is(OrderState::Cancelling);
    assert_eq!(story.done(Free), [Refund]);
    assert_eq!(story.done(Refund), [Notify(MailKind::Cancelled)]);
    story.is(OrderState::Cancelled);
}

#[test]
fn a_capture_that_is_refused_after_a_cancellation_fails_the_order() {
    let mut story = placed().up_to(Capture);
    story.cancel();
    assert_eq!(story.refused(Capture), [Void, Free]);
    story.done(Void);
    story.done(Free);
    story.is(OrderState::Failed);
}

#[test]
fn cancelling_a_confirmed_order_releases_the_seats_and_then_refunds() {
    let mut story = placed().up_to(Capture);
    story.done(Capture);
    let advance = {
        story.order.request_cancel(story.now);
        story.plans.advance(&mut story.order, story.now, StepId::new).unwrap()
    };
    let transition = Transition { from: OrderState::Confirmed, to: OrderState::Cancelling };
    assert_eq!(advance.transitions, [transition]);
    story.is(OrderState::Cancelling);
    assert_eq!(story.done(Free), [Refund]);
    assert_eq!(story.done(Refund), [Notify(MailKind::Cancelled)]);
    story.is(OrderState::Cancelled);
    assert_eq!(story.cancel(), []);
}

#[test]
fn a_refund_that_the_provider_refuses_stays_owed_and_is_asked_for_again() {
    let mut story = placed().up_to(Capture);
    story.done(Capture);
    story.cancel();
    story.done(Free);
    let mut asked = vec![story.order.step(Refund).unwrap().id];
    for pause in [1, 2, 3, 3] {
        assert_eq!(story.refused(Refund), []);
        story.is(OrderState::Cancelling);
        let again_at = story.now + MINUTE * pause;
        assert_eq!(story.plans.refund_again_at(&story.order), Some(again_at));
        story.now = again_at - Duration::from_millis(1);
        assert_eq!(story.advance(), []);
        story.now = again_at;
        assert_eq!(story.advance(), [Refund]);
        assert_eq!(story.plans.refund_again_at(&story.order), None);
        asked.push(story.order.step(Refund).unwrap().id);
    }
    // Under the old keys it stays refused.
    assert_eq!(asked.iter().collect::<std::collections::HashSet<_>>().len(), 5);
    assert_eq!(story.order.record(asked[0], Outcome::Done { detail: None }, story.now), Recorded::Known);
    assert_eq!(story.done(Refund), [Notify(MailKind::Cancelled)]);
    story.is(OrderState::Cancelled);
}

#[test]
fn whoever_was_told_202_gets_a_mail_about_the_failure() {
    let mail = Notify(MailKind::Failed);
    let mut story = placed().up_to(Authorise);
    story.order.replied = Some(202);
    story.refused(Authorise);
    assert_eq!(story.done(Detach), [mail]);

    let mut story = placed().up_to(Authorise);
    story.order.replied = Some(202);
    story.too_late();
    story.done(Free);
    assert_eq!(story.done(Void), [mail]);

    let mut story = placed();
    story.order.replied = Some(202);
    assert_eq!(story.refused(Attach), [], "nothing is known of the show, so there is nothing to write about");
}

#[test]
fn the_first_outcome_counts() {
    let mut story = placed();
    story.done(Attach);
    assert_eq!(story.record(Attach, Outcome::Refused { reason: "gone".into() }), Recorded::Known);
    assert_eq!(story.order.step_state(Attach), Some(StepState::Done));
    let outcome = Outcome::Done { detail: None };
    assert_eq!(story.order.record(StepId::new(), outcome, story.now), Recorded::NoSuchStep);
}

#[test]
fn a_mail_that_was_given_up_can_still_be_sent() {
    let mail = Notify(MailKind::Tickets);
    let mut story = placed().up_to(Capture);
    story.done(Capture);
    story.refused(mail);
    assert_eq!(story.record(mail, Outcome::Refused { reason: "again".into() }), Recorded::Known);
    let given_up_at = story.now;
    story.now = story.now + Duration::from_secs(3600);
    let outcome = Outcome::Done { detail: Some("handed to the mail server".into()) };
    assert_eq!(story.record(mail, outcome.clone()), Recorded::New);
    assert_eq!(story.record(mail, outcome), Recorded::Known);
    assert_eq!(story.order.step_state(mail), Some(StepState::Done));

    let told = story.order.to_api(&[]).timeline.pop().unwrap();
    assert_eq!((told.at, told.step.as_str(), told.state.as_str()), (story.now, "notify", "done"));
    let both = format!(
        "handed to the mail server, when an operator sent it again; it had been given up at {given_up_at}"
    );
    assert_eq!(told.detail, Some(both));
}

#[test]
fn a_mail_with_tickets_is_given_up_with_them_unless_it_was_sent_before() {
    let mail = Notify(MailKind::Tickets);
    let mut story = placed().up_to(Capture);
    story.done(Capture);
    story.cancel();
    assert_eq!(story.order.step_state(mail), Some(StepState::GivenUp));
    // The result of a mail that was not sent changes nothing.
    assert_eq!(story.record(mail, Outcome::Refused { reason: "withdrawn".into() }), Recorded::Known);
    let sent = Outcome::Done { detail: Some("handed to the mail server".into()) };
    assert_eq!(story.record(mail, sent), Recorded::New);
    assert_eq!(story.order.step(mail).unwrap().outcome.as_deref(), Some("handed to the mail server"));
}

#[test]
fn the_card_is_forgotten_as_soon_as_nobody_needs_it() {
    let mut story = placed();
    story.advance();
    assert!(!story.order.card_is_spent());
    story.done(Attach);
    assert!(!story.order.card_is_spent());
    story.done(Authorise);
    assert!(story.order.card_is_spent());

    let mut story = placed();
    story.refused(Attach);
    assert!(story.order.card_is_spent());
}

#[test]
fn the_timeline_tells_the_whole_story() {
    let mut story = placed();
    for kind in [Attach, Authorise, Confirm, Capture] {
        story.now = story.now + Duration::from_millis(10);
        story.done(kind);
    }
    let told: Vec<String> = story
        .order
        .to_api(&[])
        .timeline
        .into_iter()
        .map(|entry| format!("{} {}", entry.step, entry.state))
        .collect();
    assert_eq!(
        told,
        [
            "placed done",
            "attach started",
            "attach done",
            "authorise started",
            "authorise done",
            "confirm started",
            "confirm done",
            "capture started",
            "capture done",
            "notify started",
            "order confirmed"
        ]
    );
}

#[test]
fn what_happens_within_a_millisecond_is_told_in_its_order() {
    let mut story = placed().up_to(Capture);
    story.done(Capture);
    // All of the cancelling at once, as on a fast machine.
    story.now = story.now + Duration::from_millis(10);
    let issued = Ticket {
        id: TicketId::new(),
        order_id: story.order.id,
        show_id: ShowId::new(),
        seat: SeatLabel { seat_id: None, section: "Floor".into(), row: None, number: None },
        code: String::new(),
        created_at: story.order.created_at,
        revoked_at: Some(story.now),
    };
    story.cancel();
    story.done(Free);
    story.done(Refund);
    let timeline = story.order.to_api(&[issued]).timeline;
    let of_then = timeline.iter().filter(|entry| entry.at == story.now);
    let told: Vec<String> = of_then.map(|entry| format!("{} {}", entry.step, entry.state)).collect();
    assert_eq!(
        told,
        [
            "cancel requested",
            "tickets revoked",
            "notify given_up",
            "free started",
            "free done",
            "refund started",
            "refund done",
            "notify started",
            "order cancelled"
        ]
    );
}
