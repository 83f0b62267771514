//! Waiting for a slot.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tracing::field;
use tracing::instrument::{Instrument, Instrumented};

use crate::gate::{Admission, Answer, Handle};
use crate::queue::Ticket;
use crate::sync::Arc;
use crate::{Permit, Shed};

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Place {
    handle: Arc<Handle>,
    ticket: Ticket,
    patience: Duration,
    // Dropped after the ticket was given back, together with a slot that was just handed over.
    answer: oneshot::Receiver<Answer>,
}

impl Place {
    pub(crate) fn new(
        handle: Arc<Handle>,
        ticket: Ticket,
        patience: Duration,
        answer: oneshot::Receiver<Answer>,
    ) -> Self {
        Self { handle, ticket, patience, answer }
    }

    #[cfg(all(test, stampede_loom))]
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        // The gate, which is held here, answers everybody it removes from its queue: the channel never just closes.
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            answer.unwrap_or_else(|_closed| Err(Shed::nth(0, self.ticket.class, crate::Reason::Late)))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handle.gate.leave(self.ticket);
    }
}

pin_project! {
    struct InLine {
        place: Place,
        #[pin]
        timer: Sleep,
    }
}

impl Future for InLine {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        match this.place.poll_answer(cx) {
            Poll::Pending if this.timer.poll(cx).is_ready() => {
                this.place.handle.gate.expire(this.place.ticket);
                this.place.poll_answer(cx)
            }
            answer => answer,
        }
    }
}

/// The future of [`LoadShed::acquire`](crate::LoadShed::acquire).
#[must_use = "a place in the queue is of use to whoever waits in it"]
pub struct Acquire(State);

enum State {
    Decided(Option<Answer>),
    // In a box, so that everybody who need not wait carries no timer along.
    Waiting(Pin<Box<Instrumented<InLine>>>),
}

impl Acquire {
    pub(crate) fn new(admission: Admission) -> Self {
        Self(match admission {
            Admission::Granted(permit) => State::Decided(Some(Ok(permit))),
            Admission::Refused(shed) => State::Decided(Some(Err(shed))),
            Admission::Waits(place) => return Self::waiting(place),
        })
    }

    pub(crate) fn waiting(place: Place) -> Self {
        let timer = tokio::time::sleep(place.patience);
        let class = u64::from(place.ticket.class.level());
        let span = tracing::info_span!(
            "admission wait",
            class,
            refused = field::Empty,
            otel.status_code = field::Empty,
        );
        Self(State::Waiting(Box::pin(InLine { place, timer }.instrument(span))))
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Shed>;

    /// Polled again after it was ready, it is pending for ever.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.0 {
            State::Decided(answer) => return answer.take().map_or(Poll::Pending, Poll::Ready),
            State::Waiting(line) => {
                let answer = std::task::ready!(line.as_mut().poll(cx));
                if let Err(shed) = &answer {
                    line.span().record("refused", shed.reason.as_str());
                    line.span().record("otel.status_code", "ERROR");
                }
                answer
            }
        };
        self.0 = State::Decided(None);
        Poll::Ready(answer)
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").finish_non_exhaustive()
    }
}
