//! The id of one run of a server: `N` and 55 characters of base 32, as `nats-server` writes its public keys.

use rand::RngExt;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ID_CHARS: usize = 56;

/// A new id.
pub(crate) fn server_id() -> String {
    let mut rng = rand::rng();
    let mut id = String::from("N");
    while id.len() < ID_CHARS {
        id.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_differ_and_look_like_ids() {
        let (one, other) = (server_id(), server_id());
        assert_ne!(one, other);
        assert_eq!(one.len(), 56);
        assert!(one.starts_with('N') && one.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
