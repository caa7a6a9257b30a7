//! What the programs read in a certificate: its names, and when it expires.

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::X509Name;

use crate::distinguished_name::{DistinguishedName, kind};

/// Returns when the certificate expires, in seconds since 1970; `None` if it cannot be parsed.
#[must_use]
pub fn expires_at(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// The names by which the owner of a certificate may be a user (`verify_and_map`).
#[derive(Debug, Clone, Default)]
pub struct CertificateNames {
    /// E-mail addresses, DNS names and URIs, in this order.
    alternatives: Vec<String>,
    /// The subject; `None` if it has an attribute that [`DistinguishedName`] does not know.
    subject: Option<DistinguishedName>,
    /// Forms of the subject in a fixed order of its attributes, which `nats-server` tries last.
    fixed_forms: Vec<String>,
}

impl CertificateNames {
    /// Reads the names in a certificate; there are none if it cannot be parsed.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
            return Self::default();
        };
        let (mut emails, mut hosts, mut uris) = (Vec::new(), Vec::new(), Vec::new());
        if let Ok(Some(extension)) = parsed.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::RFC822Name(name) => emails.push((*name).to_owned()),
                    GeneralName::DNSName(name) => hosts.push((*name).to_owned()),
                    GeneralName::URI(name) => uris.push((*name).to_owned()),
                    _ => {}
                }
            }
        }
        Self {
            alternatives: emails.into_iter().chain(hosts).chain(uris).collect(),
            subject: DistinguishedName::of(parsed.subject()),
            fixed_forms: fixed_forms(parsed.subject()),
        }
    }

    /// Returns the user with one of the names, tried in the order of `nats-server`: the alternative names; the subject; the subject with
    /// its parts in another order; the subject's fixed forms.
    #[must_use]
    pub fn find<'a, User>(&self, users: &'a BTreeMap<String, User>) -> Option<&'a User> {
        let literal = |names: &[String]| names.iter().find_map(|name| users.get(name));
        literal(&self.alternatives)
            .or_else(|| self.find_by_subject(users))
            .or_else(|| literal(&self.fixed_forms))
    }

    fn find_by_subject<'a, User>(&self, users: &'a BTreeMap<String, User>) -> Option<&'a User> {
        let subject = self.subject.as_ref()?;
        let mut reordered = None;
        for (name, user) in users {
            match DistinguishedName::parse(name) {
                Some(name) if name == *subject => return Some(user),
                Some(name) if reordered.is_none() && name.has_the_parts_of(subject) => reordered = Some(user),
                _ => {}
            }
        }
        reordered
    }
}

/// Returns the subject with its attributes in a fixed order, values of one kind together: first with the domain components at the end, if
/// there are any, then without these. Attributes of other kinds are left out.
fn fixed_forms(subject: &X509Name<'_>) -> Vec<String> {
    let values = |wanted: &str| -> Vec<&str> {
        subject
            .iter_attributes()
            .filter(|attribute| kind(&attribute.attr_type().to_id_string()) == Some(wanted))
            .filter_map(|attribute| attribute.as_str().ok())
            .collect()
    };
    let mut parts = Vec::new();
    for wanted in [
        "SERIALNUMBER",
        "CN",
        "OU",
        "O",
        "POSTALCODE",
        "STREET",
        "L",
        "ST",
        "C",
    ] {
        let mut values = values(wanted);
        if matches!(wanted, "SERIALNUMBER" | "CN") {
            values.drain(..values.len().saturating_sub(1));
        }
        let part = values.iter().map(|value| format!("{wanted}={}", escaped(value)));
        parts.extend(Some(part.collect::<Vec<_>>().join("+")).filter(|part| !part.is_empty()));
    }
    let without = parts.join(",");
    parts.extend(values("DC").iter().map(|value| format!("DC={value}")));
    let with = parts.join(",");
    if with == without {
        vec![without]
    } else {
        vec![with, without]
    }
}

/// Escapes the characters that separate parts (RFC 2253, section 2.4).
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for (at, character) in value.chars().enumerate() {
        let edge = character == ' ' && (at == 0 || at + 1 == value.chars().count());
        if edge
            || matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || at == 0 && character == '#'
        {
            text.push('\\');
        }
        text.push(character);
    }
    text
}
