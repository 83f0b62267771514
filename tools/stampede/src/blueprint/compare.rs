//! The rules: blueprints agree with each other, with the contracts, with the rights in NATS, and with the code.

use std::collections::{BTreeMap, BTreeSet};

use stampede_blueprint::{Access, Blueprint, Kind, Via, Way};
use stampede_contracts::topology::{BUCKETS, CONSUMERS, User, users};

use super::{Code, Contracts, System};

/// All broken rules, one sentence each. `code` has the code of every service, by name.
pub(crate) fn violations(
    system: &System,
    contracts: &Contracts,
    code: &BTreeMap<String, Code>,
) -> Vec<String> {
    let users = users();
    let mut broken = Vec::new();
    for (name, service) in &system.services {
        let Some(code) = code.get(name) else {
            broken.push(format!("{name}: its code cannot be read"));
            continue;
        };
        let mut one = One { name, blueprint: &service.blueprint, code, contracts, broken: &mut broken };
        one.routes();
        one.functions();
        one.commands();
        one.calls(system);
        one.tables();
        one.kind(system);
        if let Some(user) = users.iter().find(|user| user.name == name) {
            one.streams(user);
            one.buckets();
        }
    }
    broken
}

/// One service under inspection.
struct One<'a> {
    name: &'a str,
    blueprint: &'a Blueprint,
    code: &'a Code,
    contracts: &'a Contracts,
    broken: &'a mut Vec<String>,
}

