//! The server id, new at each start: `N` and 55 characters of base 32, the form of the public keys that `nats-server` uses as ids.

use rand::RngExt;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ID_CHARS: usize = 56;

/// Returns a new random server id.
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
    fn ids_differ_and_have_the_form_of_a_public_key() {
        let (one, other) = (server_id(), server_id());
        assert_ne!(one, other);
        assert_eq!(one.len(), 56);
        assert!(one.starts_with('N') && one.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
