//! Problems: RFC 9457 bodies with a stable code, the only shape in which a node says no.

use axum_core::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One row: variant, word on the wire, status, title.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident, $word:literal, $status:literal, $title:literal;)*) => {
        /// Why a request got no success. Stable: clients branch on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($(#[$doc])* #[serde(rename = $word)] $variant,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means, in one sentence that never changes from case to case.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    /// Not JSON, or not of the expected shape.
    MalformedRequest, "malformed_request", 400, "The request could not be read.";
    /// A path or query parameter is wrong.
    InvalidParameter, "invalid_parameter", 400, "A parameter is not valid.";
    /// No `Idempotency-Key`.
    KeyMissing, "key_missing", 400, "This call needs an Idempotency-Key header.";
    /// An `Idempotency-Key` that is none.
    KeyMalformed, "key_malformed", 400, "The Idempotency-Key header is not valid.";
    /// A `Deadline-Ms` that is none.
    DeadlineMalformed, "deadline_malformed", 400, "The Deadline-Ms header is not valid.";
    /// No token, or one that does not verify.
    Unauthenticated, "unauthenticated", 401, "A valid bearer token is needed; POST /v1/sessions gives one.";
    /// The provider declined the card.
    PaymentDeclined, "payment_declined", 402, "The payment was declined.";
    /// The show sells to holders of a lobby pass only.
    PassRequired, "pass_required", 403, "This show needs a Lobby-Pass; join its lobby to get one.";
    /// Forged, expired at issue, or somebody else's.
    PassInvalid, "pass_invalid", 403, "The Lobby-Pass is not valid for this session and show.";
    /// An operator's call without an operator's token.
    Forbidden, "forbidden", 403, "This call is for operators.";
    /// No such route.
    RouteNotFound, "route_not_found", 404, "There is nothing at this address.";
    /// No such show.
    ShowNotFound, "show_not_found", 404, "There is no such show.";
    /// No such section.
    SectionNotFound, "section_not_found", 404, "The show has no such section.";
    /// No such seat.
    SeatNotFound, "seat_not_found", 404, "The show has no such seat.";
    /// No such hold for this session.
    HoldNotFound, "hold_not_found", 404, "There is no such hold.";
    /// No such order for this session.
    OrderNotFound, "order_not_found", 404, "There is no such order.";
    /// No such ticket for this session.
    TicketNotFound, "ticket_not_found", 404, "There is no such ticket.";
    /// No such place for this session.
    PlaceNotFound, "place_not_found", 404, "There is no such place in a lobby.";
    /// Something else that is not there.
    NotFound, "not_found", 404, "There is no such thing.";
    /// Not that method.
    MethodNotAllowed, "method_not_allowed", 405, "This address does not take that method.";
    /// The request's body trickled in.
    RequestTimeout, "request_timeout", 408, "The request did not arrive in time.";
    /// Somebody was faster, or it is full.
    SeatsTaken, "seats_taken", 409, "These seats are taken.";
    /// A second live hold.
    HoldExists, "hold_exists", 409, "This session already holds seats of this show.";
    /// Expired, released or sold.
    HoldGone, "hold_gone", 409, "The hold has ended.";
    /// The hold belongs to an order.
    HoldAttached, "hold_attached", 409, "The hold belongs to an order and cannot be released by itself.";
    /// The pass was used up, left or expired.
    PassClosed, "pass_closed", 409, "The lobby pass has ended.";
    /// The first request with this key still runs.
    KeyInProgress, "key_in_progress", 409, "A request with this Idempotency-Key is still running.";
    /// Before the sale or after the show.
    NotOnSale, "not_on_sale", 409, "The show is not on sale now.";
    /// A show without a lobby.
    NoLobby, "no_lobby", 409, "This show has no lobby; hold seats at once.";
    /// Too late to cancel.
    CancelTooLate, "cancel_too_late", 409, "The order can no longer be cancelled.";
    /// The order ended without a sale.
    OrderFailed, "order_failed", 409, "The order failed; nothing was charged.";
    /// Another show goes by this name.
    ShowExists, "show_exists", 409, "Another show goes by this slug.";
    /// Each part makes sense, all together do not.
    Contradiction, "contradiction", 409, "Parts of the request contradict each other, or the clock.";
    /// Something else in the way.
    Conflict, "conflict", 409, "The present state does not allow this.";
    /// Too many bytes.
    TooLarge, "too_large", 413, "The request is too large.";
    /// Its address alone.
    UriTooLong, "uri_too_long", 414, "The address of the request is too long.";
    /// Not JSON by its header.
    UnsupportedMediaType, "unsupported_media_type", 415, "Send application/json.";
    /// Readable, but not sensible.
    ValidationFailed, "validation_failed", 422, "The request breaks a rule.";
    /// The key came with other bytes before.
    KeyReused, "key_reused", 422, "This Idempotency-Key was used for another request.";
    /// Chosen seats in several blocks.
    SeatsSpanBlocks, "seats_span_blocks", 422, "The chosen seats do not lie in one block.";
    /// Its header fields.
    HeadTooLarge, "head_too_large", 431, "The header fields of the request are too large.";
    /// A quota is used up.
    RateLimited, "rate_limited", 429, "Too many requests.";
    /// A fault of ours.
    Internal, "internal", 500, "Something went wrong on our side.";
    /// An unknown method or transfer coding.
    NotImplemented, "not_implemented", 501, "The method or transfer coding is not implemented.";
    /// A part that is needed is away.
    Unavailable, "unavailable", 503, "A part that this call needs is not available.";
    /// A queue is full.
    Busy, "busy", 503, "Too busy to take this now.";
    /// No answer in time.
    DeadlineExceeded, "deadline_exceeded", 504, "There was no answer within the deadline.";
}

