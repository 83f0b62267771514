//! Addresses in settings and files: `nats://nats:4222`.

/// Host and port of every address in a text. Without a port there is none.
pub fn addresses(text: &str) -> Vec<(String, Option<i32>)> {
    let rest = text.split("://").skip(1);
    rest.filter_map(|rest| {
        let end = |c: char| !(c.is_ascii_alphanumeric() || "-._:@".contains(c));
        let authority = rest.split(end).next()?;
        let authority = authority.rsplit('@').next()?;
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        (!host.is_empty()).then(|| (host.to_owned(), port.parse().ok()))
    })
    .collect()
}

/// The name of a Service of this namespace that a host means; nothing for what lies outside.
pub fn service_of(host: &str) -> Option<&str> {
    match host.split_once('.') {
        Some((name, rest)) if rest.ends_with("svc.cluster.local") => Some(name),
        Some(_) => None,
        None if host == "localhost" => None,
        None => Some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_found_in_any_text() {
        let found = addresses("a=http://nats:4222/x, [\"postgres://u:p@db:5432/d?x\", 'http://h']");
        let expected = [("nats", Some(4222)), ("db", Some(5432)), ("h", None)];
        assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)));
    }

    #[test]
    fn only_names_of_the_cluster_are_services() {
        let names = ["nats", "nats.stampede.svc.cluster.local", "localhost", "127.0.0.1", "mail.example"];
        assert_eq!(names.map(service_of), [Some("nats"), Some("nats"), None, None, None]);
    }
}
