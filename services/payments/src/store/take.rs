//! Taking commands: one statement for a batch, after which the queue may forget them.

use std::collections::{HashMap, HashSet};

use stampede_contracts::StepId;
use stampede_contracts::command::PaymentCommand;
use stampede_contracts::event::PaymentResult;
use stampede_postgres::PgConnection;
use uuid::Uuid;

use super::Store;
use super::row::{OperationRow, interval, outcome};
use crate::domain::Operation;
use crate::events;

/// A command to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The command.
    pub command: PaymentCommand,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Taken {
    /// Came for the first time.
    pub new: usize,
    /// Those of them that are leased to this process: its workers begin at once.
    pub leased: Vec<Operation>,
    /// Came before with another content. The first one counts.
    pub contradictions: HashSet<StepId>,
    /// Came before and had an outcome, which is published again.
    pub republished: usize,
}

impl Store {
    /// Writes a batch of commands. Those that are new are leased to this process, as many as it has `room` for; the
    /// rest is there for whoever has. For those that have an outcome the result is published again.
    ///
    /// # Errors
    /// Of the database; then the batch has to come again.
    pub async fn take(&self, mut wanted: Vec<Wanted>, room: usize) -> Result<Taken, sqlx::Error> {
        // Sorted, so that two replicas that take the same commands wait for each other and never in a circle.
        wanted.sort_by_key(|wanted| wanted.command.step_id);
        wanted.dedup_by_key(|wanted| wanted.command.step_id);
        let new = self.insert(&wanted, room).await?;
        let mut taken = Taken { new: new.len(), ..Taken::default() };
        let mut again = HashMap::new();
        for Wanted { command, traceparent } in wanted {
            match new.get(&command.step_id.uuid()) {
                Some(true) => taken.leased.push(operation(&command, traceparent)),
                Some(false) => {}
                None => {
                    again.insert(command.step_id.uuid(), command);
                }
            }
        }
        if again.is_empty() {
            return Ok(taken);
        }
        let blocked = self.outbox.blocked().await?;
        let mut tx = self.pool.begin().await?;
        let results = known(&mut tx, &again, &mut taken).await?;
        let messages = results.iter().map(events::again).collect::<Result<Vec<_>, _>>();
        let mut messages = messages.map_err(|error| sqlx::Error::Encode(error.into()))?;
        // A result in a blocked lane is not repeated: the command will be, and then its result.
        messages.retain(|(order, result)| !blocked.has(order, result));
        taken.republished = messages.len();
        let stored = self.outbox.add_all(&mut tx, &messages).await?;
        tx.commit().await?;
        stored.nudge();
        Ok(taken)
    }

    /// The steps that are new, and whether they are leased to this process.
    async fn insert(&self, wanted: &[Wanted], room: usize) -> Result<HashMap<Uuid, bool>, sqlx::Error> {
        let commands = || wanted.iter().map(|wanted| &wanted.command);
        let steps: Vec<Uuid> = commands().map(|command| command.step_id.uuid()).collect();
        let orders: Vec<Uuid> = commands().map(|command| command.order_id.uuid()).collect();
        let actions: Vec<String> = commands().map(|command| command.action.as_str().to_owned()).collect();
        let amounts: Vec<i64> = commands().map(|command| command.amount.amount()).collect();
        let currencies: Vec<String> =
            commands().map(|command| command.amount.currency().to_string()).collect();
        let authorisations: Vec<Option<Uuid>> =
            commands().map(|command| command.authorisation.map(|step| step.uuid())).collect();
        let traceparents: Vec<Option<String>> =
            wanted.iter().map(|wanted| wanted.traceparent.clone()).collect();
        let rows = sqlx::query!(
            r#"INSERT INTO operation (step_id, order_id, action, amount, currency, authorisation, traceparent,
                                      due_at, leased_by, attempts)
               SELECT step_id, order_id, action, amount, currency, authorisation, traceparent,
                      CASE WHEN place <= $8 THEN now() + $9 ELSE now() END,
                      CASE WHEN place <= $8 THEN $10 END,
                      CASE WHEN place <= $8 THEN 1 ELSE 0 END
               FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::uuid[], $7::text[])
                    WITH ORDINALITY
                    AS new (step_id, order_id, action, amount, currency, authorisation, traceparent, place)
               ON CONFLICT (step_id) DO NOTHING
               RETURNING step_id, leased_by IS NOT NULL AS "is_leased!""#,
            &steps,
            &orders,
            &actions,
            &amounts,
            &currencies,
            &authorisations as &[Option<Uuid>],
            &traceparents as &[Option<String>],
            i64::try_from(room).unwrap_or(i64::MAX),
            interval(self.lease.length),
            self.lease.instance,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.step_id, row.is_leased)).collect())
    }
}

/// The results of those that have one. Notes contradictions.
async fn known(
    connection: &mut PgConnection,
    again: &HashMap<Uuid, PaymentCommand>,
    taken: &mut Taken,
) -> Result<Vec<PaymentResult>, sqlx::Error> {
    let steps: Vec<Uuid> = again.keys().copied().collect();
    let rows = sqlx::query!(
        "SELECT step_id, order_id, action, amount, currency, authorisation, given_up, attempts, traceparent,
                outcome, reference, reason
         FROM operation WHERE step_id = ANY($1)",
        &steps,
    )
    .fetch_all(connection)
    .await?;
    let mut results = Vec::new();
    for row in rows {
        let Some(command) = again.get(&row.step_id) else { continue };
        let first = OperationRow {
            step_id: row.step_id,
            order_id: row.order_id,
            action: row.action,
            amount: row.amount,
            currency: row.currency,
            authorisation: row.authorisation,
            given_up: row.given_up,
            attempts: row.attempts,
            traceparent: row.traceparent,
        }
        .operation()?;
        let is_same = (first.order, first.action, first.amount, first.authorisation)
            == (command.order_id, command.action, command.amount, command.authorisation);
        if !is_same {
            taken.contradictions.insert(command.step_id);
        } else if let Some(word) = row.outcome {
            let outcome = outcome(&word, row.reference, row.reason)?;
            results.push(PaymentResult {
                step_id: first.step,
                order_id: first.order,
                action: first.action,
                outcome,
            });
        }
    }
    Ok(results)
}

fn operation(command: &PaymentCommand, traceparent: Option<String>) -> Operation {
    Operation {
        step: command.step_id,
        order: command.order_id,
        action: command.action,
        amount: command.amount,
        authorisation: command.authorisation,
        is_given_up: false,
        attempts: 1,
        traceparent,
    }
}
