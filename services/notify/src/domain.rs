//! What a mail says. Knows no SMTP and no database.

use std::fmt::Write as _;

use stampede_contracts::{
    OrderId,
    api::{Ticket, TicketState},
    command::MailKind,
    orders::BuyerOf,
};

/// A mail as a person reads it.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// Subject line.
    pub subject: String,
    /// For readers that show plain text.
    pub text: String,
    /// For readers that show HTML; the same words.
    pub html: String,
}

/// Writes the mail of `kind` about an order. None when it is about tickets that were revoked in the meantime: a mail
/// may wait for days, and its buyer should not arrive with tickets that are no longer valid.
pub fn letter(kind: MailKind, order: OrderId, buyer: &BuyerOf) -> Option<Letter> {
    Some(match kind {
        MailKind::Tickets => {
            let valid = buyer.tickets.iter().filter(|ticket| ticket.state == TicketState::Valid);
            let valid: Vec<&Ticket> = valid.collect();
            if valid.is_empty() {
                return None;
            }
            tickets(order, buyer, &valid)
        }
        MailKind::Cancelled => note(
            order,
            buyer,
            "Your order is cancelled",
            &format!("Your tickets are no longer valid. {} goes back to your card.", buyer.total),
        ),
        MailKind::Failed => note(
            order,
            buyer,
            "Your order could not be completed",
            "We could not complete your order. Nothing was charged, or it was given back.",
        ),
    })
}

fn tickets(order: OrderId, buyer: &BuyerOf, valid: &[&Ticket]) -> Letter {
    let mut text = format!(
        "Hello {},\n\nhere are your tickets for {} at {}, {}.\n\n",
        buyer.name, buyer.show_title, buyer.venue, buyer.starts_at
    );
    let mut html = format!(
        "<p>Hello {},</p><p>here are your tickets for <b>{}</b> at {}, {}.</p>",
        escape(&buyer.name),
        escape(&buyer.show_title),
        escape(&buyer.venue),
        buyer.starts_at
    );
    for ticket in valid {
        let seat = seat(ticket);
        // Writing into a String cannot fail.
        let _ = write!(text, "{seat}\n  ticket {}\n  code   {}\n\n", ticket.ticket_id, ticket.code);
        let _ = write!(
            html,
            "<p><b>{}</b><br>ticket {}<br><code style=\"word-break:break-all\">{}</code></p>",
            escape(&seat),
            ticket.ticket_id,
            escape(&ticket.code)
        );
    }
    let _ = write!(
        text,
        "Paid: {}\nOrder: {order}\nOrder secret (reads and cancels the order; keep it to yourself): {}\n",
        buyer.total, buyer.order_secret
    );
    let _ = write!(
        html,
        "<p>Paid: {}<br>Order: {order}<br>Order secret (reads and cancels the order; keep it to yourself): <code>{}</code></p>",
        buyer.total,
        escape(&buyer.order_secret)
    );
    Letter { subject: format!("Your tickets for {}", one_line(&buyer.show_title)), text, html }
}

fn note(order: OrderId, buyer: &BuyerOf, subject: &str, words: &str) -> Letter {
    let about = format!("{} at {}, {}", buyer.show_title, buyer.venue, buyer.starts_at);
    Letter {
        subject: format!("{subject}: {}", one_line(&buyer.show_title)),
        text: format!("Hello {},\n\n{words}\n\n{about}\nOrder: {order}\n", buyer.name),
        html: format!(
            "<p>Hello {},</p><p>{}</p><p>{}<br>Order: {order}</p>",
            escape(&buyer.name),
            escape(words),
            escape(&about)
        ),
    }
}

fn seat(ticket: &Ticket) -> String {
    match (&ticket.seat.row, ticket.seat.number) {
        (Some(row), Some(number)) => format!("{}, row {row}, seat {number}", ticket.seat.section),
        _ => format!("{}, free choice of place", ticket.seat.section),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

// A buyer chooses the name: it must not become markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use stampede_contracts::{Money, ShowId, TicketId, Timestamp, inventory::SeatLabel};

    use super::*;

    fn buyer(order_id: OrderId) -> BuyerOf {
        let seat =
            SeatLabel { seat_id: None, section: "Floor".into(), row: Some("C".into()), number: Some(12) };
        let ticket = Ticket {
            ticket_id: TicketId::new(),
            order_id,
            show_id: ShowId::new(),
            seat,
            state: TicketState::Valid,
            code: "tkt1.k.c.s".into(),
        };
        BuyerOf {
            name: "<b>Eve</b> & Co".into(),
            email: "eve@example.org".into(),
            show_title: "Night\r\nBcc: all@example.org".into(),
            venue: "The Club".into(),
            starts_at: Timestamp::now(),
            total: Money::try_new(4_500, "EUR".parse().unwrap()).unwrap(),
            order_secret: "s3cret".into(),
            tickets: vec![ticket],
        }
    }

    #[test]
    fn both_parts_say_the_seat_the_code_and_the_secret() {
        let order = OrderId::new();
        let letter = letter(MailKind::Tickets, order, &buyer(order)).unwrap();
        for part in [&letter.text, &letter.html] {
            for word in ["row C, seat 12", "tkt1.k.c.s", "s3cret", "45.00 EUR", &order.to_string()] {
                assert!(part.contains(word), "{word} in {part}");
            }
        }
    }

    #[test]
    fn of_revoked_tickets_there_is_no_mail_and_in_one_with_others_they_are_not() {
        let order = OrderId::new();
        let mut buyer = buyer(order);
        buyer.tickets[0].state = TicketState::Revoked;
        assert!(letter(MailKind::Tickets, order, &buyer).is_none());
        assert!(letter(MailKind::Cancelled, order, &buyer).is_some());

        let valid =
            Ticket { state: TicketState::Valid, code: "tkt1.valid".into(), ..buyer.tickets[0].clone() };
        buyer.tickets.push(valid);
        let text = letter(MailKind::Tickets, order, &buyer).unwrap().text;
        assert!(text.contains("tkt1.valid") && !text.contains("tkt1.k.c.s"), "{text}");
    }

    #[test]
    fn a_name_is_never_markup_and_a_title_never_a_header() {
        let order = OrderId::new();
        for kind in [MailKind::Tickets, MailKind::Cancelled, MailKind::Failed] {
            let letter = letter(kind, order, &buyer(order)).unwrap();
            assert!(letter.html.contains("&lt;b&gt;Eve&lt;/b&gt; &amp; Co"));
            assert!(!letter.subject.contains(['\r', '\n']));
        }
    }
}
