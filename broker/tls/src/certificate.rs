//! What the programs read in a certificate: its names, its subject, and when it expires.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Returns when the certificate expires, in seconds since 1970; `None` if it cannot be parsed.
#[must_use]
pub fn expires_at(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// Returns the names by which the owner of a certificate may be a user, in the order in which `nats-server` tries them
/// (`verify_and_map`): e-mail addresses, DNS names, URIs, and at last the subject in the form of RFC 2253.
#[must_use]
pub fn user_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
        return Vec::new();
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
    emails
        .into_iter()
        .chain(hosts)
        .chain(uris)
        .chain([subject(&parsed)])
        .collect()
}

/// Returns the subject in the form of RFC 2253, the last part first: `CN=a,OU=b,O=c`.
fn subject(certificate: &x509_parser::certificate::X509Certificate<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for set in certificate.subject().iter_rdn() {
        let values = set.iter().filter_map(|attribute| {
            let kind = short_name(&attribute.attr_type().to_id_string())?;
            Some(format!("{kind}={}", escaped(attribute.as_str().ok()?)))
        });
        parts.push(values.collect::<Vec<_>>().join("+"));
    }
    parts.reverse();
    parts.join(",")
}

/// Short names of attribute types (RFC 2253, section 2.3). Other types are left out.
fn short_name(id: &str) -> Option<&'static str> {
    Some(match id {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "SERIALNUMBER",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.17" => "POSTALCODE",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
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
