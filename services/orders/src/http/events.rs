//! Following an order: server-sent events, one whenever it changed.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use axum::routing::get;
use futures::Stream;
use stampede_contracts::{OrderId, Problem, api};
use stampede_service::extract::Path;
use tokio::time::{Instant, timeout_at};

use super::caller::Asking;
use crate::app::{App, Caller};
use crate::wakeups::Subscription;

/// Comments that keep proxies from closing a silent stream.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// A stream ends after this; the client comes back if it still cares.
const STREAM_MAX: Duration = Duration::from_secs(15 * 60);

pub(super) fn router() -> Router<App> {
    Router::new().route("/v1/orders/{order_id}/events", get(follow))
}

async fn follow(
    State(app): State<App>,
    Asking(caller): Asking,
    Path(id): Path<OrderId>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let subscription = app.follow(id);
    let order = app.order(id, &caller).await?;
    let following = Following {
        app,
        caller,
        subscription,
        next: Some(order),
        shown: None,
        ends_at: Instant::now() + STREAM_MAX,
    };
    let events = futures::stream::unfold(following, Following::next);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)))
}

struct Following {
    app: App,
    caller: Caller,
    subscription: Subscription,
    /// What is to be shown next.
    next: Option<api::Order>,
    /// What was shown last; after a settled order nothing more comes.
    shown: Option<api::Order>,
    ends_at: Instant,
}

impl Following {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.shown.as_ref().is_some_and(|order| order.state.is_settled()) {
            return None;
        }
        let order = match self.next.take() {
            Some(order) => order,
            None => self.change().await?,
        };
        let event = Event::default().event("order").json_data(&order);
        self.shown = Some(order);
        // An order always has a form in JSON; if not, the stream ends.
        event.ok().map(|event| (Ok(event), self))
    }

    /// The order after its next change; nothing when the stream has to end.
    async fn change(&mut self) -> Option<api::Order> {
        let draining = self.app.draining().clone();
        loop {
            let changed = timeout_at(self.ends_at, self.subscription.changed());
            // When this replica ends, the client comes back, to another one.
            draining.run_until_cancelled(changed).await?.ok()?;
            let order = self.app.order(self.subscription.order(), &self.caller).await.ok()?;
            if self.shown.as_ref() != Some(&order) {
                return Some(order);
            }
        }
    }
}
