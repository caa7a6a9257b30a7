//! The Containerfiles and the Compose file: valid, and working. Each service runs as the file says (command, environment, user, volumes,
//! names of the others), and its own health check says when it serves.
//!
//! Images are not built, because that needs a registry: the programs under test are put where the images have them, and `/usr` and the
//! ZooKeeper of this machine stand for those of the base images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::container::{Container, volume};
use e2e::http::Endpoint;
use e2e::image::{Image, texts};
use e2e::process::Program;
use e2e::{Lan, TIMEOUT, eventually, manifests, peers};
use serde_json::Value;
use tempfile::TempDir;

/// The user of the official image of ZooKeeper.
const ZOOKEEPER_USER: u32 = 1000;
const ZOOKEEPER_START: Duration = Duration::from_secs(60);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn image(program: &str) -> Image {
    let binary = match program {
        "broker" => peers::broker_binary(),
        _ => peers::sidecar_binary(),
    };
    Image::read(&deploy().join(format!("Containerfile.{program}")), binary)
}

#[test]
fn the_containerfiles_have_no_fault() {
    for program in ["broker", "proxy"] {
        let found = manifests::lint(&deploy().join(format!("Containerfile.{program}")));
        assert_eq!(found, "", "{program}");
    }
}

#[test]
fn a_wrong_key_in_the_compose_file_is_refused() {
    let text = std::fs::read_to_string(deploy().join("compose.yaml")).expect("the Compose file");
    let folder = TempDir::new().expect("a temporary folder");
    let wrong = folder.path().join("compose.yaml");
    std::fs::write(&wrong, text.replace("read_only:", "readonly:")).expect("a file");
    let error = manifests::compose(&wrong).expect_err("a wrong key");
    assert!(error.contains("'readonly'"), "{error}");
}

/// Stands for the official image of ZooKeeper, whose entry point also writes the file `myid`.
fn zookeeper_image(service: &Value) -> Image {
    let java = std::fs::canonicalize("/usr/bin/java").expect("Java");
    let jars = ["zookeeper", "slf4j-simple"].map(|jar| format!("/usr/share/java/{jar}.jar"));
    let (java, jars) = (java.display().to_string(), jars.join(":"));
    let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
    let entrypoint = [
        &java,
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-cp",
        &jars,
        main,
    ];
    Image {
        entrypoint: [&entrypoint[..], &["/conf/zoo.cfg"]]
            .concat()
            .iter()
            .map(|&word| word.to_owned())
            .collect(),
        environment: Vec::new(),
        user: (ZOOKEEPER_USER, ZOOKEEPER_USER),
        health_check: texts(&service["healthcheck"]["test"]).split_off(1),
        binary: None,
    }
}

/// The services of the Compose file, each on a host of its own.
struct Composed {
    content: Value,
    names: Vec<String>,
    lan: Lan,
    folder: TempDir,
    volumes: Vec<TempDir>,
    running: BTreeMap<String, Container>,
}

impl Composed {
    fn read() -> Self {
        let content =
            manifests::compose(&deploy().join("compose.yaml")).unwrap_or_else(|error| panic!("{error}"));
        let services = content["services"].as_object().expect("services");
        // A service in the network of another one has no host of its own.
        let names = services
            .iter()
            .filter(|(_, service)| service["network_mode"].is_null());
        let names: Vec<String> = names.map(|(name, _)| name.clone()).collect();
        let folder = TempDir::new().expect("a temporary folder");
        for (name, file) in content["configs"].as_object().expect("configs") {
            let text = file["content"].as_str().expect("the content of a file");
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        let lan = Lan::new(names.len());
        lan.add_default_routes();
        Self {
            lan,
            content,
            names,
            folder,
            volumes: Vec::new(),
            running: BTreeMap::new(),
        }
    }

    fn host_number(&self, name: &str) -> usize {
        self.names.iter().position(|own| own == name).expect("a service")
    }

    fn start(&mut self, name: &str, image: &Image) {
        let service = &self.content["services"][name];
        let host = |(number, name): (usize, &String)| format!("{} {name}\n", self.lan.host(number).address());
        let hosts: String = self.names.iter().enumerate().map(host).collect();
        let mut builder = Container::of(image)
            .args(texts(&service["command"]))
            .hosts(&hosts);
        for mount in texts(&service["volumes"]) {
            let (_, target) = mount.split_once(':').expect("NAME:PATH");
            let volume = volume(image.user.0, image.user.1);
            if let Some(number) = service["environment"]["ZOO_MY_ID"].as_str() {
                std::fs::write(volume.path().join("myid"), number).expect("a file");
            }
            builder = builder.mount(volume.path(), target);
            self.volumes.push(volume);
        }
        for config in service["configs"].as_array().into_iter().flatten() {
            let [source, target] = ["source", "target"].map(|key| config[key].as_str().expect("a text"));
            builder = builder.mount(&self.folder.path().join(source), target);
        }
        for settings in settings_of_java() {
            let target = settings.display().to_string();
            builder = builder.mount(&settings, &target);
        }
        let started = builder.start(self.lan.host(self.host_number(name)), name);
        self.running.insert(name.to_owned(), started);
    }

    /// Waits until the services in `depends_on` of this one are healthy.
    async fn wait_for_dependencies(&self, name: &str) {
        let dependencies = self.content["services"][name]["depends_on"].as_object();
        for (other, what) in dependencies.into_iter().flatten() {
            assert_eq!(what["condition"], "service_healthy");
            let what = format!("{other} is healthy");
            eventually(what, ZOOKEEPER_START, async || {
                self.running[other].is_healthy().await
            })
            .await;
        }
    }
}

/// Returns the folders to which the Java of Debian links from `/usr`.
fn settings_of_java() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/etc")
        .expect("/etc")
        .flatten()
        .map(|entry| entry.path());
    let is_java = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("java-"))
    };
    entries.filter(is_java).collect()
}

