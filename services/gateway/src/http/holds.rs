//! Holds: asked of the owner of the seats over NATS.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header::LOCATION};
use stampede_bus::with_class;
use stampede_contracts::inventory::{HoldOf, HoldState, HoldView, PlaceHold, Want};
use stampede_contracts::{Class, Code, HoldId, Problem, ShowId, api};
use stampede_idempotency::Fingerprinter;
use stampede_service::extract::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::examples;
use super::extract::{Id, IdempotencyKey, LobbyPass, Priority, RawJson, Session};
use super::openapi::problems;
use crate::app::App;
use crate::clients::layout::Layout;

/// More seats than any rule allows in one hold: inventory has the true, lower bound.
const SEATS_MAX: usize = 100;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(place)).routes(routes!(read, release))
}

problems!(
    PlaceProblems:
    MalformedRequest, InvalidParameter, KeyMissing, KeyMalformed, PassRequired, PassInvalid, ShowNotFound,
    SectionNotFound, SeatNotFound, SeatsTaken, HoldExists, PassClosed, NotOnSale, KeyInProgress, ValidationFailed,
    KeyReused, SeatsSpanBlocks
);
problems!(HoldProblems: InvalidParameter, HoldNotFound);
problems!(ReleaseProblems: InvalidParameter, HoldNotFound, HoldAttached);

/// Hold seats.
///
/// Say a `section` and a `quantity` for the best there are, or `seats` for chosen ones, all of one block. A session has
/// one live hold a show. The same key and body again give the same answer, byte for byte; 409 changed nothing, and the
/// same key may succeed later.
#[utoipa::path(
    post,
    path = "/v1/shows/{show_id}/holds",
    tag = "Buy",
    operation_id = "place_hold",
    params(
        ("show_id" = ShowId, Path, description = "The show."),
        ("Idempotency-Key" = String, Header,
            pattern = r##"^("([!#-\[\]-~]|\\["\\]){1,255}"|[!#$%&'*+.^_`|~:/0-9A-Za-z-]{1,255})$"##,
            description = "Names this hold: a quoted string or a bare word of at most 255 characters. A new one for each, and the same for a repeat. Kept for 24 hours."),
        ("Lobby-Pass" = Option<String>, Header, description = "The lobby's pass, if the show has a lobby."),
    ),
    request_body(content = api::NewHold, examples(
        ("best" = (summary = "The best of a section",
            value = json!(examples::best()))),
        ("chosen" = (summary = "Chosen seats", value = json!(examples::chosen()))),
    )),
    security(("session" = [])),
    responses((
        status = 201,
        description = "The seats are held until `expires_at`.",
        body = api::Hold,
        headers(("Location" = String, description = "Where to read and release the hold.")),
        example = json!(examples::hold()),
    ), PlaceProblems),
)]
async fn place(
    State(app): State<App>,
    Session(session): Session,
    Id(show): Id<ShowId>,
    IdempotencyKey(key): IdempotencyKey,
    LobbyPass(pass): LobbyPass,
    priority: Priority,
    body: RawJson<api::NewHold>,
) -> Result<Response, Problem> {
    // The canonical path, not the one that was sent: one show has one spelling.
    let path = format!("/v1/shows/{show}/holds");
    let fingerprint = |by: &Fingerprinter| hex(by.fingerprint(&[path.as_bytes(), &body.bytes]).as_bytes());
    let fingerprints = app.fingerprinter.map(fingerprint);
    let wish = PlaceHold {
        session,
        key: key.to_string(),
        fingerprint: fingerprints.current,
        other_fingerprints: fingerprints.others,
        show,
        want: want(show, body.value, &app.layout)?,
        pass,
        block: None,
    };
    let held = with_class(priority.class(Class::Hold), app.inventory.hold(wish)).await?;
    // What a repeat finds has moved on, but the reply is the one to the holding: byte for byte what it was.
    let hold = api::Hold { state: HoldState::Held, ..shown(held) };
    let location = format!("/v1/holds/{}", hold.hold_id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(hold)).into_response())
}

