//! Users and rights as declared.

use stampede_contracts::topology::{User, users};

/// Configuration for [`Nats::start_with_config`](crate::Nats::start_with_config): the users of
/// [`stampede_contracts::topology`] with their rights, each with its name as its password. A test that needs more than
/// a real run has fails under it.
pub fn rights() -> String {
    let list = |subjects: &[String]| {
        subjects.iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ")
    };
    let user = |User { name, publish, subscribe, allow_responses }: User| {
        let (publish, subscribe) = (list(&publish), list(&subscribe));
        format!(
            "{{ user: {name}, password: {name}, permissions: {{ publish: [ {publish}], subscribe: [ {subscribe}], \
             allow_responses: {allow_responses} }} }}\n"
        )
    };
    format!("authorization {{ users: [\n{}] }}\n", users().into_iter().map(user).collect::<String>())
}
