//! The last answers to whoever browses: what is shown while `catalog` does not answer.

use std::hash::RandomState;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::header::{AGE, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Collected};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use stampede_deadline::{Clock, Moment};

/// RFC 9211: says that an answer comes from here, and how long ago it was fresh.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What an entry costs beside its bytes: key, times, places in the cache.
const OVERHEAD_BYTES: u64 = 256;
/// Entries that the cache makes room for at first.
const ENTRIES_GUESS: usize = 1_000;

/// The last answers. Only such as are the same for everybody belong here.
#[derive(Debug)]
pub struct LastCopies {
    copies: Cache<PathAndQuery, Copy, Weight, RandomState>,
    /// An entry that is larger would throw out too many others.
    entry_max: u64,
    age_max: Duration,
    clock: Clock,
}

/// A cache that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidCache(String);

#[derive(Debug, Clone)]
struct Copy {
    at: Moment,
    kind: Option<HeaderValue>,
    body: Bytes,
}

/// Weighs what an entry takes.
#[derive(Debug, Clone)]
struct Weight;

impl Weighter<PathAndQuery, Copy> for Weight {
    fn weight(&self, target: &PathAndQuery, copy: &Copy) -> u64 {
        OVERHEAD_BYTES + target.as_str().len() as u64 + copy.body.len() as u64
    }
}

impl LastCopies {
    /// None yet; at most so many bytes, none of which is shown when it is older than `age_max`.
    ///
    /// # Errors
    /// When there can be no such cache.
    pub fn try_new(bytes_max: u64, age_max: Duration, clock: Clock) -> Result<Self, InvalidCache> {
        // In one piece: of several each would have a part of the memory, and too little for a large answer.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(ENTRIES_GUESS)
            .weight_capacity(bytes_max)
            .shards(1)
            .build()
            .map_err(|error| InvalidCache(error.to_string()))?;
        let copies = Cache::with_options(options, Weight, RandomState::new(), DefaultLifecycle::default());
        Ok(Self { copies, entry_max: bytes_max / 8, age_max, clock })
    }

    /// Keeps a copy of a success, and gives the answer back.
    pub async fn keep(&self, target: &PathAndQuery, response: Response) -> Response {
        let fits = response.body().size_hint().exact().is_some_and(|bytes| bytes <= self.entry_max);
        if response.status() != StatusCode::OK || !fits {
            return response;
        }
        let (parts, body) = response.into_parts();
        // It is whole and in memory already, so this neither waits nor fails.
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let kind = parts.headers.get(CONTENT_TYPE).cloned();
        self.copies.insert(target.clone(), Copy { at: self.clock.now(), kind, body: body.clone() });
        Response::from_parts(parts, Body::from(body))
    }

    /// The last copy, with its age.
    pub fn get(&self, target: &PathAndQuery) -> Option<Response> {
        let Copy { at, kind, body } = self.copies.get(target)?;
        let age = self.clock.now().since(at);
        if age > self.age_max {
            self.copies.remove(target);
            return None;
        }
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
        headers.insert(AGE, age.as_secs().into());
        let status = format!("stampede-gateway; hit; ttl=-{}; detail=catalog-is-away", age.as_secs());
        headers.extend(HeaderValue::try_from(status).ok().map(|status| (CACHE_STATUS, status)));
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    const TARGET: PathAndQuery = PathAndQuery::from_static("/v1/shows?limit=1");
    const AGE_MAX: Duration = Duration::from_secs(600);

    fn copies() -> LastCopies {
        LastCopies::try_new(8 * 1024, AGE_MAX, Clock::tokio()).unwrap()
    }

    async fn text(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_says_how_old_it_is_and_is_not_shown_for_ever() {
        let copies = copies();
        assert!(copies.get(&TARGET).is_none());
        let json = [(CONTENT_TYPE, "application/json")];
        let first = copies.keep(&TARGET, (json, "{}").into_response()).await;
        assert_eq!(text(first).await, "{}", "whoever asked gets it whole");

        tokio::time::advance(Duration::from_secs(12)).await;
        let copy = copies.get(&TARGET).unwrap();
        assert_eq!(copy.headers()[AGE], "12");
        assert_eq!(copy.headers()[CONTENT_TYPE], "application/json");
        assert!(copy.headers()[CACHE_STATUS].to_str().unwrap().contains("hit; ttl=-12"));
        assert_eq!(text(copy).await, "{}");

        tokio::time::advance(AGE_MAX).await;
        assert!(copies.get(&TARGET).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_successes_of_a_bearable_size_are_kept_and_all_are_passed_on() {
        let copies = copies();
        let refused = copies.keep(&TARGET, (StatusCode::NOT_FOUND, "no").into_response()).await;
        assert_eq!(text(refused).await, "no");
        let large = copies.keep(&TARGET, "x".repeat(1_025).into_response()).await;
        assert_eq!(text(large).await.len(), 1_025);
        assert!(copies.get(&TARGET).is_none());
        copies.keep(&TARGET, "x".repeat(1_024).into_response()).await;
        assert!(copies.get(&TARGET).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_cannot_fill_the_memory() {
        let copies = copies();
        for number in 0..1_000 {
            let target = PathAndQuery::try_from(format!("/v1/shows?cursor={number}")).unwrap();
            copies.keep(&target, "x".repeat(500).into_response()).await;
        }
        assert!(copies.copies.weight() <= 8 * 1024, "{}", copies.copies.weight());
        assert!(copies.copies.len() > 1);
    }
}
