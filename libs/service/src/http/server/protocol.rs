//! What RFC 9110 and RFC 9112 have a server refuse and hyper lets in.

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Version, header};
use stampede_contracts::{Code, Problem};

/// The methods of RFC 9110 without CONNECT, PATCH of RFC 5789, and QUERY (draft-ietf-httpbis-safe-method-w-body). The
/// router decides which of them a resource takes.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];

/// The target of a request to the server as a whole.
pub(super) const ASTERISK: &str = "*";

/// Why the head of a request is refused before any route sees it. The connection ends then: if a request can be read in
/// two ways, so can the beginning of the next one.
pub(super) fn refuse(head: &Parts) -> Result<(), Problem> {
    let malformed = |detail: &str| Err(Problem::new(Code::MalformedRequest).detail(detail));
    codings(&head.headers)?;
    if !has_host(head) {
        return malformed("Host must come once and name a host.");
    }
    if !METHODS.contains(&head.method.as_str()) {
        return Err(Problem::new(Code::NotImplemented));
    }
    let is_web = head.uri.scheme().is_none_or(|scheme| ["http", "https"].contains(&scheme.as_str()));
    let fits = match (head.uri.path(), head.uri.authority()) {
        (ASTERISK, _) => head.method == Method::OPTIONS,
        // The form of CONNECT: an authority without a scheme before it.
        (_, Some(_)) => head.uri.scheme().is_some() && is_web,
        (path, None) => path.starts_with('/'),
    };
    if fits { Ok(()) } else { malformed("The address is not one of a resource here.") }
}

/// RFC 9112, 6.1: an unknown coding is 501. hyper checks that the last one is `chunked`, and closes the connection
/// after a request that also has a `Content-Length`.
fn codings(headers: &HeaderMap) -> Result<(), Problem> {
    let values = headers.get_all(header::TRANSFER_ENCODING);
    let codings = values.iter().flat_map(|value| value.to_str().unwrap_or_default().split(','));
    let mut chunked = 0;
    for coding in codings.map(str::trim).filter(|coding| !coding.is_empty()) {
        if !coding.eq_ignore_ascii_case("chunked") {
            return Err(Problem::new(Code::NotImplemented).detail("The only transfer coding is chunked."));
        }
        chunked += 1;
    }
    if chunked > 1 {
        return Err(Problem::new(Code::MalformedRequest).detail("A body is chunked once."));
    }
    Ok(())
}

/// RFC 9112, 3.2: exactly one `Host` since HTTP/1.1, and one that is none is refused in every version.
fn has_host(head: &Parts) -> bool {
    let mut values = head.headers.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (None, _) => head.version < Version::HTTP_11,
        (Some(host), None) if host.is_empty() => true,
        (Some(host), None) => {
            let authority = Authority::try_from(host.as_bytes());
            authority.is_ok_and(|authority| !authority.host().is_empty() && has_only_a_port(&authority))
        }
        (Some(_), Some(_)) => false,
    }
}

/// Beside the host: no user, and a port that is a number or left out.
fn has_only_a_port(authority: &Authority) -> bool {
    let beside = authority.as_str().strip_prefix(authority.host());
    beside.is_some_and(|beside| {
        let port = beside.strip_prefix(':');
        port.map_or(beside.is_empty(), |port| {
            port.is_empty()
                || (port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok())
        })
    })
}
