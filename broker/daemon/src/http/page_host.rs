//! Defence against DNS rebinding: pages on a loopback address are not served under a name of the public DNS.
//!
//! A site may let its own name, such as `evil.example.com`, resolve to 127.0.0.1. For a browser on this host, the pages of this program
//! then belong to that site, and its scripts can read them. Such a request has the name of the site in the header Host. So a name is
//! accepted only if no site can have it: an IP address, `localhost`, a name without a dot, or a name in `/etc/hosts`. A scraper on this
//! host reaches a loopback address by one of these. Jupyter, Syncthing and other programs with pages on loopback have similar rules.
//!
//! The rule does not hold for pages with a token or with TLS: scripts of a site know no token, and the certificate does not have the name
//! of the site.

use axum::extract::Request;
use axum::http::header;
use axum::http::uri::Authority;

/// The names of hosts that this host knows without DNS.
const HOSTS_FILE: &str = "/etc/hosts";

/// Last labels of names that are always this host, also for systemd's nss-myhostname. The public DNS does not have them.
const LOCAL: [&str; 2] = ["localhost", "localdomain"];

/// Returns the name of the server in the request, if it may be in the public DNS.
pub(super) fn public_name(request: &Request) -> Option<String> {
    host(request).filter(|name| may_be_public(name))
}

/// Returns whether this host knows the name without DNS.
pub(super) async fn is_known(name: &str) -> bool {
    let hosts = tokio::fs::read_to_string(HOSTS_FILE).await;
    hosts.is_ok_and(|text| is_listed(&text, name))
}

/// Returns the name of the server in lower case, without the port. Returns `None` if the request names none; each browser does.
fn host(request: &Request) -> Option<String> {
    let given = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let value = request.headers().get(header::HOST)?;
            value.to_str().unwrap_or("not.a.name")
        }
    };
    if given.is_empty() {
        return None;
    }
    let name = given.parse().map_or_else(
        |_| given.to_owned(),
        |authority: Authority| authority.host().to_owned(),
    );
    Some(name.trim_end_matches('.').to_ascii_lowercase())
}

/// Returns whether `name` may be in the public DNS. A name that ends in a number is an IPv4 address for every browser.
fn may_be_public(name: &str) -> bool {
    let last = name.rsplit_once('.').map(|(_, last)| last);
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    !name.starts_with('[') && last.is_some_and(|last| !LOCAL.contains(&last) && !is_number(last))
}

/// Returns whether `hosts`, the text of a hosts file, has the name.
fn is_listed(hosts: &str, name: &str) -> bool {
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    lines
        .flat_map(|line| line.split_ascii_whitespace().skip(1))
        .any(|listed| listed.trim_end_matches('.').eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;

    use super::*;

    #[test]
    fn only_a_name_that_a_site_can_have_may_be_public() {
        for (given, public) in [
            ("evil.example.com:8222", true),
            ("EVIL.example.com.", true),
            ("127.0.0.1.evil.example.com", true),
            ("localhost.evil.example.com:8222", true),
            ("user@evil.example.com", true),
            ("evil.example.com:x", true),
            ("127.0.0.1:8222", false),
            ("127.1:8222", false),
            ("10.0.0.1", false),
            ("[::1]:8222", false),
            ("[::1]", false),
            ("localhost:8222", false),
            ("LocalHost.", false),
            ("app.localhost:8222", false),
            ("localhost.localdomain:8222", false),
            ("node-1:8222", false),
            ("my_host", false),
        ] {
            let request = Request::get("/varz").header(header::HOST, given);
            let name = host(&request.body(Body::empty()).unwrap()).unwrap();
            assert_eq!(may_be_public(&name), public, "{given} {name}");
        }
        for request in [
            Request::get("/varz"),
            Request::get("/varz").header(header::HOST, ""),
        ] {
            assert_eq!(host(&request.body(Body::empty()).unwrap()), None);
        }
        let absolute = Request::get("http://evil.example.com/varz").header(header::HOST, "127.0.0.1");
        let name = host(&absolute.body(Body::empty()).unwrap());
        assert_eq!(name.as_deref(), Some("evil.example.com"));
    }

    #[test]
    fn names_of_the_hosts_file_are_accepted() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1\tNode-1.example.org node-1 # evil.example.com\n#1.2.3.4 old.example.org\n";
        for (name, listed) in [
            ("node-1.example.org", true),
            ("node-1", true),
            ("example.org", false),
            ("evil.example.com", false),
            ("old.example.org", false),
            ("127.0.1.1", false),
        ] {
            assert_eq!(is_listed(hosts, name), listed, "{name}");
        }
    }
}
