//! The manifests for Kubernetes and the Helm chart: valid, restricted, and working. Each container runs as its manifest says (arguments,
//! environment, user, volumes, names of the other pods), and the test does what the kubelet does: probes, preStop hook, SIGTERM.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::container::{Container, volume};
use e2e::http::Endpoint;
use e2e::image::{Image, texts};
use e2e::{Lan, Netns, Publishing, RawClient, Receiving, TIMEOUT, eventually, manifests, peers};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const BROKERS: usize = 3;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn chart(values: &Value) -> Vec<Value> {
    let made = manifests::chart(&deploy().join("helm/standin"), values);
    made.unwrap_or_else(|error| panic!("the chart with {values}: {error}"))
}

fn file(name: &str) -> Vec<Value> {
    manifests::kubernetes(&deploy().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the only object of this kind.
fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "several {kind}");
    one
}

fn sorted(objects: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    texts.sort();
    texts
}

#[test]
fn the_manifest_of_the_brokers_is_what_the_chart_makes() {
    let is_test = |object: &Value| object["metadata"]["annotations"]["helm.sh/hook"] == "test";
    let made = chart(&json!({})).into_iter().filter(|object| !is_test(object));
    let made: Vec<Value> = made.collect();
    assert_eq!(sorted(&file("broker-kubernetes.yaml")), sorted(&made));
}

