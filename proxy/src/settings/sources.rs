//! The settings of the node sources, as the registry needs them. The registry's own parsers check them, so the registry
//! can use each text that passes `--check`.

use std::str::FromStr;

use standin_registry::{
    AllowedNode, AllowedNodes, Config, DnsName, RegistryError, Upstream, ZooKeeperConfig,
};

use standin_daemon::settings::{MASK, ZooKeeperAuth, mask_given, masked_url};

use super::{Place, Settings, SettingsError};

impl Settings {
    /// Returns the configuration of the registry. Reads `nodes.zookeeper_auth_file`, if it is set.
    ///
    /// # Errors
    /// [`SettingsError::Unreadable`] for that file. [`SettingsError::Conflict`] for a text that the registry refuses; this
    /// cannot happen with settings from [`Input::load`](super::Input::load).
    pub fn registry_config(&self) -> Result<Config, SettingsError> {
        let nodes = &self.nodes;
        let zookeeper = if nodes.zookeeper.is_empty() {
            None
        } else {
            Some(ZooKeeperConfig {
                path: nodes.zookeeper_path.clone(),
                session_timeout_ms: nodes.zookeeper_session_timeout_ms.0,
                digest_auth: ZooKeeperAuth::new(&nodes.zookeeper_auth, &nodes.zookeeper_auth_file).read()?,
                ..ZooKeeperConfig::new(nodes.zookeeper.clone())
            })
        };
        let config = Config {
            zookeeper,
            dns: parsed("nodes.dns", nodes.dns.iter().map(String::as_str))?,
            dns_refresh_ms: nodes.dns_refresh_ms.0,
            dns_server: nodes.dns_server.parse().ok(),
            fixed: parsed("nodes.upstream", nodes.upstream.iter().map(|url| url.reveal()))?,
            cache_file: Some(nodes.cache_file.clone()).filter(|path| !path.as_os_str().is_empty()),
            gossip: nodes.gossip,
            nodes_max: nodes.nodes_max,
        };
        config
            .check()
            .map_err(|error| refused("nodes", &Place::Default, &error))?;
        Ok(config)
    }

    /// Returns the nodes that may be dialled: those of `nodes.allowed_nodes` and `nodes.upstream`.
    pub(crate) fn allowed_nodes(&self) -> AllowedNodes {
        let upstreams = self.nodes.upstream.iter();
        let upstreams = upstreams.flat_map(|url| Upstream::from_str(url.reveal()));
        let configured = upstreams.map(|upstream| upstream.endpoint);
        AllowedNodes::new(self.nodes.allowed_nodes.iter().map(String::as_str), configured)
    }
}

/// Checks one text of `[nodes]` or `[credentials]` with the registry's parser. Accepts any text of a key that has no parser.
pub(super) fn text_form(key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
    let is_mask = match key {
        "nodes.upstream" => text.contains(MASK) && masked_url(text) == text,
        "credentials.password" | "credentials.token" => text == MASK,
        _ => false,
    };
    if is_mask {
        return Err(mask_given(key, place));
    }
    let zookeeper = |config| {
        let zookeeper = Some(config);
        Config {
            zookeeper,
            ..Config::default()
        }
        .check()
    };
    match key {
        "nodes.upstream" => Upstream::from_str(text).map(drop),
        ZooKeeperAuth::KEY => return ZooKeeperAuth::check_text(place, text),
        "nodes.allowed_nodes" => AllowedNode::from_str(text).map(drop),
        "nodes.dns" => DnsName::from_str(text).map(drop),
        "nodes.zookeeper" if !text.is_empty() => zookeeper(ZooKeeperConfig::new(text)),
        "nodes.zookeeper_path" => zookeeper(ZooKeeperConfig {
            path: text.to_owned(),
            ..ZooKeeperConfig::new("localhost")
        }),
        _ => Ok(()),
    }
    .map_err(|error| refused(key, place, &error))
}

fn parsed<'a, T>(key: &str, texts: impl Iterator<Item = &'a str>) -> Result<Vec<T>, SettingsError>
where
    T: FromStr<Err = RegistryError>,
{
    texts
        .map(|text| {
            text.parse()
                .map_err(|error| refused(key, &Place::Default, &error))
        })
        .collect()
}

