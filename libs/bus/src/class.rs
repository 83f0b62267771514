//! Asking with less urgency than a function has by itself.

use stampede_contracts::Class;

tokio::task_local! {
    static WISH: Class;
}

/// Runs `work`, and whatever it asks of other nodes travels with `class` where that is lower than the function's own.
/// Nothing is ever raised. A spawned task does not inherit it.
pub async fn with_class<F: Future>(class: Class, work: F) -> F::Output {
    WISH.scope(class, work).await
}

/// The class that a call of a function travels with.
pub(crate) fn of_call(function: Class) -> Class {
    WISH.try_with(|wish| function.max(*wish)).unwrap_or(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wish_lowers_and_never_raises() {
        assert_eq!(of_call(Class::Hold), Class::Hold);
        with_class(Class::Join, async {
            assert_eq!(of_call(Class::Hold), Class::Join);
            assert_eq!(of_call(Class::Browse), Class::Browse);
        })
        .await;
    }
}
