//! Passing a request through to the service that answers it.

use axum::Extension;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::Response;
use futures::StreamExt;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, CONNECTION, CONTENT_TYPE, IF_NONE_MATCH};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use stampede_contracts::function::Safe;
use stampede_contracts::{Class, Code, Problem, Repeatable, Route, header};

use super::admit::{Bearer, Caller};
use super::body;
use super::extract::Priority;
use crate::app::{App, Client};
use crate::clients::upstream::Outgoing;

/// The fields that pass. All others end here, those between two hops (RFC 9110, 7.6.1) and those that only the door may
/// write among them.
const FIELDS: [HeaderName; 7] = [
    CONTENT_TYPE,
    ACCEPT,
    ACCEPT_LANGUAGE,
    IF_NONE_MATCH,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static(header::IDEMPOTENCY_KEY),
    HeaderName::from_static(header::ORDER_SECRET),
];

/// A request that is passed through: read within its bounds and stripped of what must not pass.
#[derive(Debug)]
pub struct Passing<const BODY_MAX: usize = { body::MAX }> {
    outgoing: Outgoing,
    priority: Priority,
    client: Client,
}

impl<const BODY_MAX: usize> FromRequest<App> for Passing<BODY_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Ok(priority) = Priority::from_request_parts(&mut parts, app).await;
        let mut headers = HeaderMap::with_capacity(FIELDS.len() + 4);
        let between_hops = named_by_connection(&parts.headers);
        for name in FIELDS.iter().filter(|name| !between_hops.contains(name)) {
            for value in parts.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let Extension(caller) = Extension::<Caller>::from_request_parts(&mut parts, app)
            .await
            .map_err(|_missing| Problem::new(Code::Internal))?;
        let client = match caller.bearer {
            Bearer::Session(session) => {
                headers.insert(header::SESSION, ascii(&session.to_string()));
                Client::Session(session)
            }
            Bearer::Absent | Bearer::Operator | Bearer::Invalid => Client::Address(caller.address),
        };
        let target = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let body = body::read(body, BODY_MAX, app.times.body).await?;
        let outgoing = Outgoing { method: parts.method, target, headers, body };
        Ok(Self { outgoing, priority, client })
    }
}

impl<const BODY_MAX: usize> Passing<BODY_MAX> {
    /// Passes it to whoever offers `R`, and the answer back; again where there was none.
    ///
    /// # Errors
    /// `unavailable` or `deadline_exceeded` when there was none in the end.
    pub async fn ask<R>(self, app: &App) -> Result<Response, Problem>
    where
        R: Route,
        R::Guarantee: Repeatable,
    {
        app.upstream.ask::<R>(self.classified(R::CLASS)).await
    }

    /// Like [`ask`](Self::ask), for what only reads: asks a second replica as well when the first takes long.
    ///
    /// # Errors
    /// See [`ask`](Self::ask).
    pub async fn read<R: Route<Guarantee = Safe>>(self, app: &App) -> Result<Response, Problem> {
        app.upstream.read::<R>(self.classified(R::CLASS)).await
    }

    /// Like [`read`](Self::read), for what is the same for everybody: where there is no answer, the last one takes its
    /// place, with its age.
    ///
    /// # Errors
    /// See [`ask`](Self::ask); also when there is no last answer, or it is too old.
    pub async fn browse<R: Route<Guarantee = Safe>>(self, app: &App) -> Result<Response, Problem> {
        // HEAD is answered like GET, but for the content: it leaves no copy, and is told of none.
        if self.outgoing.method != Method::GET {
            return self.read::<R>(app).await;
        }
        let target = self.outgoing.target.clone();
        let answer = match self.read::<R>(app).await {
            Ok(response) if !response.status().is_server_error() => {
                return Ok(app.last_copies.keep(&target, response).await);
            }
            answer => answer,
        };
        // RFC 5861, 4: an error is what a stale answer may take the place of.
        match app.last_copies.get(&target) {
            Some(copy) => {
                app.metrics.last_copy(R::NAME);
                Ok(copy)
            }
            None => answer,
        }
    }

    /// Passes it to whoever offers `R` and the events of the answer back, until one side ends, the stream has lasted its time,
    /// or this process drains.
    ///
    /// # Errors
    /// `busy` when too many streams are open; see [`ask`](Self::ask).
    pub async fn follow<R: Route<Guarantee = Safe>>(self, app: &App) -> Result<Response, Problem> {
        let place = app.streams.open.open(self.client);
        let place = place.ok_or_else(|| Problem::new(Code::Busy).detail("Too many streams are open."))?;
        let response = app.upstream.follow::<R>(self.classified(R::CLASS)).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let held = (place, app.metrics.stream());
        let draining = app.streams.draining.clone();
        let max_age = app.streams.max_age;
        let end = async move {
            // Whichever comes first; the client connects again, perhaps to another gateway.
            let _ = tokio::time::timeout(max_age, draining.cancelled_owned()).await;
        };
        let (parts, body) = response.into_parts();
        let events = body.into_data_stream().take_until(Box::pin(end)).map(move |chunk| {
            let _until_the_end = &held;
            chunk
        });
        let mut response = Response::from_parts(parts, Body::from_stream(events));
        // Tells proxies in front not to wait for more.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }

    fn classified(mut self, class: Class) -> Outgoing {
        let class = self.priority.class(class);
        self.outgoing.headers.insert(header::CLASS, HeaderValue::from_static(class.as_str()));
        self.outgoing
    }
}

/// The fields that `Connection` limits to this hop (RFC 9110, 7.6.1).
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let options = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    options.filter_map(|option| option.trim().parse().ok()).collect()
}

/// Ids are ASCII, so this cannot fail; the fall-back only keeps it free of panics.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
