//! Schemas of the HTTP API that no derive macro can express.

use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type,
};
use utoipa::{PartialSchema, ToSchema};

use crate::api::NewHold;
use crate::event::{Row, SHOW_ROWS_MAX, SHOW_SEATS_MAX, Seating};
use crate::{SeatId, SectionId};

impl PartialSchema for NewHold {
    /// A choice of two objects, which the derive macro cannot express.
    fn schema() -> RefOr<Schema> {
        let best = ObjectBuilder::new()
            .title(Some("The best of a section"))
            .property("section", SectionId::schema())
            .property(
                "quantity",
                ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(8)),
            )
            .required("section")
            .required("quantity");
        let seats = ArrayBuilder::new()
            .items(SeatId::schema())
            .min_items(Some(1))
            .max_items(Some(8))
            .unique_items(true);
        let chosen = ObjectBuilder::new()
            .title(Some("Chosen seats, all in one block"))
            .property("seats", seats)
            .required("seats");
        let either =
            [best, chosen].map(|way| way.additional_properties(Some(AdditionalProperties::FreeForm(false))));
        either.into_iter().fold(OneOfBuilder::new(), OneOfBuilder::item).into()
    }
}

impl ToSchema for NewHold {}

impl PartialSchema for Seating {
    fn schema() -> RefOr<Schema> {
        let rows = ArrayBuilder::new().items(Row::schema()).min_items(Some(1)).max_items(Some(SHOW_ROWS_MAX));
        let places =
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(SHOW_SEATS_MAX));
        let rows = only("rows", rows.description(Some("Numbered seats, the best row first.")));
        let places = only("general_admission", places.description(Some("So many places without numbers.")));
        OneOfBuilder::new().item(rows).item(places).into()
    }
}

impl ToSchema for Seating {}

fn only(name: &str, of: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    let alone = ObjectBuilder::new().property(name, of).required(name);
    alone.additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

/// A dot-atom (RFC 5322, 3.2.3) of at most 64 characters and the name of a host. Letters beyond ASCII (RFC 6531) are taken as
/// well; the pattern leaves them out, because regular expressions differ in how they name a letter.
pub(crate) fn email() -> ObjectBuilder {
    let atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
    let label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^(?![^@]{{65}}){atom}(\\.{atom})*@{label}(\\.{label})+$")))
        .max_length(Some(254))
        .description(Some("Where the tickets are sent."))
        .examples([Value::from("ada@example.org")])
}
