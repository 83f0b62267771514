//! Whom notify talks to: `orders` for the address, the mail server for the rest.

use std::{error::Error as _, time::Duration};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, MultiPart, header},
    transport::smtp::{self, PoolConfig},
};
use stampede_bus::{Bus, CallError};
use stampede_contracts::{
    Function, OrderId, StepId,
    orders::{Buyer, BuyerOf, OfOrder},
};
use stampede_service::Secret;

use crate::domain::Letter;

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Trying again cannot help: the address is none, or the mail server refused for good (5yz).
    #[error("refused for good: {0}")]
    Permanent(String),
    /// It may go later.
    #[error("not now: {0}")]
    Transient(String),
}

/// Asks `orders` for what a mail needs.
///
/// # Errors
/// [`CallError`].
pub async fn buyer(bus: &Bus, order_id: OrderId) -> Result<BuyerOf, CallError> {
    let subject = format!("rpc.{}.{}", Buyer::SERVICE, Buyer::NAME);
    bus.read::<Buyer>(subject, &OfOrder { order_id }).await
}

/// The mail server.
#[derive(Debug, Clone)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    timeout: Duration,
}

/// The mail server's address or the sender's is none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidMailer(String);

impl Mailer {
    /// For the server at `url`, with at most `connections` connections.
    ///
    /// # Errors
    /// When the URL or the sender cannot be read. The text does not repeat the URL: it may have a password.
    pub fn try_new(
        url: &Secret,
        from: &str,
        connections: u32,
        timeout: Duration,
    ) -> Result<Self, InvalidMailer> {
        let from =
            from.parse().map_err(|_| InvalidMailer(format!("MAIL_FROM: {from:?} is no mail address")))?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose())
            .map_err(|_| {
                InvalidMailer("SMTP_URL: expected smtp://host:port or smtps://host:port".to_owned())
            })?
            .pool_config(PoolConfig::new().max_size(connections))
            .timeout(Some(timeout))
            .build();
        Ok(Self { transport, from, timeout })
    }

    /// Sends one mail. The step is its `Message-ID`, so that a mail server or reader knows a duplicate.
    ///
    /// # Errors
    /// [`MailError`].
    pub async fn send(&self, step: StepId, to: &BuyerOf, letter: Letter) -> Result<(), MailError> {
        let address: Address =
            to.email.parse().map_err(|_| MailError::Permanent("not a mail address".to_owned()))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(Some(to.name.clone()), address))
            .subject(letter.subject)
            .message_id(Some(format!("<{step}@{}>", self.from.email.domain())))
            .header(header::MIME_VERSION_1_0)
            .multipart(MultiPart::alternative_plain_html(letter.text, letter.html))
            .map_err(|error| MailError::Permanent(error.to_string()))?;
        match tokio::time::timeout(self.timeout, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_permanent() => Err(MailError::Permanent(reason(&error))),
            Ok(Err(error)) => Err(MailError::Transient(reason(&error))),
            Err(_) => Err(MailError::Transient(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// Why, without the mail server's own words: servers repeat the address in them, and this text goes into the table,
/// the log and a dead letter. What was said word for word stands in the mail server's log.
fn reason(error: &smtp::Error) -> String {
    let words = error.source().map(ToString::to_string).unwrap_or_default();
    match error.status() {
        Some(code) => match enhanced_status(&words) {
            Some(status) => format!("the mail server says {code} {status}"),
            None => format!("the mail server says {code}"),
        },
        None if error.is_response() => "the mail server's answer cannot be read".to_owned(),
        None => error.to_string(),
    }
}

/// The enhanced status code (RFC 3463) at the beginning of an answer: digits and dots, nothing else.
fn enhanced_status(words: &str) -> Option<&str> {
    let first = words.split_whitespace().next()?;
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit());
    let is_status = first.split('.').count() == 3 && first.split('.').all(is_number);
    is_status.then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_only_the_numbers_are_kept() {
        assert_eq!(enhanced_status("5.1.1 <ada@example.org>: no such user"), Some("5.1.1"));
        assert_eq!(enhanced_status("4.2.2"), Some("4.2.2"));
        for words in ["", "ada@example.org", "5.1", "5.1.1.1", "5..1", "1234.1.1", "5.1.ada"] {
            assert_eq!(enhanced_status(words), None, "{words}");
        }
    }
}