/// Returns the registry's error about a value, with the name of the settings key.
fn refused(key: &str, place: &Place, error: &RegistryError) -> SettingsError {
    let rule = match error {
        RegistryError::Address { text, wanted, reason } => {
            format!("{key} must be {wanted}, not {:?}: {reason}", masked_url(text))
        }
        RegistryError::Setting { value, reason, .. } => {
            format!("{key} cannot be {:?}: {reason}", masked_url(value))
        }
        other => format!("{key}: {other}"),
    };
    SettingsError::Conflict {
        place: place.clone(),
        rule,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_masked_secret_is_refused() {
        for text in [
            "[nodes]\nupstream = [\"nats://u:***@h:1\"]",
            "[nodes]\nzookeeper_auth = \"u:***\"",
            "[credentials]\ntoken = \"***\"",
        ] {
            let error = Settings::from_toml(text).unwrap_err().to_string();
            assert!(
                error.contains("settings:2") && error.contains("--print-config"),
                "{error}"
            );
        }
        assert!(Settings::from_toml("[nodes]\nupstream = [\"nats://u:p@h:1\"]").is_ok());
    }

    #[test]
    fn the_registry_gets_the_settings_of_every_source() {
        let settings = Settings::from_toml(
            "[nodes]\nzookeeper = \"z1:2181,z2:2181/app\"\nzookeeper_path = \"/n\"\nzookeeper_auth = \"u:p\"\n\
             zookeeper_session_timeout_ms = 9000\nupstream = [\"nats://u:p@h:4333\", \"h2\"]\ndns = [\"nats.svc:4222\"]\n\
             dns_refresh_ms = 2000\ndns_server = \"127.0.0.1:53\"\ncache_file = \"/var/x\"\ngossip = false\nnodes_max = 7\n",
        )
        .unwrap();
        let config = settings.registry_config().unwrap();
        let zookeeper = config.zookeeper.unwrap();
        assert_eq!(zookeeper.hosts, "z1:2181,z2:2181/app");
        assert_eq!(zookeeper.path, "/n");
        assert_eq!(zookeeper.session_timeout_ms, 9000);
        assert_eq!(zookeeper.digest_auth.as_deref(), Some("u:p"));
        assert_eq!(config.fixed.len(), 2);
        assert_eq!(config.fixed[1].endpoint.port, 4222);
        assert_eq!(config.dns.len(), 1);
        assert_eq!(config.dns_refresh_ms, 2000);
        assert_eq!(config.dns_server, "127.0.0.1:53".parse().ok());
        assert_eq!(config.cache_file, Some(PathBuf::from("/var/x")));
        assert!(!config.gossip);
        assert_eq!(config.nodes_max, 7);
    }

    #[test]
    fn zookeeper_credentials_are_read_from_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth");
        let text = format!(
            "[nodes]\nzookeeper = \"z\"\nzookeeper_auth_file = {:?}\n",
            path.display().to_string()
        );
        let settings = Settings::from_toml(&text).unwrap();
        assert_eq!(settings.registry_config().unwrap_err().kind(), "unreadable");
        std::fs::write(&path, "zk:pass\n").unwrap();
        let auth = settings.registry_config().unwrap().zookeeper.unwrap().digest_auth;
        assert_eq!(auth.as_deref(), Some("zk:pass"));
    }

    #[test]
    fn errors_of_addresses_have_a_hint_and_no_password() {
        for (text, hint) in [
            (
                "zookeeper = \"zk1:2181;zk2:2181\"",
                "hosts are separated by ',', not ';'",
            ),
            ("upstream = [\"nats://a:1;nats://b:2\"]", "several addresses"),
            (
                "upstream = [\"nats://u:hunter2@a:1,nats://u:hunter2@b:2\"]",
                "several addresses",
            ),
            ("dns = [\"a:1;b:2\"]", "several addresses"),
        ] {
            let error = Settings::from_toml(&format!("[nodes]\n{text}\n"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(hint) && !error.contains("hunter2"), "{error}");
        }
        for text in [
            "zookeeper = \"u:hunter2@h:4\"",
            "allowed_nodes = [\"nats://u:hunter2@x\"]",
            "gossip = \"hunter2\"",
        ] {
            let error = Settings::from_toml(&format!("[nodes]\n{text}\n"))
                .unwrap_err()
                .to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = Settings::from_toml("[nodes]\nupstream = [\"http://u:hunter2@x\"]\n").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
