//! How urgent each function of the door is, as the blueprint says it.

use std::collections::HashMap;

use http::Method;
use stampede_blueprint::{Blueprint, Way};
use stampede_contracts::Class;

/// The class of every route.
#[derive(Debug)]
pub struct Classes(HashMap<String, Vec<(Method, Class)>>);

impl Classes {
    /// Those that a blueprint offers over HTTP.
    pub fn of(blueprint: &Blueprint) -> Self {
        let mut classes: HashMap<_, Vec<_>> = HashMap::new();
        for offer in blueprint.offers.values() {
            if let Way::Http { method, path } = &offer.by
                && let Ok(method) = method.parse()
            {
                classes.entry(path.clone()).or_default().push((method, offer.class));
            }
        }
        Self(classes)
    }

    /// The class of what a request asks for, by the template of its path. What nobody offers is the least urgent.
    pub fn class(&self, method: &Method, template: Option<&str>) -> Class {
        // RFC 9110, 9.3.2: HEAD is GET without the content.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let offered = template.and_then(|template| self.0.get(template)).into_iter().flatten();
        offered.into_iter().find(|(offered, _)| offered == method).map_or(Class::Browse, |(_, class)| *class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IDENTITY;

    #[test]
    fn whoever_is_nearer_to_a_ticket_is_more_urgent() {
        let classes = Classes::of(&Blueprint::parse(IDENTITY.blueprint).unwrap());
        for (method, template, class) in [
            (Method::POST, "/v1/orders", Class::Pay),
            (Method::GET, "/v1/orders/{order_id}/events", Class::Pay),
            (Method::GET, "/v1/tickets/{ticket_id}", Class::Pay),
            (Method::POST, "/v1/shows/{show_id}/holds", Class::Hold),
            (Method::DELETE, "/v1/holds/{hold_id}", Class::Hold),
            (Method::POST, "/v1/shows/{show_id}/lobby", Class::Join),
            (Method::GET, "/v1/lobby/{lobby_ticket}/events", Class::Join),
            (Method::POST, "/v1/sessions", Class::Join),
            (Method::GET, "/v1/shows", Class::Browse),
            (Method::HEAD, "/v1/holds/{hold_id}", Class::Hold),
            (Method::PUT, "/v1/orders", Class::Browse),
            (Method::GET, "/docs/{*rest}", Class::Browse),
        ] {
            assert_eq!(classes.class(&method, Some(template)), class, "{method} {template}");
        }
        assert_eq!(classes.class(&Method::GET, None), Class::Browse);
    }
}
