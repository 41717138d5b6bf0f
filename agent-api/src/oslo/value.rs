//! Texts of options as what they mean, by the rules of oslo.config's types.

use std::net::IpAddr;

use super::blank;

/// `true`, `1`, `on`, `yes` and `false`, `0`, `off`, `no`, in any case (`BoolOpt`).
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Some(true),
        "false" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// A decimal number as Python's `int` reads it: blanks around it, a sign, leading zeros, an underscore
/// between digits (`IntOpt`, `PortOpt`).
///
/// An empty text is no number, where oslo.config makes it `None` and the stock agent then fails at its
/// use. Numbers beyond 64 bits are out of every range and refused here already.
pub fn integer(text: &str) -> Option<i64> {
    let text = text.trim_matches(blank);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
    if !digits.split('_').all(is_number) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// The items between commas, without blanks around them (`ListOpt`).
///
/// Commas at the end do not count; an empty item anywhere else is an item.
pub fn list(text: &str) -> Vec<&str> {
    let text = text.trim_matches(blank).trim_end_matches(',');
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|item| item.trim_matches(blank)).collect()
}

/// An address as `inet_pton` reads it: no name, no zone, no brackets (`IPOpt`).
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn as_oslo_config_converts() {
        let rows = include_str!("../../../tests/vectors/oslo/rows.json");
        let rows: Value = serde_json::from_str(rows).unwrap();
        let rows = rows["values"].as_array().unwrap();
        assert!(rows.len() >= 80, "{} rows", rows.len());
        for row in rows {
            let (kind, text) = (row["kind"].as_str().unwrap(), row["text"].as_str().unwrap());
            let value = match kind {
                "boolean" => boolean(text).map(Value::from),
                "integer" => integer(text).map(Value::from),
                "port" => integer(text).and_then(|it| u16::try_from(it).ok()).map(Value::from),
                "list" => Some(Value::from(list(text))),
                // oslo.config checks it and leaves it a text.
                "address" => address(text).map(|_| Value::from(text)),
                kind => panic!("{kind}"),
            };
            assert_eq!(value.unwrap_or_default(), row["value"], "{kind} {text:?}");
        }
    }
}
