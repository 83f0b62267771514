//! Double entry: what an outcome means for the books.

use stampede_contracts::Money;
use stampede_contracts::command::PaymentAction;
use stampede_contracts::event::PaymentOutcome;

/// An account of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// What the provider owes us.
    Receivable,
    /// What was sold.
    Sales,
    /// What was given back.
    Refunds,
}

impl Account {
    /// Its name in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receivable => "receivable:psp",
            Self::Sales => "sales",
            Self::Refunds => "refunds",
        }
    }
}

/// One line: a debit above zero, a credit below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The account.
    pub account: Account,
    /// Minor units.
    pub amount: i64,
}

/// The lines of an outcome; they sum to zero. Only a capture and a refund move money: an authorisation is a promise
/// of the card's bank, and a void the end of it.
pub fn entries(action: PaymentAction, outcome: &PaymentOutcome, amount: Money) -> Vec<Entry> {
    if !matches!(outcome, PaymentOutcome::Succeeded { .. }) {
        return Vec::new();
    }
    let (debit, credit) = match action {
        PaymentAction::Authorise | PaymentAction::Void => return Vec::new(),
        PaymentAction::Capture => (Account::Receivable, Account::Sales),
        PaymentAction::Refund => (Account::Refunds, Account::Receivable),
    };
    let amount = amount.amount();
    vec![Entry { account: debit, amount }, Entry { account: credit, amount: -amount }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_money_is_booked_twice_and_sums_to_zero() {
        let price = Money::try_new(4_500, "EUR".parse().unwrap()).unwrap();
        let done = PaymentOutcome::Succeeded { reference: "cap_1".to_owned() };
        for action in [PaymentAction::Capture, PaymentAction::Refund] {
            let entries = entries(action, &done, price);
            assert_eq!(entries.len(), 2);
            assert_eq!(entries.iter().map(|entry| entry.amount).sum::<i64>(), 0);
        }
        assert!(entries(PaymentAction::Authorise, &done, price).is_empty());
        let refused = PaymentOutcome::Refused { reason: "already_voided".to_owned() };
        assert!(entries(PaymentAction::Capture, &refused, price).is_empty());
    }

    #[test]
    fn a_full_refund_leaves_nothing_to_receive() {
        let price = Money::try_new(4_500, "EUR".parse().unwrap()).unwrap();
        let done = PaymentOutcome::Succeeded { reference: "x".to_owned() };
        let both =
            [PaymentAction::Capture, PaymentAction::Refund].map(|action| entries(action, &done, price));
        let receivable: i64 = both
            .iter()
            .flatten()
            .filter(|entry| entry.account == Account::Receivable)
            .map(|entry| entry.amount)
            .sum();
        assert_eq!(receivable, 0);
    }
}
