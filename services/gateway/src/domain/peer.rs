//! Who a request comes from: the address that limits are kept by.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName, header::FORWARDED};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The most hops that are looked at.
const HOPS_MAX: usize = 32;

/// The header in which our proxies say whom they speak for.
///
/// One of the two, by configuration: a proxy that writes the one lets a client's own other one through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, a custom.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The text names neither header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be x-forwarded-for or forwarded")]
pub struct UnknownHeader;

impl FromStr for ForwardedHeader {
    type Err = UnknownHeader;

    fn from_str(text: &str) -> Result<Self, UnknownHeader> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(UnknownHeader),
        }
    }
}

/// A network in CIDR notation (RFC 4632); a single address is one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The peers whose word is believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Vec<Network>);

/// The text is no list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct InvalidNetwork(String);

impl FromStr for TrustedProxies {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| network(part).ok_or_else(|| InvalidNetwork(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix =
        prefix.map_or(Some(longest), |digits| digits.parse().ok().filter(|prefix| *prefix <= longest))?;
    Some(Network { address, prefix })
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u32::from(network) ^ u32::from(address);
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = u128::from(network) ^ u128::from(address);
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

impl TrustedProxies {
    /// Whether `address` is one of ours.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client behind `peer`: the last hop that is not one of ours.
    ///
    /// What a stranger wrote stands to the left of what our proxies appended, so the list is read from its end; at the
    /// first entry that cannot be read nothing further is believed.
    pub fn client(&self, peer: IpAddr, header: ForwardedHeader, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        for hop in hops(header, headers).iter().rev().take(HOPS_MAX) {
            match hop {
                Some(address) if self.contains(client) => client = *address,
                _ => break,
            }
        }
        client
    }
}

fn hops(header: ForwardedHeader, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let name = match header {
        ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
        ForwardedHeader::Forwarded => FORWARDED,
    };
    let values = headers.get_all(name);
    let elements = values.iter().flat_map(|value| value.to_str().unwrap_or_default().split(','));
    elements
        .map(|element| match header {
            ForwardedHeader::XForwardedFor => node(element),
            ForwardedHeader::Forwarded => element
                .split(';')
                .find_map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    name.trim().eq_ignore_ascii_case("for").then_some(value)
                })
                .and_then(node),
        })
        .collect()
}

/// A node of RFC 7239: an address, with or without quotes, brackets and port. Names that hide one are none.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, trusted: &str, name: &'static str, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let header =
            if name == "forwarded" { ForwardedHeader::Forwarded } else { ForwardedHeader::default() };
        let trusted: TrustedProxies = trusted.parse().unwrap();
        trusted.client(peer.parse().unwrap(), header, &headers).to_string()
    }

    #[test]
    fn a_stranger_cannot_speak_for_another() {
        assert_eq!(client("203.0.113.9", "", "x-forwarded-for", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", "10.0.0.0/8", "x-forwarded-for", &["198.51.100.1"]), "203.0.113.9");
    }

    #[test]
    fn the_last_hop_that_is_not_ours_is_the_client() {
        let ours = "10.0.0.0/8, fd00::/8";
        let name = "x-forwarded-for";
        assert_eq!(client("10.0.0.1", ours, name, &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", ours, name, &["6.6.6.6, 198.51.100.1, 10.9.9.9"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", ours, name, &["6.6.6.6", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", ours, name, &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", ours, name, &["10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("fd00::1", ours, name, &["2001:db8::7"]), "2001:db8::7");
        assert_eq!(client("::ffff:10.0.0.1", ours, name, &["198.51.100.1:4711"]), "198.51.100.1");
    }

    #[test]
    fn what_cannot_be_read_ends_the_belief() {
        let name = "x-forwarded-for";
        assert_eq!(client("10.0.0.1", "10.0.0.0/8", name, &["198.51.100.1, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "10.0.0.0/8", name, &["198.51.100.1, x, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn the_standard_header_is_read_too() {
        let name = "forwarded";
        let value = r#"for=6.6.6.6, For="[2001:db8:cafe::17]:4711";proto=https;by=10.0.0.1"#;
        assert_eq!(client("10.0.0.1", "10.0.0.1", name, &[value]), "2001:db8:cafe::17");
        assert_eq!(client("10.0.0.1", "10.0.0.1", name, &["for=_hidden"]), "10.0.0.1");
    }

    #[test]
    fn a_list_with_a_mistake_is_refused() {
        for wrong in ["10.0.0.0/33", "::/129", "localhost", "10.0.0", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(wrong.parse::<TrustedProxies>().is_err(), "{wrong}");
        }
        assert!("0.0.0.0/0,::/0".parse::<TrustedProxies>().is_ok());
    }
}