impl Code {
    /// Whether it is a decision about the matter itself: business, a 4xx, the same however often one asks. The other
    /// 4xx are about the request on its way: too early, too many, of another version.
    pub const fn is_refusal(self) -> bool {
        let is_about_the_way = matches!(
            self,
            Self::MalformedRequest
                | Self::DeadlineMalformed
                | Self::RouteNotFound
                // What a responder says of a function that it does not know.
                | Self::NotFound
                | Self::MethodNotAllowed
                | Self::RequestTimeout
                | Self::KeyInProgress
                | Self::RateLimited
        );
        self.status() < 500 && !is_about_the_way
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Code {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(())
    }
}

/// The body of every answer that is not a success (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{code}: {}", detail.as_deref().unwrap_or(title))]
pub struct Problem {
    /// Where the kind of problem is described.
    #[serde(rename = "type")]
    #[schema(example = "/problems/seats_taken")]
    pub kind: String,
    /// The kind of problem in one sentence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable word to branch on.
    pub code: Code,
    /// This case, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to quote to an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// With `hold_exists`: the hold that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_id: Option<crate::HoldId>,
    /// Seconds after which asking again makes sense; also in the header `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

impl Problem {
    /// The media type.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// A problem with nothing but its code. 429 and 503 ask to come again in a second.
    pub fn new(code: Code) -> Self {
        Self {
            kind: format!("/problems/{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: None,
            trace_id: None,
            hold_id: None,
            retry_after: matches!(code.status(), 429 | 503).then_some(1),
        }
    }

    /// Says what is special in this case. Goes to strangers: no internals.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says when to come again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds the trace id.
    #[must_use]
    pub fn trace_id(mut self, trace_id: Option<String>) -> Self {
        self.trace_id = trace_id;
        self
    }

    /// Names the hold that is in the way.
    #[must_use]
    pub fn hold_id(mut self, hold_id: crate::HoldId) -> Self {
        self.hold_id = Some(hold_id);
        self
    }
}

/// A problem that is a [decision](Code::is_refusal), and so final. Nothing else becomes one: who holds a refusal need not
/// ask whether trying again would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Refusal(Box<Problem>);

impl Refusal {
    /// The stable word to branch on.
    pub fn code(&self) -> Code {
        self.0.code
    }
}

impl TryFrom<Problem> for Refusal {
    /// The problem, which decides nothing.
    type Error = Problem;

    fn try_from(problem: Problem) -> Result<Self, Problem> {
        if problem.code.is_refusal() { Ok(Self(Box::new(problem))) } else { Err(problem) }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        *refusal.0
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Self::MEDIA_TYPE));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_word_and_has_an_error_status() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }

    #[test]
    fn no_problem_that_may_pass_becomes_a_refusal() {
        for code in Code::ALL {
            let problem = Problem::new(*code);
            let passes = problem.retry_after.is_some() || !(400..500).contains(&code.status());
            let refusal = Refusal::try_from(problem.clone());
            assert!(!passes || refusal == Err(problem), "{code}");
        }
        let refusal = |code| Refusal::try_from(Problem::new(code)).map(|refusal| refusal.code());
        assert_eq!(refusal(Code::HoldGone), Ok(Code::HoldGone));
        assert_eq!(refusal(Code::KeyInProgress), Err(Problem::new(Code::KeyInProgress)));
    }

    #[test]
    fn the_header_says_when_to_come_again() {
        let response = Problem::new(Code::Busy).retry_after(3).into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(response.headers()["content-type"], Problem::MEDIA_TYPE);
    }
}