#[test]
fn the_chart_is_valid_with_each_of_its_values() {
    let settings = "[limits]\nmax_payload = 4096\n";
    let made = chart(&json!({
        "fullnameOverride": "queue",
        "imagePullSecrets": ["registry"],
        "broker": {
            "replicas": 5, "settings": settings, "secrets": ["settings", "queue.tls"], "hostAntiAffinity": "preferred",
            "env": [{ "name": "STANDIN_LOG_LEVEL", "value": "debug" }],
            "lameDuck": { "graceSecs": 5, "secs": 295 },
            "nodeSelector": { "disk": "none" }, "tolerations": [{ "key": "queue", "operator": "Exists" }],
            "priorityClassName": "high", "podLabels": { "team": "queue" }, "podAnnotations": { "a": "b" },
            "service": { "type": "LoadBalancer", "annotations": { "internal": "true" } },
        },
        "networkPolicy": { "clients": [{ "podSelector": {} }], "pages": [{ "namespaceSelector": {} }] },
    }));
    assert_eq!(only(&made, "ConfigMap")["data"]["broker.toml"], settings);
    let pod = &only(&made, "StatefulSet")["spec"]["template"]["spec"];
    let args = texts(&pod["containers"][0]["args"]);
    // Only the first three: the arguments stay the same when nodes are added, so no running node restarts.
    let routes = "--routes=nats://queue-0.queue-headless:6222,nats://queue-1.queue-headless:6222,\
                  nats://queue-2.queue-headless:6222";
    assert!(args.contains(&routes.to_owned()), "{args:?}");
    assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(300));
    // Names of volumes differ, and have no dots.
    let volumes: Vec<&Value> = pod["volumes"].as_array().into_iter().flatten().collect();
    let names: Vec<&Value> = volumes.iter().map(|volume| &volume["name"]).collect();
    assert_eq!(names, ["settings", "secret-0", "secret-1"]);
    assert_eq!(volumes[2]["secret"]["secretName"], "queue.tls");
    let mounted = &pod["containers"][0]["volumeMounts"][2];
    assert_eq!(mounted["name"], "secret-1");
    assert_eq!(mounted["mountPath"], "/etc/standin-secrets/queue.tls");

    let servers = "zk-0.zk:2181,zk-1.zk:2181";
    let made = chart(&json!({ "zookeeper": servers, "broker": { "settingsSecret": "s", "replicas": 1 } }));
    let pod = &only(&made, "StatefulSet")["spec"]["template"]["spec"];
    let args = texts(&pod["containers"][0]["args"]);
    assert!(args.contains(&format!("--zookeeper={servers}")), "{args:?}");
    assert!(!args.iter().any(|arg| arg.starts_with("--routes")), "{args:?}");
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], "s");

    assert_eq!(
        chart(&json!({ "broker": { "enabled": false } })),
        [] as [Value; 0]
    );
    for (wrong, why) in [
        (json!({ "broker": { "replica": 3 } }), "'replica' not allowed"),
        (
            json!({ "broker": { "hostAntiAffinity": "never" } }),
            "must be one of",
        ),
        (
            json!({ "broker": { "env": [{ "name": "A", "valu": "b" }] } }),
            "valu",
        ),
    ] {
        let error = manifests::chart(&deploy().join("helm/standin"), &wrong).expect_err("a wrong value");
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

/// The profile `restricted` of the Pod Security Standards, as far as it is about fields that these manifests have.
#[test]
fn the_containers_have_no_rights() {
    let brokers = file("broker-kubernetes.yaml");
    let component = file("proxy-kubernetes.yaml");
    let brokers = &only(&brokers, "StatefulSet")["spec"]["template"]["spec"];
    let component = &only(&component, "Deployment")["spec"]["template"]["spec"];
    for (pod, container) in [
        (brokers, &brokers["containers"][0]),
        (component, &component["initContainers"][0]),
    ] {
        let (name, rights) = (&container["name"], &container["securityContext"]);
        assert_eq!(rights["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(rights["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(rights["runAsNonRoot"], true, "{name}");
        assert_eq!(rights["capabilities"]["drop"], json!(["ALL"]), "{name}");
        assert_eq!(rights["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(pod[forbidden], Value::Null, "{name}");
        }
    }
}

/// A chart that depends on this one needs two lines for the sidecar. It sets the values of this chart below the key `standin`.
#[test]
fn the_sidecar_of_the_chart_is_that_of_the_manifest() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of the chart");
        std::fs::write(path, text).expect("a file of the chart");
    };
    let readme =
        std::fs::read_to_string(deploy().join("helm/standin/README.md")).expect("the README of the chart");
    let blocks: Vec<&str> = readme
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or(rest))
        .collect();
    let [dependency, values, pod] = blocks[..] else {
        panic!("README.md of the chart has {} blocks of yaml", blocks.len());
    };
    write(
        "Chart.yaml",
        &format!("apiVersion: v2\nname: component\nversion: 1.0.0\n{dependency}"),
    );
    write("values.yaml", values);
    write("templates/pod.yaml", pod);
    std::fs::create_dir(folder.path().join("charts")).expect("the folder of dependencies");
    let copy = Command::new("cp")
        .arg("-r")
        .arg(deploy().join("helm/standin"))
        .arg(folder.path().join("charts"))
        .status();
    assert!(copy.expect("cp").success());

    let made = manifests::chart(folder.path(), &json!({})).unwrap_or_else(|error| panic!("{error}"));
    let pod = &only(&made, "Deployment")["spec"]["template"]["spec"];
    let manifest = file("proxy-kubernetes.yaml");
    let manifest = &only(&manifest, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["initContainers"], manifest["initContainers"]);
    assert_eq!(pod["volumes"], manifest["volumes"]);
}

/// A pod on a host of its own, with the container under test.
struct Pod<'a> {
    name: String,
    spec: &'a Value,
    container: &'a Value,
    netns: &'a Netns,
    running: Container,
    _volumes: Vec<TempDir>,
}

