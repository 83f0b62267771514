//! Each rule, seen broken on a copy of the tree with one line changed.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::scratch::Scratch;

/// The parts of a checkout that are compared, to be changed.
struct Tree(Scratch);

impl Tree {
    fn copy() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tree = Self(Scratch::new("blueprints").unwrap());
        for part in ["libs/contracts/src", "services", "tools"] {
            copy(&root.join(part), &tree.path(part));
        }
        tree
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// With `from` in a file replaced by `to`, what is found; the file is as before afterwards.
    fn with(&self, file: &str, from: &str, to: &str) -> String {
        let before = fs::read_to_string(self.path(file)).unwrap();
        assert!(before.contains(from), "{file} has no {from}");
        fs::write(self.path(file), before.replace(from, to)).unwrap();
        let found = self.check().map_or_else(|error| format!("{error:#}"), |broken| broken.join("\n"));
        fs::write(self.path(file), before).unwrap();
        found
    }

    fn check(&self) -> anyhow::Result<Vec<String>> {
        let system = System::read(self.0.path())?;
        let contracts = Contracts::read(self.0.path())?;
        let read = |(name, service): (&String, &super::super::system::Service)| {
            (name.clone(), Code::read(&service.folder).unwrap())
        };
        Ok(violations(&system, &contracts, &system.services.iter().map(read).collect()))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if path
            .extension()
            .is_some_and(|kind| ["rs", "toml", "sql"].iter().any(|known| kind == *known))
        {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

#[test]
fn the_tree_is_as_its_blueprints_say_and_every_difference_is_found() {
    let tree = Tree::copy();
    assert_eq!(tree.check().unwrap(), Vec::<String>::new());
    let mut missed = Vec::new();
    let orders = "services/orders/blueprint.toml";
    let gateway = "services/gateway/blueprint.toml";
    for (file, from, to, expected) in [
        // Routes.
        (orders, "get_ticket = {", "no_ticket = {", "contracts declare get_ticket"),
        (orders, "GET /v1/ticket-keys", "GET /v1/keys", "the route GET /v1/ticket-keys has no entry"),
        (orders, "GET /v1/ticket-keys", "GET /v1/keys", "the route GET /v1/keys, which is not in the code"),
        (
            "services/lobby/src/http.rs",
            "get(read)",
            "post(read)",
            "POST /v1/lobby/{lobby_ticket} has no entry",
        ),
        (gateway, "welcome =", "# welcome =", "the route GET / has no entry"),
        // Functions over request-reply.
        (orders, "\"rpc card\"", "\"rpc cards\"", "the function card has no entry"),
        (
            "services/inventory/src/rpc.rs",
            "on!(responder, FreeHold, free);",
            "responder;",
            "the function free, which is not in the code",
        ),
        (
            orders,
            "card = { by = \"rpc card\", guarantee = \"safe\"",
            "card = { by = \"rpc card\", guarantee = \"keyed\"",
            "[offers] card is",
        ),
        (
            "libs/contracts/src/inventory.rs",
            "\"hold\", Keyed, Hold, 3_000",
            "\"hold\", Keyed, Hold, 4_000",
            "[offers] hold is",
        ),
        // Commands.
        (
            "services/payments/blueprint.toml",
            "cmd.payments.refund",
            "cmd.payments.refunds",
            "contracts know no such command",
        ),
        // Calls.
        (orders, "attach = \"later\"\n", "", "the call of attach has no entry in [calls.inventory]"),
        (
            orders,
            "attach = \"later\"",
            "attach = \"later\"\nhold = \"later\"",
            "the call of hold, which is not in the code",
        ),
        (gateway, "list_orders = \"problem\"\n", "", "the call of list_orders has no entry"),
        ("services/payments/blueprint.toml", "service = \"psp-sim\"\n", "", "[calls.provider] is no service"),
        (
            "services/payments/blueprint.toml",
            "look_up = \"later\"",
            "look = \"later\"",
            "psp-sim offers no such thing",
        ),
        (orders, "attempt_ms = 4_000", "attempt_ms = 7_000", "attempt_ms is 7000, which has no effect"),
        (orders, "[calls.jetstream", "[calls.streams", "there is no [calls.jetstream]"),
        (orders, "publish = \"later\"", "send = \"later\"", "[calls.jetstream] has send"),
        // Rights.
        (
            "services/lobby/src/clients.rs",
            "call_repeatedly::<ClosePass>",
            "call_repeatedly",
            "close_pass, of which the code says nothing",
        ),
        (
            orders,
            "\"evt.orders.order.v1.>\"",
            "\"evt.order.order.v1.>\"",
            "the published subject evt.orders.order.v1.> has no entry",
        ),
        (orders, "\"evt.orders.order.v1.>\"", "\"evt.orders.order.v2.>\"", "the code makes no such event"),
        (
            orders,
            "\"orders-mails\"",
            "\"orders-letters\"",
            "the consumer EVT_FACTS orders-mails has no entry",
        ),
        (
            "services/catalog/blueprint.toml",
            "replays = [\"evt.inventory.>\"]\n",
            "",
            "the replayed stream EVT_INVENTORY has no entry",
        ),
        (gateway, "get = \"problem\"\n", "", "the right to call inventory get has no entry in [calls]"),
        // State.
        (orders, "ticket = \"everything\"\n", "", "the table ticket has no entry"),
        (
            orders,
            "ticket = \"everything\"",
            "ticket = \"everything\"\ntickets = \"nothing\"",
            "the table tickets, which is not in the code",
        ),
        (orders, "lookups = 2", "lookouts = 2", "the pool lookouts, which is not in the code"),
        (
            "services/inventory/blueprint.toml",
            "[buckets.layout]",
            "[buckets.plan]",
            "the written bucket layout has no entry",
        ),
        (
            gateway,
            "[buckets.layout]\naccess = \"reads\"",
            "[buckets.layout]\naccess = \"writes\"",
            "the read bucket layout has no entry",
        ),
        // Kinds.
        (
            "services/orders/blueprint.toml",
            "kind = \"logic\"",
            "kind = \"service\"",
            "front-end does not talk to service",
        ),
    ] {
        let found = tree.with(file, from, to);
        if !found.contains(expected) {
            missed.push(format!("{file}: {from} → {to} found:\n{found}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}
