//! The parser of znodes, for the fuzz targets in `tests/fuzz.d`.

use crate::{record, registrars};

/// Parses the data of a znode in the format of any registrar.
///
/// # Panics
/// If a valid record of `standin-broker` gives a different node after it was written and parsed again.
pub fn record(bytes: &[u8]) {
    let _ = registrars::parse(bytes);
    if let Some(node) = record::parse_own(bytes)
        && node.check_record().is_ok()
    {
        let again = record::parse_own(node.to_record().as_bytes());
        assert_eq!(again.as_ref(), Some(&node));
    }
}
