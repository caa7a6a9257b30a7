//! Reads the JSON objects of CONNECT and INFO as a Go server does: `null` is the same as a missing field (and as `{}` in
//! place of the whole), names count in any case, and bytes that are no UTF-8 are replaced, not refused.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The fields of `json` as they are written.
pub(crate) fn fields(json: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    let object: Option<Map<String, Value>> = serde_json::from_str(&String::from_utf8_lossy(json))?;
    Ok(object.unwrap_or_default())
}

/// The fields of `json` that `T` names in lower case.
pub(crate) fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    let known = fields(json)?
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    serde_json::from_value(Value::Object(known))
}
