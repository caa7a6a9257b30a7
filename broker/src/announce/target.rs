//! [`Target`], the server to be checked: its addresses, the login, TLS, and the id, zone and weight for its record.

use std::time::Duration;

use standin_daemon::own_credentials::{CredentialsSection, OwnCredentials};
use standin_registry::{Endpoint, Node};
use standin_tls::files::Files;

use super::check_error::CheckError;
use super::server_connection::{ServerConnection, connect_line};
use super::{healthz, record};
use crate::cli::{AnnounceFlags, LoginFlags, NodeTlsFlags};

/// The server to be checked, and how.
#[derive(Debug)]
pub(super) struct Target {
    /// Its address for clients, as seen from here.
    pub(super) node: Endpoint,
    /// Its address for clients, as the record says it.
    pub(super) advertised: Endpoint,
    /// Its monitoring port.
    pub(super) http: Option<Endpoint>,
    pub(super) id: Option<String>,
    pub(super) zone: String,
    pub(super) weight: u32,
    credentials: CredentialsSection,
    pub(super) tls: TargetTls,
    pub(super) interval: Duration,
    /// Time limit of each step of a check.
    pub(super) limit: Duration,
    pub(super) failures: u32,
    pub(super) successes: u32,
}

/// TLS with the server.
#[derive(Debug)]
pub(super) struct TargetTls {
    pub(super) files: Files,
    pub(super) server_name: Option<String>,
    pub(super) first: bool,
}

impl TargetTls {
    fn new(flags: &NodeTlsFlags) -> Self {
        Self {
            files: Files {
                cert: flags.cert_file.clone().unwrap_or_default(),
                key: flags.key_file.clone().unwrap_or_default(),
                authorities: flags.ca_file.clone().unwrap_or_default(),
            },
            server_name: flags.server_name.clone(),
            first: flags.first,
        }
    }

    /// Returns whether any flag for TLS was given. Then a server must offer TLS, even if it does not demand it: somebody on the path
    /// could take the offer out of INFO to read the password.
    pub(super) fn is_given(&self) -> bool {
        self.first || self.server_name.is_some() || self.files != Files::default()
    }
}

impl Target {
    /// Checks the flags.
    ///
    /// # Errors
    /// A text that names the flag and says what to give.
    pub(super) fn new(flags: &AnnounceFlags) -> Result<Self, String> {
        let advertised = match &flags.advertise {
            Some(address) if address.ip().is_some_and(|ip| ip.is_unspecified()) => {
                return Err(format!(
                    "--advertise {address}: nobody reaches this address; give the one by which clients reach the server"
                ));
            }
            Some(address) => address.clone(),
            None if is_local(&flags.node) => {
                return Err(format!(
                    "--node {}: other hosts cannot reach the server at this address, so it cannot be registered; give the address that \
                     clients use with --advertise HOST:PORT",
                    flags.node
                ));
            }
            None => flags.node.clone(),
        };
        let target = Self {
            node: flags.node.clone(),
            advertised,
            http: flags.http.clone(),
            id: flags.id.clone(),
            zone: flags.zone.clone().unwrap_or_default(),
            weight: flags.weight,
            credentials: section(&flags.login),
            tls: TargetTls::new(&flags.tls),
            interval: Duration::from_millis(flags.checks.interval_ms),
            limit: Duration::from_millis(flags.checks.timeout_ms),
            failures: flags.checks.failures,
            successes: flags.checks.successes,
        };
        if let Some(id) = &flags.id {
            let record = Node::new(id.as_str(), target.advertised.clone());
            record
                .check_record()
                .map_err(|error| format!("{error}; give another id with --id"))?;
        }
        // Only a check: the credentials are read again at each login, so that a changed password is used.
        OwnCredentials::read(&target.credentials).map_err(|error| error.to_string())?;
        Ok(target)
    }

    /// Returns the CONNECT line for a server that has sent this nonce.
    pub(super) fn login(&self, nonce: &str) -> Result<Vec<u8>, CheckError> {
        let own = OwnCredentials::read(&self.credentials)?;
        let fields = own.map(|own| own.fields(nonce)).unwrap_or_default();
        Ok(connect_line(fields))
    }

    /// Checks the monitoring port, if there is one.
    pub(super) async fn check_healthz(&self) -> Result<(), CheckError> {
        match &self.http {
            Some(http) => healthz::check(http, self.limit).await,
            None => Ok(()),
        }
    }

    /// Checks the server once. Returns a report for people.
    pub(super) async fn check_once(&self) -> Result<String, CheckError> {
        let mut connection = ServerConnection::open(self).await?;
        let round_trip = connection.ping(self.limit).await?;
        self.check_healthz().await?;
        let info = &connection.info;
        let record = record::of(self, info)?;
        let tls = if connection.is_tls() { "yes" } else { "no" };
        let healthz = self.http.as_ref().map_or_else(
            || "not checked (no --http)".to_owned(),
            |http| format!("200 at {http}"),
        );
        Ok(format!(
            "server      {} is {} {}, version {}\nTLS         {tls}\nlogin       accepted\nround trip  {round_trip:?}\nhealthz     \
             {healthz}\nlame duck   {}\nrecord      {} {}\n",
            self.node,
            info.server_name,
            info.server_id,
            info.version,
            if info.ldm { "yes" } else { "no" },
            record.id,
            record.to_record(),
        ))
    }
}

/// Returns whether other hosts cannot reach the address, because it is a loopback address, 0.0.0.0, `::` or `localhost`.
fn is_local(address: &Endpoint) -> bool {
    match address.ip() {
        Some(ip) => ip.is_loopback() || ip.is_unspecified(),
        None => address.host.eq_ignore_ascii_case("localhost"),
    }
}

fn section(flags: &LoginFlags) -> CredentialsSection {
    CredentialsSection {
        user: flags.user.clone().unwrap_or_default(),
        password: flags.password.clone().unwrap_or_default(),
        password_file: flags.password_file.clone().unwrap_or_default(),
        token_file: flags.token_file.clone().unwrap_or_default(),
        nkey_seed_file: flags.nkey_seed_file.clone().unwrap_or_default(),
        creds_file: flags.creds_file.clone().unwrap_or_default(),
        ..CredentialsSection::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        announce: AnnounceFlags,
    }

    #[test]
    fn a_record_that_nobody_could_use_is_refused_at_the_start() {
        let target = |more: &[&str]| {
            let flags = [&["announce", "--check", "--node", "nats://10.0.0.1:4222"], more].concat();
            Target::new(&<Flags as clap::Parser>::try_parse_from(flags).unwrap().announce)
        };
        assert_eq!(target(&[]).unwrap().advertised.to_string(), "10.0.0.1:4222");
        assert!(target(&["--advertise", "nats://127.0.0.1:4222", "--id", "n1"]).is_ok());
        for (flag, value) in [
            ("--advertise", "0.0.0.0:4222"),
            ("--advertise", "[::]:4222"),
            ("--id", ""),
            ("--id", "a/b"),
            ("--id", ".."),
        ] {
            let error = target(&[flag, value]).unwrap_err();
            assert!(error.contains(flag), "{value}: {error}");
        }
    }

    #[test]
    fn an_address_of_this_host_alone_is_local() {
        for (address, local) in [
            ("127.0.0.1:4222", true),
            ("[::1]:4222", true),
            ("0.0.0.0:4222", true),
            ("localhost:4222", true),
            ("10.0.0.1:4222", false),
            ("nats-1:4222", false),
        ] {
            assert_eq!(is_local(&address.parse().unwrap()), local, "{address}");
        }
    }
}
