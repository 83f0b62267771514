//! A client's own idea of how urgent its request is (RFC 9218).

use stampede_contracts::Class;

/// What `u` is when nobody says (RFC 9218, 4.1).
const DEFAULT_URGENCY: u8 = 3;

/// The class of a request whose function has the class `of_function`.
///
/// Urgencies up to the default change nothing, because whatever a stranger could raise, everybody would raise. Each
/// step below it, 4 to 7, costs one class. A header that cannot be read is ignored, as the RFC asks.
pub fn class(of_function: Class, header: Option<&str>) -> Class {
    let steps = header.map_or(0, |header| urgency(header).saturating_sub(DEFAULT_URGENCY));
    let rank = Class::ALL.iter().position(|class| *class == of_function).unwrap_or(Class::ALL.len());
    Class::ALL.get(rank + usize::from(steps)).copied().unwrap_or(Class::Browse)
}

/// The member `u` of the dictionary (RFC 9651); of two the last one counts, and its parameters mean nothing.
fn urgency(header: &str) -> u8 {
    header
        .rsplit(',')
        .find_map(|member| member.trim().strip_prefix("u="))
        .and_then(|value| match value.split(';').next().unwrap_or(value).trim_end().as_bytes() {
            [digit @ b'0'..=b'7'] => Some(digit - b'0'),
            _ => None,
        })
        .unwrap_or(DEFAULT_URGENCY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_can_only_lower_its_own_request() {
        for header in ["u=0", "u=1", "u=3", "i", "u=2, i"] {
            assert_eq!(class(Class::Hold, Some(header)), Class::Hold, "{header}");
        }
        assert_eq!(class(Class::Pay, Some("u=4")), Class::Hold);
        assert_eq!(class(Class::Pay, Some("i, u=5;x=1")), Class::Join);
        assert_eq!(class(Class::Pay, Some("u=7")), Class::Browse);
        assert_eq!(class(Class::Browse, Some("u=7")), Class::Browse);
        assert_eq!(class(Class::Pay, None), Class::Pay);
    }

    #[test]
    fn what_is_no_urgency_is_ignored() {
        for header in ["", "u", "u=", "u=8", "u=-1", "u=77", "u=\"7\"", "urgency=7", "\u{fc}=7", "u=7x"] {
            assert_eq!(class(Class::Hold, Some(header)), Class::Hold, "{header}");
        }
        assert_eq!(class(Class::Pay, Some("u=1, u=4")), Class::Hold, "of two the last one counts");
    }
}
