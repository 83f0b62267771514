//! The seats.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stampede_bus::{Bus, Context, Responder, ResponderSettings};
use stampede_contracts::inventory::{
    Attach, AttachHold, ConfirmHold, DetachHold, FreeHold, HoldState, HoldView, OfOrder, SeatLabel, ShowFacts,
};
use stampede_contracts::{
    BlockId, Code, HoldId, Money, OrderId, Problem, SeatId, SectionId, SessionId, ShowId, StepId, Timestamp,
};

use super::{Manner, lock};

/// The seats.
#[derive(Debug, Default)]
pub struct Inventory {
    holds: Mutex<HashMap<HoldId, HoldView>>,
    let_go: Mutex<HashSet<(HoldId, OrderId)>>,
    calls: Mutex<Vec<(&'static str, StepId)>>,
    manners: Mutex<HashMap<&'static str, Manner>>,
}

impl Inventory {
    /// Two numbered seats for 90 EUR, held by a session.
    pub fn hold(&self, session: SessionId) -> HoldId {
        self.hold_until(session, Timestamp::now() + Duration::from_secs(86_400))
    }

    /// The same, with the moment until which an order of it can be cancelled.
    pub fn hold_until(&self, session: SessionId, cancel_until: Timestamp) -> HoldId {
        let block = BlockId::from_number(7);
        let hold_id = HoldId::new(block);
        let first = u16::try_from(lock(&self.holds).len() * 2).unwrap();
        let seat = |index: u16| SeatLabel {
            seat_id: Some(SeatId { block, index }),
            section: "Stalls".into(),
            row: Some("A".into()),
            number: Some(u32::from(index) + 1),
        };
        let view = HoldView {
            hold_id,
            session,
            show_id: ShowId::from_uuid(uuid::Uuid::from_u128(7)),
            section_id: SectionId::new(),
            quantity: 2,
            seats: vec![seat(first), seat(first + 1)],
            total: Money::try_new(9_000, "EUR".parse().unwrap()).unwrap(),
            expires_at: Timestamp::now() + Duration::from_secs(300),
            state: HoldState::Held,
            order_id: None,
            show: ShowFacts {
                title: "Club Night".into(),
                venue: "The Hall".into(),
                starts_at: Timestamp::now() + Duration::from_secs(86_400),
                cancel_until,
            },
        };
        lock(&self.holds).insert(hold_id, view);
        hold_id
    }

    /// The hold's seats go to somebody else, as after its time.
    pub fn lose(&self, hold: HoldId) {
        let mut holds = lock(&self.holds);
        let view = holds.get_mut(&hold).unwrap();
        (view.state, view.order_id) = (HoldState::Freed, None);
    }

    pub fn set(&self, function: &'static str, manner: Manner) {
        lock(&self.manners).insert(function, manner);
    }

    pub fn state(&self, hold: HoldId) -> HoldState {
        lock(&self.holds)[&hold].state
    }

    /// How often a function was asked for.
    pub fn asked(&self, function: &str) -> usize {
        lock(&self.calls).iter().filter(|(name, _)| *name == function).count()
    }

    /// With how many different keys.
    pub fn keys(&self, function: &str) -> usize {
        let calls = lock(&self.calls);
        calls.iter().filter(|(name, _)| *name == function).map(|(_, key)| *key).collect::<HashSet<_>>().len()
    }

    async fn answer(
        &self,
        function: &'static str,
        step: StepId,
        act: impl FnOnce() -> Result<HoldView, Problem>,
    ) -> Result<HoldView, Problem> {
        lock(&self.calls).push((function, step));
        let manner = lock(&self.manners).get(function).copied().unwrap_or_default();
        if manner == Manner::Silent {
            return pending().await;
        }
        let answer = act();
        if manner == Manner::Mute {
            return pending().await;
        }
        answer
    }

    fn attach(&self, request: &Attach) -> Result<HoldView, Problem> {
        let mut holds = lock(&self.holds);
        let hold = holds.get_mut(&request.hold_id).filter(|hold| hold.session == request.session);
        let hold = hold.ok_or_else(|| Problem::new(Code::HoldNotFound))?;
        let was_let_go = lock(&self.let_go).contains(&(request.hold_id, request.order_id));
        match hold.state {
            HoldState::Held if !was_let_go => {
                (hold.state, hold.order_id) = (HoldState::Attached, Some(request.order_id));
            }
            HoldState::Attached | HoldState::Sold if hold.order_id == Some(request.order_id) => {}
            _ => return Err(Problem::new(Code::HoldGone)),
        }
        Ok(hold.clone())
    }

    /// From a state to another on behalf of the order it belongs to.
    fn change(
        &self,
        request: &OfOrder,
        change: impl FnOnce(HoldState) -> Option<HoldState>,
    ) -> Result<HoldView, Problem> {
        let mut holds = lock(&self.holds);
        let hold = holds.get_mut(&request.hold_id).ok_or_else(|| Problem::new(Code::HoldNotFound))?;
        let own = hold.order_id == Some(request.order_id);
        hold.state = own.then(|| change(hold.state)).flatten().ok_or_else(|| Problem::new(Code::HoldGone))?;
        Ok(hold.clone())
    }

    fn release(&self, request: &OfOrder, to: HoldState) -> Result<HoldView, Problem> {
        lock(&self.let_go).insert((request.hold_id, request.order_id));
        let released = self.change(request, |state| {
            matches!(state, HoldState::Attached | HoldState::Sold).then_some(to).or(Some(state))
        });
        match released {
            Ok(hold) => Ok(hold),
            Err(_) => Ok(lock(&self.holds)[&request.hold_id].clone()),
        }
    }

    /// Answers until the test ends.
    pub fn responder(self: &Arc<Self>, bus: Bus) -> Responder {
        let settings = ResponderSettings {
            subject: "rpc.inventory.*.*".into(),
            queue: "inventory".into(),
            capacity: 64,
            workers: 64,
        };
        let [attach, confirm, detach, free] = std::array::from_fn(|_| Arc::clone(self));
        Responder::new(bus, settings)
            .on::<AttachHold, _, _>(move |request: Attach, _: Context| {
                let this = Arc::clone(&attach);
                async move { this.answer("attach", request.step, || this.attach(&request)).await }
            })
            .on::<ConfirmHold, _, _>(move |request: OfOrder, _: Context| {
                let this = Arc::clone(&confirm);
                let sell = |state| {
                    matches!(state, HoldState::Attached | HoldState::Sold).then_some(HoldState::Sold)
                };
                async move { this.answer("confirm", request.step, || this.change(&request, sell)).await }
            })
            .on::<DetachHold, _, _>(move |request: OfOrder, _: Context| {
                let this = Arc::clone(&detach);
                async move {
                    this.answer("detach", request.step, || this.release(&request, HoldState::Held)).await
                }
            })
            .on::<FreeHold, _, _>(move |request: OfOrder, _: Context| {
                let this = Arc::clone(&free);
                async move {
                    this.answer("free", request.step, || this.release(&request, HoldState::Freed)).await
                }
            })
    }
}