#[tokio::test]
async fn the_old_client_of_the_compose_file_goes_on_when_its_broker_is_killed() {
    let mut composed = Composed::read();
    for name in ["zookeeper-1", "zookeeper-2", "zookeeper-3"] {
        let image = zookeeper_image(&composed.content["services"][name]);
        composed.start(name, &image);
    }
    // The sidecar depends on no other service.
    composed.start("sidecar", &image("proxy"));
    for name in ["broker-1", "broker-2", "broker-3"] {
        composed.wait_for_dependencies(name).await;
        composed.start(name, &image("broker"));
    }
    composed.wait_for_dependencies("component").await;

    // The health of the component is in a file in /tmp. This client is in no container, so the file is moved to a folder of this test.
    let component = &composed.content["services"]["component"];
    let arrived = composed.folder.path().join("arrived").display().to_string();
    let own = |text: &str| text.replace("/tmp/arrived", &arrived);
    let script = composed.folder.path().join("component.py");
    let text = std::fs::read_to_string(&script).expect("the component");
    std::fs::write(&script, own(&text)).expect("a file");
    assert_eq!(component["network_mode"], "service:sidecar");
    let host = composed.lan.host(composed.host_number("sidecar"));
    let python = || Program::new(peers::folder().join("python/bin/python"));
    let mut client = python().arg("-u").arg(&script).inside(host).start("component");
    client.wait_for_line("numbers 2", TIMEOUT).await;

    let (address, netns) = ((host.address(), 8222).into(), Some(host.name().to_owned()));
    let pages = Endpoint { address, netns };
    let sessions = pages.get_json("/sessionz").await.expect("the sessions");
    let node = sessions["items"][0]["node"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let is_node = |number: usize| node.contains(&composed.lan.host(number).address().to_string());
    let killed = (0..composed.names.len()).find(|number| is_node(*number));
    let killed = composed.names[killed.unwrap_or_else(|| panic!("{sessions}"))].clone();
    assert!(killed.starts_with("broker-"), "{sessions}");
    let broker = composed.running.get_mut(&killed).expect("a broker");
    assert!(broker.is_healthy().await);
    broker.process().kill();

    let mark = client.mark();
    client.wait_for_line_after(mark, "numbers", TIMEOUT).await;
    client.wait_for_line_after(mark + 1, "numbers", TIMEOUT).await;
    let check = texts(&component["healthcheck"]["test"]);
    let check = check[2..].iter().map(|word| own(word));
    let checked = python()
        .args(check)
        .start("the health check")
        .wait_for_end(TIMEOUT)
        .await;
    assert!(checked.success());
}

/// The image's own health check, which Compose and Podman run.
#[tokio::test]
async fn a_container_that_does_not_answer_is_not_healthy() {
    let lan = Lan::new(2);
    for (host, program, args) in [
        (0, "broker", "--port=4333"),
        (1, "proxy", "--upstream=127.0.0.1:4333"),
    ] {
        let image = image(program);
        let state = volume(image.user.0, image.user.1);
        let mut container = Container::of(&image)
            .args([args.to_owned()])
            .mount(state.path(), "/var/lib/standin")
            .start(lan.host(host), program);
        container.wait_until_healthy().await;
        container.signal(nix::sys::signal::Signal::SIGSTOP).await;
        assert!(!container.is_healthy().await, "{program}");
    }
}
