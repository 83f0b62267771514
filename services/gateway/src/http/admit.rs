//! Who asks, and whether they may ask now: the first thing that happens to a request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use stampede_contracts::{Code, Problem, SessionId, Timestamp};
use stampede_rate_limit::{Decision, RATELIMIT};
use stampede_service::AddressKey;

use crate::app::App;
use crate::metrics::Limited;

/// Lifts the limits by address; for load tests from one machine.
pub const OPERATOR_TOKEN: HeaderName = HeaderName::from_static("operator-token");

/// Whoever sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// What their bearer token proves.
    pub bearer: Bearer,
    /// Where they are.
    pub address: AddressKey,
    /// Whether the limits by address are lifted.
    pub unlimited: bool,
}

/// What a bearer token proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// There is none.
    Absent,
    /// A session.
    Session(SessionId),
    /// An operator.
    Operator,
    /// Nothing: forged, expired, or of another scheme.
    Invalid,
}

impl Caller {
    fn of(app: &App, request: &Request) -> Self {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
        let headers = request.headers();
        let address = app.proxies.trusted.client(peer, app.proxies.header, headers);
        let unlimited =
            headers.get(OPERATOR_TOKEN).is_some_and(|token| app.operator.matches(token.as_bytes()));
        Self { bearer: bearer(app, headers), address: address.into(), unlimited }
    }
}

fn bearer(app: &App, headers: &HeaderMap) -> Bearer {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Bearer::Absent };
    let text = value.to_str().unwrap_or_default();
    let token = match text.split_once(' ') {
        // RFC 9110, 11.1: the scheme's case does not matter.
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Bearer::Invalid,
    };
    if values.next().is_some() {
        return Bearer::Invalid;
    }
    match app.sessions.verify(token, Timestamp::now()) {
        Ok(session) => Bearer::Session(session),
        Err(_) if app.operator.matches(token.as_bytes()) => Bearer::Operator,
        Err(_) => Bearer::Invalid,
    }
}

/// Finds out who asks, and refuses whoever asks too often: by session, by address where there is none.
///
/// A token that proves nothing is no reason to refuse here: browsing needs none, and the handlers that need one say so.
pub async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let caller = Caller::of(&app, &request);
    request.extensions_mut().insert(caller);
    let (decision, whose) = match caller.bearer {
        Bearer::Session(session) => (app.limits.by_session.check(&session), Limited::Session),
        Bearer::Operator => return next.run(request).await,
        Bearer::Absent | Bearer::Invalid if caller.unlimited => return next.run(request).await,
        Bearer::Absent | Bearer::Invalid => (app.limits.by_address.check(&caller.address), Limited::Address),
    };
    let mut response = match decision {
        Decision::Allowed { .. } => next.run(request).await,
        Decision::Refused { retry_after, .. } => refused(&app, whose, retry_after),
    };
    // A handler with a quota of its own, the tighter one, has said how that stands.
    if !response.headers().contains_key(RATELIMIT) {
        let headers = response.headers_mut();
        match whose {
            Limited::Session => app.limits.by_session.insert_headers(&decision, headers),
            Limited::Address | Limited::Sessions => app.limits.by_address.insert_headers(&decision, headers),
        }
    }
    response
}

/// The answer to somebody whose quota is used up.
pub fn refused(app: &App, whose: Limited, retry_after: Duration) -> Response {
    app.metrics.rate_limited(whose);
    // Rounded up, because who comes early is refused again; the header says the same.
    let seconds = (retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)).max(1);
    Problem::new(Code::RateLimited).retry_after(u32::try_from(seconds).unwrap_or(u32::MAX)).into_response()
}
