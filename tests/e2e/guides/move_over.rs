//! `deploy/move-over.md`: every step and its way back, with an old client that is connected from the first step to the last.

use super::{TIMEOUT, for_node, machine, nodes_become, rows, sessions_become, start_nats_server};
use crate::site::is_served;
use e2e::{Component, Ensemble, Guide, Lan, Library, Machine, eventually};

/// The machines: that of the component, and those of the nodes 1 to 3. Node 1 has the old server.
struct Site {
    here: Machine,
    nodes: [Machine; 3],
    component: Component,
    /// Messages so far.
    count: usize,
}

impl Site {
    /// Waits until these nodes are up, and checks that the component is served and has noticed nothing.
    async fn works_with(&mut self, nodes: &[usize]) {
        nodes_become(&self.here, nodes).await;
        self.is_served().await;
    }

    /// Waits until the component has another node than the old one, and checks as [`works_with`](Self::works_with) does.
    async fn works_without_old(&mut self) {
        eventually("the session leaves the old server", TIMEOUT, async || {
            let rows = rows(&self.here, "/sessionz");
            rows.len() == 1 && rows[0]["node"] != "10.0.0.1:4222"
        })
        .await;
        self.is_served().await;
    }

    async fn is_served(&mut self) {
        sessions_become(&self.here, 1).await;
        self.count += 1;
        is_served(&mut self.component, &format!("message-{}", self.count)).await;
    }

    fn old(&self) -> &Machine {
        &self.nodes[0]
    }

    /// Runs a block on the machines of nodes 2 and 3.
    fn run_on_new(&self, block: &str) {
        for number in [2, 3] {
            self.nodes[number - 1].run(&for_node(block, number));
        }
    }
}

#[tokio::test]
async fn a_live_system_moves_over_and_back_as_the_guide_says() {
    let mut guide = Guide::read("move-over.md");
    let lan = Lan::new(7);
    let _zookeeper = Ensemble::start_on_usual_ports([4, 5, 6].map(|number| lan.host(number))).await;
    let hosts = [4, 5, 6].map(|number| format!("{} zk{}", lan.host(number).address(), number - 3));
    let hosts = hosts.join("\n");
    let here = machine(&lan, 0, "10.0.0.5", &hosts).await;
    let nodes = [
        machine(&lan, 1, "10.0.0.1", &hosts).await,
        machine(&lan, 2, "10.0.0.2", &hosts).await,
        machine(&lan, 3, "10.0.0.3", &hosts).await,
    ];
    start_nats_server(&nodes[0], "10.0.0.1");

    let step_1 = "Step 1: a sidecar in front of the old server";
    let settings_1 = guide.next(step_1);
    here.run(&settings_1);
    run_doctor(&here, &guide.next(step_1));
    here.run(&guide.next(step_1));
    // A library that never reconnects: it fails if its connection is closed.
    let url = "nats://127.0.0.1:4222";
    let mut component = Component::connect_on(&here, Library::NatsPython, url).await;
    component.subscribe("own", "own");
    component.flush().await;
    let mut site = Site {
        here,
        nodes,
        component,
        count: 0,
    };
    site.works_with(&[1]).await;
    let look = site.here.run(&guide.next(step_1));
    assert!(
        look.contains("\"ready\":true") && look.contains("\"flowing\""),
        "{look}"
    );
    let back_1 = guide.next(step_1);

    let step_2 = "Step 2: find nodes in ZooKeeper";
    site.old().run(&guide.next(step_2));
    site.here.run(&guide.next(step_2));
    run_doctor(&site.here, &guide.next(step_2));
    site.here.run(&guide.next(step_2));
    let look = guide.next(step_2);
    eventually("the node is found in ZooKeeper", TIMEOUT, async || {
        site.here.run(&look).contains("\"source\":\"zookeeper\"")
    })
    .await;
    site.works_with(&[1]).await;
    let back_2 = guide.next(step_2);

    with_nats_server(&mut guide, &mut site).await;
    with_standin_broker(&mut guide, &mut site).await;

    site.here.run(&settings_1);
    site.here.run("systemctl reload standin-proxy");
    site.old().run(&back_2);
    site.works_with(&[1]).await;
    site.here.run(&back_1);
    guide.assert_all_taken();
}

/// Runs a block with `doctor`, which may end with warnings. It is repeated while it fails, because the agent that was started before it may
/// not have registered its server yet.
fn run_doctor(machine: &Machine, block: &str) {
    machine.run(&format!("until {{ {block}\n}} || [ $? = 1 ]; do sleep 0.2; done"));
}

/// Steps 3 and 4 with `nats-server`, and back to the end of step 2.
async fn with_nats_server(guide: &mut Guide, site: &mut Site) {
    let (step_3, step_4) = ("With nats-server", "More nodes of nats-server");
    site.old().run(&guide.next(step_3));
    site.works_with(&[1]).await;
    site.here.run(&guide.next(step_3));
    let back_3 = guide.next(step_3);

    site.run_on_new(&guide.next(step_4));
    site.works_with(&[1, 2, 3]).await;
    site.old().run(&guide.next(step_4));
    site.works_without_old().await;
    let look = site.here.run(&guide.next(step_4));
    assert!(look.contains("10.0.0.3:4222"), "{look}");
    // A nats-server in lame duck mode takes ten seconds to end, so it is killed. Its agent has marked it as draining. The sidecar must have
    // seen that this record is gone, or the session would leave the new server because of it.
    site.old().run("systemctl kill -s KILL nats-server");
    eventually("the old server is not registered", TIMEOUT, async || {
        let rows = rows(&site.here, "/nodez");
        let mut old = rows.iter().filter(|row| row["client"] == "10.0.0.1:4222");
        old.all(|row| row["source"] != "zookeeper")
    })
    .await;
    site.old().run("systemctl restart nats-server");
    site.works_with(&[1, 2, 3]).await;
    site.run_on_new(&guide.next(step_4));
    site.works_with(&[1]).await;
    site.old().run(&back_3);
    site.works_with(&[1]).await;
}

/// Steps 3 and 4 with `standin-broker`, and back to the end of step 2.
async fn with_standin_broker(guide: &mut Guide, site: &mut Site) {
    let (step_3, step_4) = ("With standin-broker", "More nodes of standin-broker");
    site.old().run(&guide.next(step_3));
    site.works_with(&[1]).await;
    let back_3 = guide.next(step_3);

    site.run_on_new(&guide.next(step_4));
    site.works_with(&[1, 2, 3]).await;
    site.old().run(&guide.next(step_4));
    site.works_without_old().await;

    site.old().run("systemctl start standin-broker");
    site.works_with(&[1, 2, 3]).await;
    site.run_on_new(&guide.next(step_4));
    site.works_with(&[1]).await;
    site.old().run(&back_3);
    site.works_with(&[1]).await;
}