impl<'a> Pod<'a> {
    /// Starts the container `kind` (`containers`, or `initContainers`) of a pod, as the kubelet does.
    fn start(name: &str, spec: &'a Value, kind: &str, image: &Image, netns: &'a Netns, hosts: &str) -> Self {
        let container = &spec[kind][0];
        let mut volumes = Vec::new();
        let environment = environment(name, container);
        let expanded = |text: String| {
            let expand =
                |text: String, (name, value): &(String, String)| text.replace(&format!("$({name})"), value);
            environment.iter().fold(text, expand)
        };
        let args = texts(&container["args"]).into_iter().map(expanded);
        let mut builder = Container::of(image).args(args).hosts(hosts);
        for (name, value) in &environment {
            builder = builder.env(name, value);
        }
        let (user, group) = user(spec, container);
        builder = builder.user(user, group);
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let volume = volume(user, group);
            builder = builder.mount(volume.path(), mount["mountPath"].as_str().expect("a path"));
            volumes.push(volume);
        }
        Self {
            running: builder.start(netns, name),
            name: name.to_owned(),
            spec,
            container,
            netns,
            _volumes: volumes,
        }
    }

    /// Returns the status of the answer to a probe, which the kubelet sends to the address of the pod.
    async fn probe(&self, kind: &str) -> Option<u16> {
        let get = &self.container[kind]["httpGet"];
        let ports = self.container["ports"].as_array().expect("ports").iter();
        let port = ports.clone().find(|port| port["name"] == get["port"]);
        let port = port
            .and_then(|port| port["containerPort"].as_u64())
            .expect("the port of the probe");
        let address = (self.netns.address(), u16::try_from(port).expect("a port")).into();
        let netns = Some(self.netns.name().to_owned());
        let answer = Endpoint { address, netns }
            .get(get["path"].as_str().expect("a path"))
            .await;
        answer.map(|(status, _)| status)
    }

    /// Waits until the startup probe succeeds, as long as the manifest allows.
    async fn started(&self) {
        let probe = &self.container["startupProbe"];
        let number = |key: &str| probe[key].as_u64().expect("a number");
        let limit = Duration::from_secs(number("periodSeconds") * number("failureThreshold"));
        let what = format!("{}: the startup probe", self.name);
        eventually(what, limit, async || {
            self.probe("startupProbe").await == Some(200)
        })
        .await;
    }

    /// Ends the pod as the kubelet does: the preStop hook, and SIGTERM at once after it. Fails if the pod has not ended with code 0 when
    /// the kubelet would send SIGKILL, at the end of the grace period.
    async fn end(&mut self) {
        let hook = texts(&self.container["lifecycle"]["preStop"]["exec"]["command"]);
        if !hook.is_empty() {
            assert!(self.running.run(&hook).await.success(), "{}: {hook:?}", self.name);
        }
        self.running.signal(Signal::SIGTERM).await;
        let grace = self.spec["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("a grace period");
        let ended = self
            .running
            .process()
            .wait_for_end(Duration::from_secs(grace))
            .await;
        assert_eq!(ended.code(), Some(0), "{}", self.name);
    }

    /// Returns a page of the container, as JSON.
    async fn page(&self, path: &str) -> Value {
        let (address, netns) = (
            (self.netns.address(), 8222).into(),
            Some(self.netns.name().to_owned()),
        );
        Endpoint { address, netns }
            .get_json(path)
            .await
            .unwrap_or_default()
    }
}

/// Returns the user and the group of a container. Its own security context comes before that of its pod.
fn user(spec: &Value, container: &Value) -> (u32, u32) {
    let id = |key: &str| {
        let of = |object: &Value| object["securityContext"][key].as_u64();
        u32::try_from(of(container).or(of(spec)).expect("a user with a number")).expect("a user")
    };
    (id("runAsUser"), id("runAsGroup"))
}

/// Returns the variables of a container in the pod `pod`.
fn environment(pod: &str, container: &Value) -> Vec<(String, String)> {
    let variables = container["env"].as_array().expect("env").iter();
    let variable = |variable: &Value| {
        let field = &variable["valueFrom"]["fieldRef"]["fieldPath"];
        let value = match field.as_str() {
            Some("metadata.name") => pod,
            Some(other) => panic!("the field {other}"),
            None => variable["value"].as_str().expect("a value"),
        };
        (
            variable["name"].as_str().expect("a name").to_owned(),
            value.to_owned(),
        )
    };
    variables.map(variable).collect()
}

