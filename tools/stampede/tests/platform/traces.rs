//! One purchase is one trace, through HTTP, NATS, the saga and what comes twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use reqwest::Method;
use stampede::client::With;
use stampede_contracts::api::{self, OrderState};
use stampede_testkit::eventually;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::outages::Frozen;
use crate::stage::{PATIENCE, Stage};

const SERVICES: [&str; 7] = ["gateway", "lobby", "catalog", "inventory", "orders", "payments", "notify"];
/// The provider takes the money and its answer is lost, so payments asks again.
const LOST_REPLY: &str = "4000000000000101";

/// What the test wants to know of a span.
#[derive(Clone, Debug)]
struct Span {
    trace: String,
    service: String,
    name: String,
    parent: Vec<u8>,
    id: Vec<u8>,
}

/// A collector that keeps every span it is sent.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    server: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, spans, server }
    }

    fn of_trace(&self, trace: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.trace == trace).cloned().collect()
    }

    /// Whether there is a span of that name right inside of the other.
    fn has(&self, name: &str, within: &str) -> bool {
        let spans = self.spans.lock().unwrap();
        let is_parent = |of: &Span, span: &Span| span.id == of.parent && span.name == within;
        spans.iter().any(|child| child.name == name && spans.iter().any(|span| is_parent(child, span)))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) -> StatusCode {
    let Ok(sent) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    for of_process in sent.resource_spans {
        let attributes = of_process.resource.map(|resource| resource.attributes).unwrap_or_default();
        let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let service = match name.and_then(|attribute| attribute.value?.value) {
            Some(Value::StringValue(name)) => name,
            _ => String::new(),
        };
        let of_scopes = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.lock().unwrap().extend(of_scopes.map(|span| Span {
            trace: span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            service: service.clone(),
            name: span.name,
            parent: span.parent_span_id,
            id: span.span_id,
        }));
    }
    StatusCode::OK
}

#[tokio::test(flavor = "multi_thread")]
async fn one_purchase_is_one_trace_even_when_a_reply_is_lost() {
    let collector = Collector::start().await;
    let settings = SERVICES.map(|service| format!("{service}.OTEL_EXPORTER_OTLP_ENDPOINT={}", collector.url));
    let stage = Stage::start(&settings.each_ref().map(String::as_str)).await;
    let (token, show) = (stage.token().await, stage.show("club").await);
    let order: api::Order = stage.order(&show, &token, LOST_REPLY).await.json().unwrap();
    stage.becomes(order.order_id, &token, OrderState::Confirmed).await;
    let trace = stage.read(order.order_id, &token).await.trace_id.unwrap();

    // Notify is the last one to speak.
    let expected = BTreeSet::from(["gateway", "orders", "inventory", "payments", "notify"]);
    eventually(PATIENCE, async || {
        let spans = collector.of_trace(&trace);
        expected.iter().all(|service| spans.iter().any(|span| span.service == *service))
            && spans.iter().any(|span| span.service == "notify" && span.name == "mail")
    })
    .await;
    // Whoever reads the trace finds no loose end: every span hangs on another one, but for the first.
    eventually(PATIENCE, async || {
        let spans = collector.of_trace(&trace);
        let known: BTreeSet<_> = spans.iter().map(|span| &span.id).collect();
        let loose = spans.iter().filter(|span| !known.contains(&span.parent)).count();
        loose == 1
    })
    .await;
    let spans = collector.of_trace(&trace);
    let services: BTreeSet<_> = spans.iter().map(|span| span.service.as_str()).collect();
    assert_eq!(services, expected, "browsing and the lobby are traces of their own");
    eprintln!("{} spans in the trace of a purchase", spans.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_tried_while_catalog_hung_is_in_the_trace() {
    let collector = Collector::start().await;
    let stage = Stage::start(&[&format!("gateway.OTEL_EXPORTER_OTLP_ENDPOINT={}", collector.url)]).await;
    let show = stage.show("club").await;
    let _catalog = Frozen::process(&stage, "catalog-1");
    let path = format!("/v1/shows/{}", show.summary.show_id);
    eventually(PATIENCE, async || {
        // On a busy machine its time may be over before a second attempt.
        stage.client.send(Method::GET, &path, With::default(), None).await.unwrap();
        ["hedge", "retry pause"].iter().all(|layer| collector.has(layer, "GET /v1/shows/{show_id}"))
            && collector.has("GET catalog", "hedge")
    })
    .await;
}
