//! Parser of the JSON objects in CONNECT and INFO. It accepts what a Go server accepts: `null` fields, `null` alone as `{}`, names
//! in any case, and bytes that are not UTF-8, which are replaced.
//!
//! The size of an object is bounded by the limit on control lines. Its depth is bounded by `serde_json`, which nests values 128 deep.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Returns all fields of `json`, with their names unchanged.
pub(crate) fn fields(json: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    let object: Option<Map<String, Value>> = serde_json::from_str(&String::from_utf8_lossy(json))?;
    Ok(object.unwrap_or_default())
}

/// Parses `json` as `T`, whose fields have names in lower case. A field that is missing or `null` in `json` keeps its value in
/// `before`.
pub(crate) fn object<T: DeserializeOwned>(
    before: Map<String, Value>,
    json: &[u8],
) -> Result<T, serde_json::Error> {
    let mut object = before;
    let given = fields(json)?.into_iter().filter(|(_, value)| !value.is_null());
    object.extend(given.map(|(name, value)| (name.to_ascii_lowercase(), value)));
    serde_json::from_value(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SERVER_LINE_BYTES_MAX;

    #[test]
    fn deeply_nested_json_is_an_error_at_any_size() {
        let nested = |open: &str, close: &str, depth: usize| {
            format!("{{\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth))
        };
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            assert!(fields(nested(open, close, 100).as_bytes()).is_ok());
            for depth in [128, SERVER_LINE_BYTES_MAX / 6] {
                assert!(fields(nested(open, close, depth).as_bytes()).is_err());
                // Not closed, as by a peer that stops.
                assert!(fields(nested(open, "", depth).as_bytes()).is_err());
            }
        }
    }
}