/// Returns the `/etc/hosts` with the names that the headless service gives to the pods, and the name of the service for clients.
fn names(brokers: &Value, lan: &Lan) -> String {
    let (set, service) = (&brokers["metadata"]["name"], &brokers["spec"]["serviceName"]);
    let [set, service] = [set, service].map(|name| name.as_str().expect("a name"));
    let line = |number| {
        let address = lan.host(number).address();
        format!("{address} {set}-{number}.{service}\n{address} {service}\n")
    };
    let client = format!("{} {set}\n", lan.host(0).address());
    (0..BROKERS).map(line).chain([client]).collect()
}

#[tokio::test]
async fn the_pods_find_each_other_and_the_component_stays_connected_when_one_is_ended() {
    let images = ["broker", "proxy"].map(|name| deploy().join(format!("Containerfile.{name}")));
    let broker_image = Image::read(&images[0], peers::broker_binary());
    let sidecar_image = Image::read(&images[1], peers::sidecar_binary());
    let (brokers, component) = (file("broker-kubernetes.yaml"), file("proxy-kubernetes.yaml"));
    let set = only(&brokers, "StatefulSet");
    assert_eq!(set["spec"]["replicas"], BROKERS);
    let lan = Lan::new(BROKERS + 1);
    lan.add_default_routes();
    let hosts = names(set, &lan);

    // The pod of the component starts first. Without any node the sidecar is well.
    let spec = &only(&component, "Deployment")["spec"]["template"]["spec"];
    let mut sidecar = Pod::start(
        "component",
        spec,
        "initContainers",
        &sidecar_image,
        lan.host(BROKERS),
        &hosts,
    );
    sidecar.started().await;
    assert_eq!(sidecar.probe("livenessProbe").await, Some(200));

    let spec = &set["spec"]["template"]["spec"];
    let start = |number: usize| {
        let name = format!("{}-{number}", set["metadata"]["name"].as_str().expect("a name"));
        Pod::start(&name, spec, "containers", &broker_image, lan.host(number), &hosts)
    };
    let mut pods: Vec<Pod<'_>> = (0..BROKERS).map(start).collect();
    for pod in &pods {
        pod.started().await;
        let what = format!("{} has a route to each other", pod.name);
        let others = BROKERS - 1;
        eventually(what, TIMEOUT, async || {
            pod.page("/routez").await["num_routes"] == others
        })
        .await;
        assert_eq!(pod.probe("readinessProbe").await, Some(200));
        assert_eq!(pod.page("/varz").await["server_name"], pod.name);
    }

    // The pod of `helm test`, which any image with a shell can run.
    let made = chart(&json!({}));
    let test = texts(&only(&made, "Pod")["spec"]["containers"][0]["command"]);
    assert!(sidecar.running.run(&test).await.success(), "{test:?}");

    // The component uses the address that it has always used.
    let old_address = SocketAddr::from(([127, 0, 0, 1], 4222));
    let connect = async || {
        RawClient::open_over(lan.host(BROKERS).connect(old_address).await.expect("the sidecar")).await
    };
    let receiving = Receiving::start(connect().await.subscribed("numbers").await, "the component");
    let publishing = Publishing::start(connect().await, "component", "numbers", Duration::from_millis(5));
    let arrived = async |more: u64| {
        let target = receiving.count() + more;
        eventually("messages arrive", TIMEOUT, async || receiving.count() >= target).await;
    };
    arrived(20).await;
    let sessions = sidecar.page("/sessionz").await;
    let node = sessions["items"][0]["node"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let place = pods
        .iter()
        .position(|pod| node.contains(&pod.netns.address().to_string()));
    let place = place.unwrap_or_else(|| panic!("no pod is the node of the session: {sessions}"));
    pods[place].end().await;
    arrived(20).await;
    let (publisher, _) = publishing.stop().await;
    assert_eq!(publisher.ending(), None, "the publisher's connection ended");
    let (subscriber, _) = receiving.stop().await;
    assert_eq!(subscriber.ending(), None, "the subscriber's connection ended");
    drop((publisher, subscriber));

    // Without any node the sidecar is still not killed.
    for (number, pod) in pods.iter_mut().enumerate() {
        if number != place {
            pod.running.process().kill();
        }
    }
    assert_eq!(sidecar.probe("livenessProbe").await, Some(200));
    sidecar.end().await;
}
