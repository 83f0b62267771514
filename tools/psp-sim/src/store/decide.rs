//! What the ledger says about a request, locked while it is decided.

use crate::card::Card;
use crate::domain::{self, Authorisation, Capture, Decision, Request, Status};
use stampede_postgres::PgConnection;

/// Reads what a decision needs, locks it until the end of the transaction, and decides.
pub(super) async fn decide(
    connection: &mut PgConnection,
    request: &Request,
) -> Result<(Option<String>, Decision), sqlx::Error> {
    Ok(match request {
        Request::Authorise { amount, reference, .. } => {
            (None, domain::authorise(request.card(), *amount, reference))
        }
        Request::Capture { authorisation: id } => {
            (Some(id.clone()), domain::capture(authorisation(connection, id).await?.as_ref()))
        }
        Request::Void { authorisation: id } => {
            (Some(id.clone()), domain::void(authorisation(connection, id).await?.as_ref()))
        }
        Request::Refund { capture: id, amount } => {
            (Some(id.clone()), domain::refund(capture(connection, id).await?.as_ref(), *amount))
        }
    })
}

async fn authorisation(
    connection: &mut PgConnection,
    id: &str,
) -> Result<Option<Authorisation>, sqlx::Error> {
    let locked = sqlx::query!(
        r#"SELECT amount AS "amount!", currency AS "currency!", reference AS "reference!", card
           FROM operation WHERE id = $1 AND status = 'authorised' FOR UPDATE"#,
        id,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = locked else { return Ok(None) };
    // A statement of its own, because only one that begins after the lock was granted sees what its last owner did.
    let end = sqlx::query_scalar!(
        "SELECT status FROM operation WHERE about = $1 AND status IN ('captured', 'voided')",
        id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(Some(Authorisation {
        amount: row.amount,
        currency: row.currency,
        reference: row.reference,
        card: row.card.as_deref().and_then(Card::from_word),
        end: end.as_deref().and_then(Status::from_word),
    }))
}

async fn capture(connection: &mut PgConnection, id: &str) -> Result<Option<Capture>, sqlx::Error> {
    let locked = sqlx::query!(
        r#"SELECT amount AS "amount!", currency AS "currency!", reference AS "reference!"
           FROM operation WHERE id = $1 AND status = 'captured' FOR UPDATE"#,
        id,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = locked else { return Ok(None) };
    let refunded = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(amount), 0)::bigint AS "refunded!" FROM operation
           WHERE about = $1 AND status = 'refunded'"#,
        id,
    )
    .fetch_one(connection)
    .await?;
    Ok(Some(Capture { amount: row.amount, currency: row.currency, reference: row.reference, refunded }))
}
