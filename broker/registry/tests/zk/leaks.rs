//! Check for leaked threads, descriptors and tasks. They are counted in a separate process, because other tests run in this one. So
//! the test starts itself again, alone.

use std::process::Command;
use std::time::Duration;

use e2e::port::free_port;
use e2e::{ZooKeeper, eventually};
use tokio::net::TcpListener;

use super::child::{HOSTS_VARIABLE, hosts_for_a_child};
use super::{TIMEOUT, connections};

/// Runs `work` of the test `name` several times with each of three host lists: a running server, a closed port, and a server that
/// never answers. The second argument of `work` is whether to wait for an orderly end. Asserts that no thread, descriptor or task
/// remains.
pub(crate) fn assert_no_resources_remain(name: &str, work: impl AsyncFn(String, bool)) {
    if hosts_for_a_child().is_none() {
        let alone = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(HOSTS_VARIABLE, "set by the child")
            .output()
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&alone.stdout),
            String::from_utf8_lossy(&alone.stderr),
        );
        assert!(alone.status.success(), "{out}{err}");
        assert!(out.contains("1 passed"), "there is no test {name}: {out}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_keep_alive(Duration::from_millis(1))
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = ZooKeeper::start().await;
        let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hosts = [
            server.hosts(),
            format!("127.0.0.1:{}", free_port()),
            hung.local_addr().unwrap().to_string(),
        ];
        let before = counts();
        for in_good_order in [false, true, false, true] {
            for hosts in &hosts {
                work(hosts.clone(), in_good_order).await;
            }
        }
        let what = "the numbers of threads, descriptors and tasks are as before";
        eventually(what, TIMEOUT, async || counts() == before).await;
        eventually("the server has no client left", TIMEOUT, async || {
            connections(&server).await == Some(0)
        })
        .await;
    });
}

fn counts() -> (usize, usize, usize) {
    let count = |folder| std::fs::read_dir(folder).unwrap().count();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    (count("/proc/self/task"), count("/proc/self/fd"), tasks)
}
