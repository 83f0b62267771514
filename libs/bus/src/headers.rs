//! Header values: what may travel as it is, and what is written with per cent signs.

use async_nats::HeaderMap;

/// As the HTTP binding of CloudEvents 1.0.2 has it (3.1.3.2), which the NATS binding takes over: blanks, quotes, per
/// cent signs and everything outside of printable ASCII become `%XX`.
pub(crate) fn encode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Reads the value of a header as the NATS binding of CloudEvents writes it, `%XX` for what may not stand there; nothing
/// when it is not UTF-8. A per cent sign without two digits stands for itself.
pub(crate) fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut value = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|pair| Some((digit(pair[0])?, digit(pair[1])?)));
        match digits {
            Some((high, low)) if byte == b'%' => {
                value.push(high << 4 | low);
                at += 3;
            }
            _ => {
                value.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(value).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The value of a header, if there is one.
pub(crate) fn get<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    headers?.get(name).map(async_nats::HeaderValue::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_its_trip() {
        for value in ["", "ord_0190", "a b", "100 %", "\"x\"", "Zürich\r\nEvil: 1", "%41", "%", "%zz", "€"]
        {
            let text = encode(value);
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(decode(&text).as_deref(), Some(value));
        }
    }

    #[test]
    fn what_others_send_is_read_as_well_as_it_can_be() {
        assert_eq!(decode("Euro%20%E2%82%AC%20%F0%9F%98%80").as_deref(), Some("Euro € 😀"));
        assert_eq!(decode("50%").as_deref(), Some("50%"));
        assert_eq!(decode("%+1").as_deref(), Some("%+1"));
        assert_eq!(decode("%FF"), None);
    }
}
