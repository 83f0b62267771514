//! The public API as a client sees it: used by `buy`, `load` and the platform's tests.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use stampede_contracts::{
    HoldId, LobbyTicket, OrderId, Problem, SectionId, ShowId,
    api::{self, NewBuyer, NewHold, NewOrder, NewPayment},
    header::{IDEMPOTENCY_KEY, LOBBY_PASS, ORDER_SECRET, TRACEPARENT},
};

/// Longest wait for one answer. The gateway gives up after 30 s at the latest.
const ANSWER_MAX: Duration = Duration::from_secs(35);

/// What came back, whole: tests compare bytes, load keeps times, people want the problem.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: header::HeaderMap,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// From sending to the last byte.
    pub took: Duration,
}

impl Reply {
    /// The body of a success.
    ///
    /// # Errors
    /// With the problem's words when it is none, or when the body has another shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        self.success()?;
        serde_json::from_slice(&self.body).context("the answer has another shape than expected")
    }

    /// Whether it is a success, whatever its body.
    ///
    /// # Errors
    /// With the problem's words when it is none.
    pub fn success(&self) -> Result<()> {
        match self.problem() {
            _ if self.status.is_success() => Ok(()),
            Some(problem) => bail!("{} {problem}", self.status.as_u16()),
            None => bail!("{} without a problem: {}", self.status, String::from_utf8_lossy(&self.body)),
        }
    }

    /// The problem, if it is one.
    pub fn problem(&self) -> Option<Problem> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The code of the problem, if it is one.
    pub fn code(&self) -> Option<stampede_contracts::Code> {
        self.problem().map(|problem| problem.code)
    }

    /// The trace id the gateway gave this request.
    pub fn trace_id(&self) -> Option<String> {
        let header = self.headers.get(TRACEPARENT)?.to_str().ok()?;
        header.split('-').nth(1).map(str::to_owned)
    }
}

/// A client of one gateway. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// What goes with one request besides its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct With<'a> {
    /// Bearer token.
    pub token: Option<&'a str>,
    /// `Idempotency-Key`.
    pub key: Option<&'a str>,
    /// `Lobby-Pass`.
    pub pass: Option<&'a str>,
    /// `Order-Secret`.
    pub secret: Option<&'a str>,
    /// `Operator-Token`: lifts the limit of sessions an address.
    pub operator: Option<&'a str>,
}

impl<'a> With<'a> {
    /// Only the session's token.
    pub fn token(token: &'a str) -> Self {
        Self { token: Some(token), ..Self::default() }
    }