impl One<'_> {
    fn say(&mut self, sentence: impl AsRef<str>) {
        self.broken.push(format!("{}: {}", self.name, sentence.as_ref()));
    }

    /// Both directions of "what is here is there".
    fn same(&mut self, what: &str, entries: &BTreeSet<String>, found: &BTreeSet<String>, section: &str) {
        for missing in found.difference(entries) {
            self.say(format!("the {what} {missing} has no entry in {section}"));
        }
        for dead in entries.difference(found) {
            self.say(format!("{section} has the {what} {dead}, which is not in the code"));
        }
    }

    fn routes(&mut self) {
        let offered = self.blueprint.offers.values().filter(|offer| matches!(offer.by, Way::Http { .. }));
        let entries = offered.map(|offer| offer.by.to_string()).collect();
        let found = self.code.routes.iter().map(ToString::to_string).collect();
        self.same("route", &entries, &found, "[offers]");
    }

    /// Functions over request-reply, and what contracts say of those and of routes.
    fn functions(&mut self) {
        let none = BTreeSet::new();
        let offered = self.code.types.get("on").unwrap_or(&none);
        let found: BTreeSet<String> = offered
            .iter()
            .filter_map(|name| self.contracts.functions.get(name))
            .filter(|declared| declared.service == self.name)
            .map(|declared| declared.name.clone())
            .collect();
        let of_rpc = |by: &Way| match by {
            Way::Rpc(function) => Some(function.clone()),
            Way::Http { .. } | Way::Command(_) => None,
        };
        let entries = self.blueprint.offers.values().filter_map(|offer| of_rpc(&offer.by)).collect();
        self.same("function", &entries, &found, "[offers]");

        for declared in self.contracts.functions.values().filter(|declared| declared.service == self.name) {
            let Some(offer) = self.blueprint.offers.get(&declared.name) else {
                self.broken.push(format!(
                    "{}: contracts declare {} ({}), which has no entry in [offers]",
                    self.name, declared.name, declared.by
                ));
                continue;
            };
            let said =
                (offer.by.to_string(), offer.guarantee.as_str(), offer.class.as_str(), offer.deadline_ms);
            let meant = (
                declared.by.to_string(),
                declared.guarantee.as_str(),
                declared.class.as_str(),
                Some(declared.deadline_ms),
            );
            if said != meant {
                self.broken.push(format!(
                    "{}: [offers] {} is {said:?}, and contracts declare {meant:?}",
                    self.name, declared.name
                ));
            }
        }
    }

    fn commands(&mut self) {
        for (name, offer) in &self.blueprint.offers {
            let Way::Command(subject) = &offer.by else { continue };
            let word = subject.rsplit('.').next().unwrap_or_default();
            if !self.contracts.words.contains(word) {
                self.broken.push(format!(
                    "{}: [offers] {name} takes {subject}, and contracts know no such command",
                    self.name
                ));
            }
        }
    }

    fn calls(&mut self, system: &System) {
        // What the code calls, by destination.
        let mut called: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (method, types) in &self.code.types {
            if method == "on" {
                continue;
            }
            for declared in types.iter().filter_map(|name| self.contracts.functions.get(name)) {
                if declared.service != self.name {
                    called.entry(declared.service.clone()).or_default().insert(declared.name.clone());
                }
            }
        }
        for (destination, functions) in &called {
            let entries = self.blueprint.calls.get(destination);
            let entries = entries.map(|call| call.functions.keys().cloned().collect()).unwrap_or_default();
            self.same("call of", &entries, functions, &format!("[calls.{destination}]"));
        }
        for (destination, call) in &self.blueprint.calls {
            let callee = system.callee(destination, call.service.as_deref());
            match (call.via, callee) {
                (Via::Rpc | Via::Http, None) => {
                    self.say(format!(
                        "[calls.{destination}] is no service; `service` names the one behind it"
                    ));
                }
                (Via::Rpc | Via::Http, Some(callee)) => {
                    for function in call.functions.keys() {
                        let offer = callee.blueprint.offers.get(function);
                        let fits = offer.is_some_and(|offer| match offer.by {
                            Way::Rpc(_) => call.via == Via::Rpc,
                            Way::Http { .. } => call.via == Via::Http,
                            Way::Command(_) => false,
                        });
                        if !fits {
                            let (callee, via) = (&callee.blueprint.service, call.via.as_str());
                            self.say(format!(
                                "[calls.{destination}] {function}: {callee} offers no such thing over {via}"
                            ));
                        }
                    }
                    let deadlines = system.called(destination, call).filter_map(|offer| offer.deadline_ms);
                    let (attempt, longest) = (call.policy.attempt_ms, deadlines.max());
                    if let Some(longest) = longest.filter(|longest| attempt > 2 * longest) {
                        self.say(format!(
                            "[calls.{destination}.policy] attempt_ms is {attempt}, which has no effect: its functions end \
                             after {longest} ms"
                        ));
                    }
                    if !called.contains_key(destination) {
                        self.by_name(destination, call.functions.keys());
                    }
                }
                (Via::Smtp, _) => self.by_name(destination, []),
                (Via::Jetstream, _) => self.publishing(destination, call.functions.keys()),
            }
        }
        if self.code.names.contains("Relay") && !self.blueprint.calls.contains_key("jetstream") {
            self.say("its outbox is published, and there is no [calls.jetstream]");
        }
    }

    /// A destination without contracts of ours is asked for by its name, and so are its functions.
    fn by_name<'n>(&mut self, destination: &'n str, functions: impl IntoIterator<Item = &'n String>) {
        for word in functions.into_iter().map(String::as_str).chain([destination]) {
            if self.code.texts.contains(word) {
                continue;
            }
            self.say(format!("[calls.{destination}] has {word}, of which the code says nothing"));
        }
    }

    fn publishing<'n>(&mut self, destination: &str, functions: impl IntoIterator<Item = &'n String>) {
        for function in functions {
            let has_code = match function.as_str() {
                "publish" => {
                    ["Relay", "publish_all", "publish"].iter().any(|name| self.code.names.contains(*name))
                }
                "dead_letter" => self.code.names.contains("DeadLetterKeeper"),
                _ => false,
            };
            if !has_code {
                self.say(format!("[calls.{destination}] has {function}, which the code does not do"));
            }
        }
    }

    fn tables(&mut self) {
        let entries =
            self.blueprint.database.iter().flat_map(|database| database.tables.keys().cloned()).collect();
        self.same("table", &entries, &self.code.tables.clone(), "[database.tables]");
        let Some(database) = &self.blueprint.database else { return };
        for pool in database.pools.keys().filter(|pool| *pool != "requests") {
            if !self.code.texts.contains(pool) {
                self.say(format!("[database] has the pool {pool}, which is not in the code"));
            }
        }
        if !database.pools.contains_key("requests") {
            self.say("[database] has no pool `requests`");
        }
    }

    /// Front-ends talk to logic and keep nothing; nobody but a service talks to third parties.
    fn kind(&mut self, system: &System) {
        if self.blueprint.kind == Kind::FrontEnd && self.blueprint.database.is_some() {
            self.say("a front-end has no database");
        }
        for (destination, call) in &self.blueprint.calls {
            let Some(callee) = system.callee(destination, call.service.as_deref()) else { continue };
            let allowed = match (self.blueprint.kind, callee.blueprint.kind) {
                (Kind::FrontEnd, to) => to == Kind::Logic,
                (Kind::Logic, to) => to == Kind::Logic || to == Kind::Service,
                (Kind::Service, to) => to == Kind::Logic || to == Kind::Outside,
                (Kind::Outside, _) => false,
            };
            if !allowed {
                let (from, to) = (self.blueprint.kind.as_str(), callee.blueprint.kind.as_str());
                self.say(format!("[calls.{destination}]: {from} does not talk to {to}"));
            }
        }
    }

    /// The rights of its user in NATS are what the code can do: each has an entry, and each entry has its right.
    fn streams(&mut self, user: &User) {
        let mut publishes = BTreeSet::new();
        let mut takes = BTreeSet::new();
        let mut replays = BTreeSet::new();
        for (stream, entry) in &self.blueprint.streams {
            publishes.extend(entry.publishes.iter().map(|subject| published(subject)));
            takes.extend(entry.takes.iter().map(|consumer| format!("{stream} {consumer}")));
            if !entry.replays.is_empty() {
                replays.insert(stream.clone());
            }
        }
        let rights = user.publish.iter();
        let allowed =
            rights.filter(|right| ["evt.", "cmd.", "dlq."].iter().any(|begin| right.starts_with(begin)));
        let allowed = allowed.map(|right| published(right)).collect();
        self.same("published subject", &publishes, &allowed, "[streams]");

        let bound = CONSUMERS.iter().filter(|consumer| consumer.service == self.name);
        let bound = bound.map(|consumer| format!("{} {}", consumer.stream, consumer.name)).collect();
        self.same("consumer", &takes, &bound, "[streams]");

        let readers = user.publish.iter().filter_map(|right| {
            let made = right.strip_prefix("$JS.API.CONSUMER.CREATE.");
            made.or_else(|| right.strip_prefix("$JS.API.STREAM.MSG.GET."))
        });
        let taken: BTreeSet<&str> = CONSUMERS
            .iter()
            .filter(|consumer| consumer.service == self.name)
            .map(|consumer| consumer.stream)
            .collect();
        // Who publishes to a stream may look up the last message of its own there.
        let own =
            |stream: &str| self.blueprint.streams.get(stream).is_some_and(|own| !own.publishes.is_empty());
        let readers =
            readers.filter(|stream| !stream.starts_with("KV_") && !taken.contains(stream) && !own(stream));
        let readers = readers.map(str::to_owned).collect();
        self.same("replayed stream", &replays, &readers, "[streams]");

        // A right names the function, whatever stands between it and the service.
        let asked = user.publish.iter().filter_map(|right| {
            let (service, rest) = right.strip_prefix("rpc.")?.split_once('.')?;
            Some(format!("{service} {}", rest.rsplit('.').next()?))
        });
        let asked = asked.collect();
        let calls = self.blueprint.calls.iter().filter(|(_, call)| call.via == Via::Rpc);
        let calls = calls
            .flat_map(|(name, call)| call.functions.keys().map(move |function| format!("{name} {function}")))
            .collect();
        self.same("right to call", &calls, &asked, "[calls]");
        self.events();
    }

    /// Every subject that is published belongs to an event that the code makes.
    fn events(&mut self) {
        let made: Vec<&str> = self
            .contracts
            .subjects
            .iter()
            .filter(|(name, _)| self.code.names.contains(*name))
            .map(|(_, subject)| subject.as_str())
            .collect();
        let entries: Vec<String> =
            self.blueprint.streams.values().flat_map(|stream| stream.publishes.iter().cloned()).collect();
        for subject in entries {
            let fixed = subject.trim_end_matches(['>', '*']);
            let is_laid_aside = fixed.starts_with("dlq.") && self.code.names.contains("DeadLetterKeeper");
            if !is_laid_aside && !made.iter().any(|made| made.starts_with(fixed)) {
                self.say(format!("[streams] publishes {subject}, and the code makes no such event"));
            }
        }
    }

    fn buckets(&mut self) {
        let entry = |access| {
            let of = self.blueprint.buckets.iter().filter(move |(_, bucket)| bucket.access == access);
            of.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>()
        };
        let (writes, reads) = (entry(Access::Writes), entry(Access::Reads));
        let named = |found: bool, name: &str| found.then(|| name.to_owned());
        let written =
            BUCKETS.iter().filter_map(|bucket| named(bucket.writer == self.name, bucket.name)).collect();
        let read = BUCKETS
            .iter()
            .filter_map(|bucket| named(bucket.readers.contains(&self.name), bucket.name))
            .collect();
        self.same("written bucket", &writes, &written, "[buckets]");
        self.same("read bucket", &reads, &read, "[buckets]");
    }
}

/// Rights and entries are the same subjects; only of dead letters a right says also whose, and an entry does not.
fn published(subject: &str) -> String {
    match subject.strip_prefix("dlq.").and_then(|rest| rest.split('.').next()) {
        Some(service) => format!("dlq.{service}"),
        None => subject.to_owned(),
    }
}

#[cfg(test)]
mod tests;
