//! The contract: what the handlers say of themselves, and what is true of all of them.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::Value;
use stampede_contracts::{Code, Problem};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{Components, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required, Response};

use super::links;

/// Every response of a status, by status.
pub(super) type Responses = BTreeMap<String, RefOr<Response>>;

/// Names the problems of a handler: `problems!(PlaceProblems: SeatsTaken, HoldExists);`
macro_rules! problems {
    ($name:ident: $($code:ident),+ $(,)?) => {
        struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> $crate::http::openapi::Responses {
                $crate::http::openapi::problem_responses(&[$(stampede_contracts::Code::$code),+])
            }
        }
    };
}
pub(super) use problems;

/// Everything may end like this.
const ANYWHERE: &[Code] = &[
    Code::MalformedRequest,
    Code::DeadlineMalformed,
    Code::RequestTimeout,
    Code::UriTooLong,
    Code::HeadTooLarge,
    Code::RateLimited,
    Code::Internal,
    Code::NotImplemented,
    Code::Unavailable,
    Code::Busy,
    Code::DeadlineExceeded,
];

/// What needs a token may also end like this,
const WITH_TOKEN: &[Code] = &[Code::Unauthenticated];

/// and what has a body like this.
const WITH_BODY: &[Code] = &[Code::TooLarge, Code::UnsupportedMediaType];

const TITLE: &str = "Stampede";
const DESCRIPTION: &str = "\
Sells tickets while a stampede of buyers arrives.

To buy one: make a session, list the shows, take a place in the lobby if the show has one and wait for its pass, hold \
seats, order them. Outside production `/v1/test-cards` says where a card token comes from.

Every refusal is a problem (RFC 9457) with a stable `code`; `/problems/{code}` explains each. Times are RFC 3339, money \
is integer minor units with an ISO 4217 code, lists have cursors.";

/// One event of a stream.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes what other services send")]
pub(super) struct Event {
    /// What it is about: `place` or `order`.
    event: String,
    /// How it stands now, as JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// The empty document that the routes are added to.
pub(super) fn document() -> OpenApi {
    let info = utoipa::openapi::InfoBuilder::new()
        .title(TITLE)
        .description(Some(DESCRIPTION))
        .version(env!("CARGO_PKG_VERSION"))
        .license(Some(
            utoipa::openapi::LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build(),
        ))
        .build();
    let mut document = OpenApi::new(info, utoipa::openapi::path::Paths::new());
    document.tags = Some(
        [
            ("Sessions", "Who you are, without saying who you are."),
            ("Browse", "What is on, and what is left."),
            ("Lobby", "The waiting room of a show under pressure."),
            ("Buy", "Hold, order, pay, get tickets."),
            ("Operate", "For operators."),
            ("About", "What this is."),
        ]
        .map(|(name, text)| {
            utoipa::openapi::tag::TagBuilder::new().name(name).description(Some(text)).build()
        })
        .to_vec(),
    );
    document
}

/// Adds to every operation of the API what is true of all of them.
pub(super) fn finish(document: &mut OpenApi) {
    document.paths.paths.values_mut().flat_map(operations).for_each(finish_operation);
    links::add(document);
    let components = document.components.get_or_insert_with(Components::new);
    describe_schemes(components);
    describe_parameters(components);
    describe_headers(components);
    for code in Code::ALL {
        components.examples.insert(code.to_string(), example(*code).into());
    }
    let problem = <Problem as utoipa::PartialSchema>::schema();
    components.schemas.insert("Problem".to_owned(), problem);
    let mut used = Vec::new();
    <Problem as utoipa::ToSchema>::schemas(&mut used);
    components.schemas.extend(used);
}

/// The operations of a path.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

fn finish_operation(operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    parameters.iter_mut().for_each(never_null);
    for name in ["Deadline-Ms", "Priority", "traceparent"] {
        parameters.push(RefOr::Ref(Ref::new(format!("#/components/parameters/{name}"))));
    }
    let responses = &mut operation.responses.responses;
    let needs_token = operation.security.as_ref().is_some_and(|schemes| !schemes.is_empty());
    let mut codes = ANYWHERE.to_vec();
    codes.extend(needs_token.then_some(WITH_TOKEN).into_iter().flatten());
    codes.extend(operation.request_body.is_some().then_some(WITH_BODY).into_iter().flatten());
    for code in codes {
        add_problem(responses, code);
    }
    for response in responses.values_mut() {
        if let RefOr::T(response) = response {
            for name in ["RateLimit", "RateLimit-Policy", "traceparent"] {
                response.headers.insert(name.to_owned(), header_ref(name));
            }
        }
    }
}

/// A parameter that may be absent is never null: it is a text in an address or a header.
fn never_null(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(Parameter { schema: Some(RefOr::T(Schema::Object(object))), .. }) = parameter
        && let SchemaType::Array(types) = &mut object.schema_type
    {
        types.retain(|of| *of != Type::Null);
        if let [only] = &types[..] {
            object.schema_type = only.clone().into();
        }
    }
}

/// The responses of a handler that may answer with these problems.
pub(super) fn problem_responses(codes: &[Code]) -> Responses {
    let mut responses = Responses::new();
    for code in codes {
        add_problem(&mut responses, *code);
    }
    responses
}

fn add_problem(responses: &mut Responses, code: Code) {
    let response =
        responses.entry(code.status().to_string()).or_insert_with(|| problem_response(code).into());
    let RefOr::T(response) = response else { return };
    if let Some(RefOr::T(content)) = response.content.get_mut(Problem::MEDIA_TYPE) {
        let example = RefOr::Ref(Ref::new(format!("#/components/examples/{code}")));
        content.examples.insert(code.to_string(), example);
    }
}

fn problem_response(code: Code) -> Response {
    let status = StatusCode::from_u16(code.status()).ok();
    let reason = status.and_then(|status| status.canonical_reason()).unwrap_or("Problem");
    let schema = RefOr::<Schema>::Ref(Ref::from_schema_name("Problem"));
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let mut response =
        ResponseBuilder::new().description(reason).content(Problem::MEDIA_TYPE, content).build();
    if matches!(code.status(), 429 | 503) {
        response.headers.insert("Retry-After".to_owned(), header_ref("Retry-After"));
    }
    if code.status() == 401 {
        response.headers.insert("WWW-Authenticate".to_owned(), header_ref("WWW-Authenticate"));
    }
    response
}

fn header_ref(name: &str) -> RefOr<utoipa::openapi::header::Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{name}")))
}

