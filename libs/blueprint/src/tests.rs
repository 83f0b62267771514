//! What a file may say.

use serde_json::json;
use stampede_contracts::Class;

use crate::patch::patched;
use crate::{Blueprint, Guarantee, Sharing, Way};

const POLICY: &str = "
    deadline_ms = 4_000
    attempt_ms = 1_000
    breaker = { percent = 50, min_calls = 20, window_ms = 10_000, open_ms = 200, open_max_ms = 5_000, probes = 4 }
    bulkhead = { places = 64, waiting_max = 64, wait_ms = 100 }
";

fn with(more: &str) -> Result<Blueprint, crate::Invalid> {
    Blueprint::parse(&format!("service = 'payments'\nkind = 'service'\n{more}"))
}

fn refusal(more: &str) -> String {
    with(more).unwrap_err().to_string()
}

#[test]
fn a_file_says_what_there_is() {
    let blueprint = with(&format!(
        "[offers]
         pay = {{ by = 'cmd.payments.pay', guarantee = 'keyed', class = 'pay' }}
         read = {{ by = 'GET /v1/a/{{id}}', guarantee = 'safe', class = 'browse', deadline_ms = 5 }}
         [calls.orders]
         via = 'rpc'
         functions = {{ card = 'later' }}
         [calls.orders.policy]
         {POLICY}
         [database]
         pools = {{ requests = 8 }}
         wait_ms = 1
         statement_ms = 2
         lock_ms = 3
         tables = {{ entry = 'everything' }}"
    ))
    .unwrap();
    let (name, read) = blueprint.route("GET", "/v1/a/{id}").unwrap();
    assert_eq!((name, read.guarantee, read.class), ("read", Guarantee::Safe, Class::Browse));
    assert!(blueprint.route("POST", "/v1/a/{id}").is_none());
    assert_eq!(blueprint.offers["pay"].by, Way::Command("cmd.payments.pay".into()));
    assert_eq!(blueprint.database.as_ref().unwrap().tables["entry"], Sharing::Everything);
    let policies: Vec<_> = blueprint.policies().map(|(name, policy)| (name, policy.attempt_ms)).collect();
    assert_eq!(policies, [("orders", 1_000)]);
    // What is written is what was read.
    assert_eq!(Blueprint::parse(&toml::to_string(&blueprint).unwrap()).unwrap(), blueprint);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let offer =
        |rest: &str| refusal(&format!("[offers]\npay = {{ {rest}, guarantee = 'keyed', class = 'pay' }}"));
    assert!(offer("by = 'cmd.notify.mail'").starts_with("offers.pay: a service takes only"));
    assert!(offer("by = 'cmd.payments.pay', deadline_ms = 1").starts_with("offers.pay: what somebody waits"));
    assert!(offer("by = 'GET /a'").starts_with("offers.pay: what somebody waits"));
    for way in ["get /a", "GET a", "rpc ", "rpc", "payments", ""] {
        assert!(offer(&format!("by = '{way}'")).contains("expected `GET /path`"), "{way:?}");
    }
    assert!(refusal("tables = 1").contains("unknown field"));
    assert!(refusal("[offers]\na = { by = 'GET /a', guarantee = 'twice', class = 'pay' }").contains("twice"));
    let call = format!("[calls.a]\nvia = 'rpc'\nfunctions = {{}}\n[calls.a.policy]\n{POLICY}");
    let called = |via: &str| with(&call.replace("'rpc'", via)).unwrap().calls["a"].clone();
    for (via, is_repeated) in
        [("'rpc'", true), ("'http'", true), ("'http'\nservice = 'bank'", false), ("'smtp'", false)]
    {
        for patch in [
            json!({"retry": {"pause_ms": 5}}),
            json!({"hedge": {"per_mille": 5}}),
            json!({"budget": {"reserve": 5}}),
        ] {
            assert_eq!(called(via).patched(&patch).is_ok(), is_repeated, "{patch} over {via}");
        }
        assert!(called(via).patched(&json!({"breaker": {"percent": 5}})).is_ok());
    }
    let hasty = call.replace("attempt_ms = 1_000", "attempt_ms = 5_000");
    assert_eq!(refusal(&hasty), "calls.a.policy: attempt_ms must not be above deadline_ms");
}

#[test]
fn a_patch_replaces_what_it_names_and_makes_no_bad_policy() {
    let policy = toml::from_str(POLICY).unwrap();
    let changed = patched(&policy, &json!({"bulkhead": {"places": 8}, "stack": "off"})).unwrap();
    assert_eq!((changed.bulkhead.places, changed.bulkhead.waiting_max), (8, 64));
    assert_ne!(changed.stack, policy.stack);
    assert_eq!(patched(&policy, &json!({})).unwrap(), policy);
    for wrong in [
        json!({"attempt_ms": 5_000}),
        json!({"attempt_ms": null}),
        json!({"attempts": 1}),
        json!({"bulkhead": 8}),
        json!([]),
        json!("off"),
    ] {
        assert!(patched(&policy, &wrong).is_err(), "{wrong}");
    }
}
