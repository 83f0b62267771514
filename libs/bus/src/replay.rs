//! State streams: a copy of what somebody else owns, built from the first message on.

use async_nats::jetstream;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::follow::{Follow, Follower, Reached};
use crate::jetstream::Start;
use crate::{BoxError, Bus, Delivery};

/// Reads a stream from its first message, and then what is added, with a consumer of this process's own.
///
/// For copies in memory: nothing is acknowledged, and every process sees everything. A message may come more than
/// once, so the copy has to keep the higher version. Work that must be done once belongs to a
/// [`Consumer`](crate::Consumer).
#[derive(Clone)]
pub struct Replay {
    bus: Bus,
    stream: String,
    filter: String,
}

impl Replay {
    /// The messages of `stream` whose subject fits `filter`, for example `evt.inventory.>`. The stream need not
    /// exist yet.
    pub fn new(bus: Bus, stream: impl Into<String>, filter: impl Into<String>) -> Self {
        Self { bus, stream: stream.into(), filter: filter.into() }
    }

    /// Hands every message to `handler`, one after the other in the order of the stream, until `shutdown`.
    ///
    /// When the handler fails, the same message comes again after a pause. `reached` hears where in the stream it is: at
    /// the [beginning](Reached::Beginning), again when the stream was made anew or lost its end; once all that was
    /// [present](Reached::Present) then has been handled, also when that was nothing; and whenever it is at the
    /// [end](Reached::End). A store that lost its end and has grown beyond it since is not recognised; only losing a
    /// machine and its disk at once can do that. What is no CloudEvent is passed over.
    ///
    /// # Errors
    /// None while it runs: it returns `Ok` after `shutdown`. The type fits what a supervisor wants to start.
    // Boxed, because the compiler cannot see through the handler's type that the whole future is `Send`.
    pub fn run<H, Fut, C>(
        self,
        shutdown: CancellationToken,
        handler: H,
        reached: C,
    ) -> BoxFuture<'static, Result<(), BoxError>>
    where
        H: FnMut(Delivery) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
        C: FnMut(Reached) + Send + 'static,
    {
        let Self { bus, stream, filter } = self;
        let follow = Follow { bus, stream, filter, start: Start::First };
        async move { follow.run(&shutdown, Copying { handler, reached }).await }.boxed()
    }
}

struct Copying<H, C> {
    handler: H,
    reached: C,
}

impl<H, Fut, C> Follower for Copying<H, C>
where
    H: FnMut(Delivery) -> Fut + Send,
    Fut: Future<Output = Result<(), BoxError>> + Send,
    C: FnMut(Reached) + Send,
{
    async fn message(&mut self, raw: &jetstream::Message) -> Result<(), BoxError> {
        let stream_sequence = raw.info().map_err(|error| error.to_string())?.stream_sequence;
        let delivery = match Delivery::read(&raw.message, 1, stream_sequence) {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::error!(subject = %raw.subject, %error, "passed over");
                return Ok(());
            }
        };
        // No span: a replay of thousands of states is not thousands of stories.
        (self.handler)(delivery).in_current_span().await
    }

    fn reached(&mut self, place: Reached) {
        (self.reached)(place);
    }
}
