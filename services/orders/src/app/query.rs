//! Reading orders and tickets.

use stampede_contracts::{
    Code, OrderId, Problem, SessionId, TicketId, api,
    orders::{BuyerOf, CardOf},
    signed::SigningKey,
};

use super::{App, Error};
use crate::domain::OrderSecret;
use crate::wakeups::Subscription;

/// Who asks: a session, or whoever has the secret of an order, or both.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The session that the gateway verified.
    pub session: Option<SessionId>,
    /// What came as `Order-Secret`.
    pub secret: Option<OrderSecret>,
}

impl Caller {
    pub(super) fn may_see(&self, session: SessionId, secret: &OrderSecret) -> bool {
        let knows = |given: &OrderSecret| secret.matches(given.expose());
        self.session == Some(session) || self.secret.as_ref().is_some_and(knows)
    }
}

impl App {
    /// An order.
    ///
    /// # Errors
    /// [`Error::OrderNotFound`], also for strangers, or the database's.
    pub async fn order(&self, id: OrderId, caller: &Caller) -> Result<api::Order, Error> {
        let view = self.0.reads.order(id).await?.ok_or(Error::OrderNotFound)?;
        if !caller.may_see(view.order.session, &view.order.secret) {
            return Err(Error::OrderNotFound);
        }
        Ok(view.order.to_api(&view.tickets))
    }

    /// A page of a session's orders, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn orders(
        &self,
        session: SessionId,
        cursor: Option<OrderId>,
        limit: u32,
    ) -> Result<api::Page<api::Order>, Error> {
        // One more than is shown tells whether there is a next page.
        let mut views = self.0.reads.orders_of(session, cursor, limit.saturating_add(1)).await?;
        let has_more = views.len() > limit as usize;
        views.truncate(limit as usize);
        let last = views.last().map(|view| view.order.id.to_string());
        Ok(api::Page {
            items: views.iter().map(|view| view.order.to_api(&view.tickets)).collect(),
            next_cursor: last.filter(|_| has_more),
        })
    }

    /// Wakes whoever follows an order.
    pub fn follow(&self, id: OrderId) -> Subscription {
        self.0.wakeups.follow(id)
    }

    /// A ticket.
    ///
    /// # Errors
    /// [`Error::TicketNotFound`], also for strangers, or the database's.
    pub async fn ticket(&self, id: TicketId, caller: &Caller) -> Result<api::Ticket, Error> {
        let (ticket, access) = self.0.reads.ticket(id).await?.ok_or(Error::TicketNotFound)?;
        if !caller.may_see(access.session, &access.secret) {
            return Err(Error::TicketNotFound);
        }
        Ok(ticket.into())
    }

    /// The keys that verify ticket codes.
    pub fn ticket_keys(&self) -> api::TicketKeys {
        let public = |key: &SigningKey| {
            let key = key.verifying_key();
            api::TicketKey {
                kid: key.kid().to_owned(),
                kty: "OKP".to_owned(),
                crv: "Ed25519".to_owned(),
                x: key.jwk_x(),
            }
        };
        api::TicketKeys { keys: self.0.ticket_key.iter().map(public).collect() }
    }

    /// The card token of an order, for `payments`.
    ///
    /// # Errors
    /// `order_not_found`, or the database's.
    pub async fn card(&self, id: OrderId) -> Result<CardOf, Problem> {
        let card_token = self.0.lookups.card_token(id).await.map_err(Error::from)?;
        let card_token = card_token.ok_or_else(|| Problem::new(Code::OrderNotFound))?;
        Ok(CardOf { card_token })
    }

    /// What a mail needs, for `notify`.
    ///
    /// # Errors
    /// `order_not_found`, or the database's.
    pub async fn buyer(&self, id: OrderId) -> Result<BuyerOf, Problem> {
        let buyer = self.0.lookups.buyer(id).await.map_err(Error::from)?;
        let buyer = buyer.ok_or_else(|| Problem::new(Code::OrderNotFound))?;
        Ok(BuyerOf {
            name: buyer.name,
            email: buyer.email,
            show_title: buyer.facts.show.title,
            venue: buyer.facts.show.venue,
            starts_at: buyer.facts.show.starts_at,
            total: buyer.facts.total,
            order_secret: buyer.secret.expose().to_owned(),
            tickets: buyer.tickets.into_iter().map(api::Ticket::from).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_or_the_secret_opens_an_order_and_nothing_else_does() {
        let (session, secret) = (SessionId::new(), OrderSecret::from_random([1; 32]));
        let sees = |caller: Caller| caller.may_see(session, &secret);
        assert!(sees(Caller { session: Some(session), secret: None }));
        assert!(sees(Caller { session: Some(SessionId::new()), secret: Some(secret.clone()) }));
        assert!(!sees(Caller::default()));
        let other = Some(OrderSecret::from_random([2; 32]));
        assert!(!sees(Caller { session: Some(SessionId::new()), secret: other }));
    }
}
