//! Which spans code makes, for the tests of code that makes some.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is called.
    pub name: &'static str,
    /// The span around it.
    pub within: Option<&'static str>,
    /// On tokio's clock, which a test may have paused.
    pub lasted: Duration,
    /// What was recorded in it.
    pub fields: BTreeMap<&'static str, String>,
}

/// Everything this thread's spans said, from when this was made until it is dropped.
pub struct Spans {
    ended: Arc<Mutex<Vec<Seen>>>,
    _until_dropped: DefaultGuard,
}

impl Spans {
    /// Looks at the spans that this thread makes from now on.
    pub fn record() -> Self {
        /// While there is only one subscriber, tracing asks the thread that first meets a span, and not the subscriber,
        /// whether anybody wants it, and keeps the answer for all threads. This second one, which is never dropped,
        /// makes it ask every subscriber.
        static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));
        LazyLock::force(&SECOND);
        let ended = Arc::default();
        let recorder = Recorder(Arc::clone(&ended));
        let subscriber = tracing_subscriber::registry().with(recorder);
        Self { ended, _until_dropped: tracing::subscriber::set_default(subscriber) }
    }

    /// Those that have ended, in the order in which they did.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.ended).clone()
    }

    /// Their names and those of the spans around them.
    pub fn names(&self) -> Vec<(&'static str, Option<&'static str>)> {
        lock(&self.ended).iter().map(|seen| (seen.name, seen.within)).collect()
    }
}

struct Recorder(Arc<Mutex<Vec<Seen>>>);

/// What is known of a span while it goes on.
struct Open {
    since: Instant,
    fields: Fields,
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn enabled(&self, _: &Metadata<'_>, _: Context<'_, S>) -> bool {
        true
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Open { since: Instant::now(), fields });
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            values.record(&mut open.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(Open { since, fields }) = span.extensions_mut().remove() else { return };
        let within = span.parent().map(|parent| parent.name());
        let seen = Seen { name: span.name(), within, lasted: since.elapsed(), fields: fields.0 };
        lock(&self.0).push(seen);
    }
}

fn lock(ended: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    ended.lock().unwrap_or_else(PoisonError::into_inner)
}