    /// A key besides.
    #[must_use]
    pub fn key(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// A pass besides, if there is one.
    #[must_use]
    pub fn pass(self, pass: Option<&'a str>) -> Self {
        Self { pass, ..self }
    }
}

impl Client {
    /// A client of the gateway at `base`, for example `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When the TLS set-up of this machine cannot be read.
    pub fn new(base: &str) -> Result<Self> {
        let http = crate::http::builder()
            .timeout(ANSWER_MAX)
            .pool_max_idle_per_host(256)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned() })
    }

    /// Where it sends to.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// One request; any answer is `Ok`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        with: With<'_>,
        body: Option<Vec<u8>>,
    ) -> Result<Reply> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let mut request = self.http.request(method, &url);
        if let Some(token) = with.token {
            request = request.bearer_auth(token);
        }
        let headers = [
            (IDEMPOTENCY_KEY, with.key),
            (LOBBY_PASS, with.pass),
            (ORDER_SECRET, with.secret),
            ("operator-token", with.operator),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let sent = Instant::now();
        let response = request.send().await.with_context(|| format!("no answer from {url}"))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.with_context(|| format!("the answer of {url} broke off"))?.to_vec();
        Ok(Reply { status, headers, body, took: sent.elapsed() })
    }

    async fn get(&self, path: &str, with: With<'_>) -> Result<Reply> {
        self.send(Method::GET, path, with, None).await
    }

    async fn post(&self, path: &str, with: With<'_>, body: &impl Serialize) -> Result<Reply> {
        self.send(Method::POST, path, with, Some(serde_json::to_vec(body)?)).await
    }

    /// `POST /v1/sessions`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn session(&self, operator: Option<&str>) -> Result<Reply> {
        let with = With { operator, ..With::default() };
        self.send(Method::POST, "/v1/sessions", with, None).await
    }

    /// `GET /v1/shows`, all pages.
    ///
    /// # Errors
    /// When there was no answer or it is no list of shows.
    pub async fn shows(&self) -> Result<Vec<api::ShowSummary>> {
        let mut shows = Vec::new();
        let mut path = "/v1/shows?limit=100".to_owned();
        loop {
            let page: api::Page<api::ShowSummary> = self.get(&path, With::default()).await?.json()?;
            shows.extend(page.items);
            match page.next_cursor {
                Some(cursor) => path = format!("/v1/shows?limit=100&cursor={cursor}"),
                None => return Ok(shows),
            }
        }
    }

    /// `GET /v1/shows/{show_id}`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn show(&self, show: ShowId, with: With<'_>) -> Result<Reply> {
        self.get(&format!("/v1/shows/{show}"), with).await
    }

    /// `GET /v1/shows/{show_id}/seats`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn seats(&self, show: ShowId, section: SectionId, with: With<'_>) -> Result<Reply> {
        self.get(&format!("/v1/shows/{show}/seats?section={section}"), with).await
    }

    /// `POST /v1/shows/{show_id}/lobby`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn join(&self, show: ShowId, token: &str) -> Result<Reply> {
        self.send(Method::POST, &format!("/v1/shows/{show}/lobby"), With::token(token), None).await
    }

    /// `GET /v1/lobby/{lobby_ticket}`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn place(&self, place: LobbyTicket, token: &str) -> Result<Reply> {
        self.get(&format!("/v1/lobby/{place}"), With::token(token)).await
    }

    /// `DELETE /v1/lobby/{lobby_ticket}`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn leave(&self, place: LobbyTicket, token: &str) -> Result<Reply> {
        self.send(Method::DELETE, &format!("/v1/lobby/{place}"), With::token(token), None).await
    }

    /// `POST /v1/shows/{show_id}/holds`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn hold(&self, show: ShowId, wish: &NewHold, with: With<'_>) -> Result<Reply> {
        self.post(&format!("/v1/shows/{show}/holds"), with, wish).await
    }

    /// `GET /v1/holds/{hold_id}`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn read_hold(&self, hold: HoldId, token: &str) -> Result<Reply> {
        self.get(&format!("/v1/holds/{hold}"), With::token(token)).await
    }

    /// `DELETE /v1/holds/{hold_id}`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn release(&self, hold: HoldId, token: &str) -> Result<Reply> {
        self.send(Method::DELETE, &format!("/v1/holds/{hold}"), With::token(token), None).await
    }

    /// `POST /v1/orders`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn order(&self, order: &NewOrder, with: With<'_>) -> Result<Reply> {
        self.post("/v1/orders", with, order).await
    }

    /// `GET /v1/orders/{order_id}`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn read_order(&self, order: OrderId, with: With<'_>) -> Result<Reply> {
        self.get(&format!("/v1/orders/{order}"), with).await
    }

    /// `POST /v1/orders/{order_id}/cancel`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn cancel(&self, order: OrderId, with: With<'_>) -> Result<Reply> {
        self.send(Method::POST, &format!("/v1/orders/{order}/cancel"), with, None).await
    }

    /// `GET /v1/ticket-keys`.
    ///
    /// # Errors
    /// When there was no answer or it is no key set.
    pub async fn ticket_keys(&self) -> Result<api::TicketKeys> {
        self.get("/v1/ticket-keys", With::default()).await?.json()
    }

    /// Where a card is exchanged for a token: where we are told, or else where the gateway says, which names an address
    /// for the outside and in production none.
    ///
    /// # Errors
    /// When nothing was named and the gateway does not say.
    pub async fn tokens_url(&self, named: Option<&str>) -> Result<String> {
        match named {
            Some(named) => Ok(named.to_owned()),
            None => Ok(self
                .test_cards()
                .await
                .context("nobody says where card tokens are given out; name it with --tokens-url")?
                .tokens_url),
        }
    }

    /// `GET /v1/test-cards`.
    ///
    /// # Errors
    /// When there was no answer or this is production.
    pub async fn test_cards(&self) -> Result<api::TestCards> {
        self.get("/v1/test-cards", With::default()).await?.json()
    }

    /// A token for a test card, from the provider itself: card data never passes the gateway.
    ///
    /// # Errors
    /// When the provider did not give one.
    pub async fn card_token(&self, tokens_url: &str, card_number: &str) -> Result<String> {
        #[derive(serde::Deserialize)]
        struct Token {
            card_token: String,
        }
        let body = serde_json::json!({ "card_number": card_number });
        let token: Token = self.post(tokens_url, With::default(), &body).await?.json()?;
        Ok(token.card_token)
    }
}

/// An order as `buy`, `load` and the tests place it.
pub fn new_order(hold_id: HoldId, name: &str, email: &str, card_token: &str) -> NewOrder {
    NewOrder {
        hold_id,
        buyer: NewBuyer { name: name.to_owned(), email: email.to_owned() },
        payment: NewPayment { card_token: card_token.to_owned() },
    }
}

/// A random `Idempotency-Key`.
pub fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}
