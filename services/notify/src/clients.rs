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
    function::Idempotent,
    orders::{Buyer, BuyerOf, OfOrder},
};
use stampede_resilience::{Destination, Error, Meaning};
use tower::{Layer, ServiceExt, service_fn};

use crate::{config::Config, domain::Letter};

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Trying again cannot help: the address is none, or the mail server refused for good (5yz).
    #[error("refused for good: {0}")]
    Permanent(String),
    /// There is nothing to send any more: the tickets were revoked.
    #[error("withdrawn: {0}")]
    Withdrawn(&'static str),
    /// The mail server is well, and does not want it now (4yz).
    #[error("not now: {0}")]
    Transient(String),
    /// The mail server or `orders` is unavailable or unhealthy.
    #[error("not sent: {0}")]
    Unreachable(String),
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
    destination: Destination<Idempotent>,
}

/// The mail server's address or the sender's is none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidMailer(String);

impl Mailer {
    /// For the configured server, called as the policy of `destination` says.
    ///
    /// # Errors
    /// When the URL or the sender cannot be read. The text does not repeat the URL: it may have a password.
    pub fn try_new(config: &Config, destination: Destination<Idempotent>) -> Result<Self, InvalidMailer> {
        let Config { smtp_url, mail_from, concurrency, timeout, .. } = config;
        let from = mail_from
            .parse()
            .map_err(|_| InvalidMailer(format!("MAIL_FROM: {mail_from:?} is no mail address")))?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(smtp_url.expose())
            .map_err(|_| {
                InvalidMailer("SMTP_URL: expected smtp://host:port or smtps://host:port".to_owned())
            })?
            .pool_config(PoolConfig::new().max_size(*concurrency))
            .timeout(Some(*timeout))
            .build();
        Ok(Self { transport, from, timeout: *timeout, destination })
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
        if !self.destination.is_on() {
            return self.exchange(&message).await;
        }
        // Once: a mail that was not taken is a row that comes again by itself.
        let exchange = service_fn(|()| self.exchange(&message));
        self.destination.single(meaning).layer(exchange).oneshot(()).await.map_err(|error| match error {
            Error::Inner(error) => error,
            Error::TimedOut | Error::Open(_) | Error::Crowded(_) => MailError::Unreachable(error.to_string()),
        })
    }

    async fn exchange(&self, message: &Message) -> Result<(), MailError> {
        match tokio::time::timeout(self.timeout, self.transport.send(message.clone())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_permanent() => Err(MailError::Permanent(reason(&error))),
            Ok(Err(error)) if says_later(&error) => Err(MailError::Transient(reason(&error))),
            Ok(Err(error)) => Err(MailError::Unreachable(reason(&error))),
            Err(_) => Err(MailError::Unreachable(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// A mail server that refuses one mail, for good or for now, is well.
fn meaning(answer: Result<&(), &MailError>) -> Meaning {
    match answer {
        Ok(()) | Err(MailError::Permanent(_) | MailError::Withdrawn(_) | MailError::Transient(_)) => {
            Meaning::Answer
        }
        Err(MailError::Unreachable(_)) => Meaning::Unavailable(None),
    }
}

/// 4yz about this mail; 421 is about the server (RFC 5321, 3.8).
fn says_later(error: &smtp::Error) -> bool {
    error.is_transient() && error.status().is_some_and(|code| code.to_string() != "421")
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