fn example(code: Code) -> utoipa::openapi::example::Example {
    let trace_id = (code.status() >= 500).then(|| "4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
    let value = serde_json::to_value(Problem::new(code).trace_id(trace_id)).unwrap_or(Value::Null);
    ExampleBuilder::new().summary(code.title()).value(Some(value)).build()
}

fn describe_schemes(components: &mut Components) {
    let bearer = |text: &str| {
        SecurityScheme::Http(
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build(),
        )
    };
    let secret =
        ApiKeyValue::with_description("Order-Secret", "The secret of one order, from its reply or its mail.");
    components.security_schemes.extend(
        [
            ("session".to_owned(), bearer("The token that POST /v1/sessions gave.")),
            ("operator".to_owned(), bearer("The operators' token.")),
            ("order_secret".to_owned(), SecurityScheme::ApiKey(ApiKey::Header(secret))),
        ]
        .map(|(name, scheme)| (name, scheme.into())),
    );
}

fn describe_parameters(components: &mut Components) {
    let described = [
        (
            "Deadline-Ms",
            "How long you will wait for the answer, in milliseconds, 1 to 600000. Unless the gateway was told otherwise, \
             more than 30000 counts as 30000, less than 500 as 500, and nothing as 10000.",
            // A header is text; tools that validate it as an integer reject every value.
            text().pattern(Some("^([1-9][0-9]{0,4}|[1-5][0-9]{5}|600000)$")),
            Value::from("5000"),
        ),
        (
            "Priority",
            "RFC 9218. `u=4` to `u=7` lower the request's priority class; nothing raises it.",
            text(),
            Value::from("u=5"),
        ),
        (
            "traceparent",
            "W3C trace context. The request's own trace is a new one and links to it.",
            text(),
            Value::from("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ),
    ];
    for (name, description, schema, example) in described {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(schema))
            .example(Some(example))
            .build();
        components.parameters.insert(name.to_owned(), parameter.into());
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn describe_headers(components: &mut Components) {
    let described = [
        (
            "RateLimit",
            "What is left of the quota, and in how many seconds there is more \
             (draft-ietf-httpapi-ratelimit-headers-10). Absent when no quota applies.",
            r#""default";r=99;t=1"#,
        ),
        ("RateLimit-Policy", "The quota: so many in so many seconds.", r#""default";q=100;w=5"#),
        ("Retry-After", "Seconds after which asking again makes sense.", "1"),
        ("WWW-Authenticate", "The scheme of the token that is missing.", "Bearer"),
        (
            "traceparent",
            "W3C trace context of the request; quote it to an operator.",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ];
    for (name, description, example) in described {
        let header = HeaderBuilder::new()
            .schema(Some(text()))
            .description(Some(description))
            .example(Some(Value::from(example)))
            .build();
        components.headers.insert(name.to_owned(), header.into());
    }
}
