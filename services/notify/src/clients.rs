//! Whom notify talks to: `orders` for the address, the mail server for the rest.

use std::time::Duration;

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, MultiPart, header},
    transport::smtp::PoolConfig,
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
    bus.call_repeatedly::<Buyer>(subject, &OfOrder { order_id }).await
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
            Ok(Err(error)) if error.is_permanent() => Err(MailError::Permanent(error.to_string())),
            Ok(Err(error)) => Err(MailError::Transient(error.to_string())),
            Err(_) => Err(MailError::Transient(format!("no answer within {:?}", self.timeout))),
        }
    }
}
