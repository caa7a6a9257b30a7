//! Distinguished names: the subject of a certificate, and the name of a user that is written like one (RFC 4514).

use x509_parser::x509::X509Name;

/// The kinds of attributes that names can have. `nats-server` knows the same.
const KINDS: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.17", "POSTALCODE"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// A distinguished name: its parts, each with one or more attributes. The last part of a certificate comes first, as in the text form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DistinguishedName {
    parts: Vec<Vec<Attribute>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    kind: String,
    value: String,
}

impl DistinguishedName {
    /// Returns the name in a certificate; `None` if it has an attribute of another kind than those above.
    #[must_use]
    pub fn of(name: &X509Name<'_>) -> Option<Self> {
        let part = |attributes: &x509_parser::x509::RelativeDistinguishedName<'_>| {
            let attribute = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
                Some(Attribute {
                    kind: kind(&attribute.attr_type().to_id_string())?.to_owned(),
                    value: attribute.as_str().ok()?.to_owned(),
                })
            };
            attributes.iter().map(attribute).collect::<Option<Vec<_>>>()
        };
        let mut parts = name.iter_rdn().map(part).collect::<Option<Vec<_>>>()?;
        parts.reverse();
        Some(Self::new(parts))
    }

    /// Parses the text form, `CN=a,OU=b+O=c`; `None` if the text is another name, such as an e-mail address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mut parts, mut part) = (Vec::new(), Vec::new());
        let mut kind: Option<String> = None;
        let mut value = Value::default();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => value.push(unescaped(&mut bytes)?),
                b'=' if kind.is_none() => kind = Some(value.take()?.to_uppercase()),
                b',' | b'+' => {
                    let (kind, value) = (kind.take()?, value.take()?);
                    part.push(Attribute { kind, value });
                    if byte == b',' {
                        parts.push(std::mem::take(&mut part));
                    }
                }
                b' ' => value.push_space(),
                _ => value.push(byte),
            }
        }
        let (kind, value) = (kind?, value.take()?);
        part.push(Attribute { kind, value });
        parts.push(part);
        Some(Self::new(parts))
    }

    /// Returns whether both names have the same parts, in any order.
    #[must_use]
    pub fn has_the_parts_of(&self, other: &Self) -> bool {
        let sorted = |name: &Self| {
            let mut parts = name.parts.clone();
            parts.sort();
            parts
        };
        self.parts.len() == other.parts.len() && sorted(self) == sorted(other)
    }

    /// The order of the attributes of one part has no meaning.
    fn new(mut parts: Vec<Vec<Attribute>>) -> Self {
        for part in &mut parts {
            part.sort();
        }
        Self { parts }
    }
}

/// Returns the short name of a kind of attribute.
pub(crate) fn kind(id: &str) -> Option<&'static str> {
    KINDS
        .iter()
        .find(|(known, _)| *known == id)
        .map(|(_, name)| *name)
}

/// A word of the text form, without the spaces around it.
#[derive(Default)]
struct Value {
    bytes: Vec<u8>,
    /// Length without trailing spaces; an escaped space is none of these.
    kept: usize,
}

impl Value {
    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
        self.kept = self.bytes.len();
    }

    fn push_space(&mut self) {
        if !self.bytes.is_empty() {
            self.bytes.push(b' ');
        }
    }

    fn take(&mut self) -> Option<String> {
        let mut value = std::mem::take(self);
        value.bytes.truncate(value.kept);
        String::from_utf8(value.bytes).ok()
    }
}

/// Reads what follows a backslash: a character that has a meaning, or a byte as two hexadecimal digits.
fn unescaped(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let first = bytes.next()?;
    if b" \"#+,;<=>\\".contains(&first) {
        return Some(first);
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(first)? << 4 | digit(bytes.next()?)?)
}

#[cfg(test)]
mod tests {
    use super::DistinguishedName;

    fn parse(text: &str) -> DistinguishedName {
        DistinguishedName::parse(text).unwrap()
    }

    #[test]
    fn names_are_compared_as_nats_server_compares_them() {
        for (a, b, is_equal, has_same_parts) in [
            ("CN=a,O=b", "CN=a, O=b", true, true),
            ("CN=a,O=b", "cn = a ,o=b ", true, true),
            ("CN=a,O=b", "O=b,CN=a", false, true),
            ("CN=a,DC=b+O=c", "CN=a,O=c+DC=b", true, true),
            ("CN=a,DC=b+O=c", "CN=a,O=c", false, false),
            ("CN=a,DC=b+O=c", "CN=a,O=c,DC=b", false, false),
            ("CN=a,CN=a", "CN=a,CN=b", false, false),
            ("CN=a", "CN=A", false, false),
            (r"CN=a\, b\ ", "CN=a\\2C b\\20", true, true),
            ("CN=a=b", r"CN=a\=b", true, true),
        ] {
            assert_eq!(parse(a) == parse(b), is_equal, "{a} {b}");
            assert_eq!(parse(a).has_the_parts_of(&parse(b)), has_same_parts, "{a} {b}");
        }
    }

    #[test]
    fn other_names_are_no_distinguished_names() {
        for text in [
            "",
            "a",
            "a@b.example",
            "spiffe://a/b",
            "CN=a,b",
            "CN=a,",
            r"CN=a\",
            r"CN=\zz",
        ] {
            assert_eq!(DistinguishedName::parse(text), None, "{text}");
        }
    }
}