/// Read a hold.
#[utoipa::path(
    get,
    path = "/v1/holds/{hold_id}",
    tag = "Buy",
    operation_id = "get_hold",
    params(("hold_id" = HoldId, Path, description = "The hold.")),
    security(("session" = [])),
    responses((status = 200, description = "The hold.", body = api::Hold, example = json!(examples::hold())), HoldProblems),
)]
async fn read(
    State(app): State<App>,
    Session(session): Session,
    Id(hold_id): Id<HoldId>,
    priority: Priority,
) -> Result<Json<api::Hold>, Problem> {
    let asked = app.inventory.get(HoldOf { hold_id, session });
    let hold = with_class(priority.class(Class::Hold), asked).await?;
    Ok(Json(shown(hold)))
}

/// Release a hold.
///
/// One that has ended already is no error; one that belongs to an order is.
#[utoipa::path(
    delete,
    path = "/v1/holds/{hold_id}",
    tag = "Buy",
    operation_id = "release_hold",
    params(("hold_id" = HoldId, Path, description = "The hold.")),
    security(("session" = [])),
    responses((status = 204, description = "The seats are free."), ReleaseProblems),
)]
async fn release(
    State(app): State<App>,
    Session(session): Session,
    Id(hold_id): Id<HoldId>,
    priority: Priority,
) -> Result<StatusCode, Problem> {
    let asked = app.inventory.release(HoldOf { hold_id, session });
    with_class(priority.class(Class::Hold), asked).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a body asks for, if it makes sense.
fn want(show: ShowId, hold: api::NewHold, layout: &Layout) -> Result<Want, Problem> {
    let refuse = |detail: &str| Err(Problem::new(Code::ValidationFailed).detail(detail));
    match hold {
        api::NewHold { section: Some(section), quantity: Some(quantity), seats: None } => {
            if quantity == 0 {
                return refuse("quantity must be at least 1.");
            }
            Ok(Want::Best { section, quantity })
        }
        api::NewHold { section: None, quantity: None, seats: Some(seats) } => {
            if seats.is_empty() || seats.len() > SEATS_MAX {
                return refuse("seats must name at least one seat, and not as many as that.");
            }
            if seats.iter().any(|seat| seat.block != seats[0].block) {
                let is_unknown = seats.iter().any(|seat| layout.lacks(show, seat.block));
                return Err(Problem::new(if is_unknown {
                    Code::SeatNotFound
                } else {
                    Code::SeatsSpanBlocks
                }));
            }
            Ok(Want::Seats(seats))
        }
        _ => refuse("Send either section and quantity, or seats."),
    }
}

/// What a buyer sees of a hold.
fn shown(hold: HoldView) -> api::Hold {
    api::Hold {
        hold_id: hold.hold_id,
        show_id: hold.show_id,
        section_id: hold.section_id,
        quantity: hold.quantity,
        seats: hold.seats,
        total: hold.total,
        expires_at: hold.expires_at,
        state: hold.state,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(json: &str) -> Result<Want, Code> {
        want(ShowId::new(), serde_json::from_str(json).unwrap(), &Layout::default())
            .map_err(|problem| problem.code)
    }

    #[test]
    fn one_of_the_two_ways_and_nothing_between() {
        let section = r#""section":"sec_0192f0c1a2b37c4d8e5f60718293a4b5""#;
        assert!(matches!(
            asked(&format!(r#"{{{section},"quantity":2}}"#)),
            Ok(Want::Best { quantity: 2, .. })
        ));
        assert!(matches!(asked(r#"{"seats":["b1-0","b1-1"]}"#), Ok(Want::Seats(seats)) if seats.len() == 2));
        for wrong in [
            "{}".to_owned(),
            format!("{{{section}}}"),
            r#"{"quantity":1}"#.to_owned(),
            format!(r#"{{{section},"quantity":0}}"#),
            format!(r#"{{{section},"quantity":1,"seats":["b1-0"]}}"#),
            r#"{"seats":[]}"#.to_owned(),
            format!(r#"{{"seats":[{}]}}"#, vec![r#""b1-0""#; 101].join(",")),
        ] {
            assert_eq!(asked(&wrong), Err(Code::ValidationFailed), "{wrong}");
        }
        assert_eq!(asked(r#"{"seats":["b1-0","b2-0"]}"#), Err(Code::SeatsSpanBlocks));
    }
}
