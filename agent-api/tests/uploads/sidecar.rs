//! Values of a sidecar, which must be there.

use std::net::IpAddr;

use serde_json::Value;

pub fn each(values: &Value) -> impl Iterator<Item = &Value> {
    values.as_array().into_iter().flatten()
}

pub fn text(value: &Value) -> String {
    value.as_str().map(Into::into).unwrap_or_else(|| panic!("{value} is not text"))
}

pub fn number<T: TryFrom<u64>>(value: &Value) -> T {
    let number = value.as_u64().and_then(|number| number.try_into().ok());
    number.unwrap_or_else(|| panic!("{value} does not fit"))
}

pub fn address(value: &Value) -> IpAddr {
    text(value).parse().unwrap_or_else(|_| panic!("{value} is not an address"))
}
