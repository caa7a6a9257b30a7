//! A node in this process and raw clients around it: limits, slow and silent clients, many at once, and what is left behind.

use std::time::Duration;

use standin_broker::settings::Millis;
use standin_broker::{Server, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

/// A node on a free port of the loopback address.
fn start(adjust: impl FnOnce(&mut Settings)) -> Server {
    let text = "addr = \"127.0.0.1\"\nport = -1\n[process]\nworkers = 2\n";
    let mut settings = Settings::from_toml(text).expect("settings");
    adjust(&mut settings);
    Server::start(settings).expect("a free port")
}

/// A client played byte by byte.
struct Raw {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Raw {
    /// Connects and takes INFO.
    async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address())
            .await
            .expect("the node listens");
        stream.set_nodelay(true).expect("a socket");
        let mut raw = Self {
            stream,
            heard: Vec::new(),
        };
        let info = raw.line().await;
        assert!(info.starts_with("INFO {"), "{info}");
        raw
    }

    /// Connects and says CONNECT.
    async fn open(server: &Server) -> Self {
        let mut raw = Self::connect(server).await;
        raw.say(CONNECT).await;
        raw.flush().await;
        raw
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .expect("the connection stands");
    }

    /// Waits until the node has taken all that was said. Nothing else may come.
    async fn flush(&mut self) {
        self.say("PING\r\n").await;
        self.hears("PONG\r\n").await;
    }

    /// Exactly these bytes come next.
    #[track_caller]
    fn hears<'a>(&'a mut self, wanted: &'a str) -> impl Future<Output = ()> + 'a {
        let at = std::panic::Location::caller();
        async move {
            // A node asks whether a client lives when it likes to.
            const PING: &[u8] = b"PING\r\n";
            loop {
                let is_ping = self.heard.starts_with(PING) && !wanted.as_bytes().starts_with(PING);
                if is_ping {
                    self.heard.drain(..PING.len());
                } else if self.heard.len() >= wanted.len() || !self.more().await {
                    break;
                }
            }
            let count = wanted.len().min(self.heard.len());
            let heard: Vec<u8> = self.heard.drain(..count).collect();
            let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
            assert!(
                heard == wanted.as_bytes(),
                "{at}: wanted {} bytes {:?}, heard {} bytes {:?}",
                wanted.len(),
                shown(wanted.as_bytes()),
                count,
                shown(&heard)
            );
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line = self.heard.drain(..=end).collect();
                return String::from_utf8(line).expect("UTF-8");
            }
            assert!(self.more().await, "the connection ended");
        }
    }

    /// All that comes until the end.
    async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.heard)).into_owned()
    }

    /// Reads once; `false` at the end.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.heard)).await;
        read.expect("something comes").unwrap_or(0) > 0
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_and_taken_again_when_there_is_room() {
    let server = start(|settings| settings.limits.max_connections = 2);
    let one = Raw::open(&server).await;
    let _two = Raw::open(&server).await;
    let mut three = Raw {
        stream: TcpStream::connect(server.address()).await.expect("it listens"),
        heard: Vec::new(),
    };
    assert_eq!(three.rest().await, "-ERR 'maximum connections exceeded'\r\n");
    drop(one);
    eventually("there is room", || server.clients() == 1).await;
    Raw::open(&server).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_costs_the_others_nothing() {
    let server = start(|settings| settings.limits.max_pending = 1024 * 1024);
    let mut deaf = Raw::open(&server).await;
    deaf.say("SUB flood 1\r\nSUB flood 2\r\n").await;
    deaf.flush().await;
    let mut reader = Raw::open(&server).await;
    reader.say("SUB flood 7\r\n").await;
    reader.flush().await;
    let mut publisher = Raw::open(&server).await;
    let message = format!("PUB flood 1000\r\n{}\r\n", "x".repeat(1000));
    // Far more than the sockets between can hold, and never more on its way than may wait for one client.
    for _ in 0..128 {
        publisher.say(message.repeat(128)).await;
        let mut left = 128 * 1000;
        while left > 0 {
            left -= reader.heard.iter().filter(|byte| **byte == b'x').count();
            reader.heard.clear();
            assert!(left == 0 || reader.more().await, "the one that reads is served");
        }
    }
    publisher.flush().await;
    eventually("the slow consumer is gone", || server.clients() == 2).await;
    eventually("with its subscriptions", || server.subscriptions() <= 1).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_in_time_is_closed() {
    let server = start(|settings| settings.limits.write_deadline_ms = Millis(300));
    let mut deaf = Raw::open(&server).await;
    deaf.say("SUB flood 1\r\n").await;
    deaf.flush().await;
    let mut publisher = Raw::open(&server).await;
    let message = format!("PUB flood 1000\r\n{}\r\n", "x".repeat(1000));
    // More than the sockets between can hold, less than may wait.
    for _ in 0..256 {
        publisher.say(message.repeat(64)).await;
    }
    publisher.flush().await;
    eventually("the slow consumer is gone", || server.clients() == 1).await;
    publisher.flush().await;
}

#[tokio::test]
async fn a_silent_client_is_asked_and_closed_as_stale() {
    let server = start(|settings| {
        settings.limits.ping_interval_ms = Millis(100);
        settings.limits.ping_max = 2;
    });
    let mut silent = Raw::open(&server).await;
    assert_eq!(silent.rest().await, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
    let mut answering = Raw::open(&server).await;
    for _ in 0..6 {
        answering.hears("PING\r\n").await;
        answering.say("PONG\r\n").await;
    }
}

#[tokio::test]
async fn nothing_is_left_of_many_clients_that_come_and_die_at_once() {
    let server = start(|_| {});
    for _ in 0..3 {
        let mut clients = Vec::new();
        for number in 0..500 {
            let mut client = Raw::connect(&server).await;
            let subscriptions = format!(
                "{CONNECT}SUB same 1\r\nSUB own.{number} 2\r\nSUB wild.*.{number} 3\r\nSUB same crew 4\r\nUNSUB 4 5\r\nPING\r\n"
            );
            client.say(subscriptions).await;
            clients.push(client);
        }
        for client in &mut clients {
            client.hears("PONG\r\n").await;
        }
        assert_eq!((server.clients(), server.subscriptions()), (500, 2000));
        clients[0].say("PUB same 1\r\nx\r\n").await;
        for client in &mut clients {
            assert!(client.line().await.starts_with("MSG same "));
        }
        drop(clients);
        eventually("all are gone", || {
            (server.clients(), server.subscriptions()) == (0, 0)
        })
        .await;
    }
    let mut after = Raw::open(&server).await;
    after.say("SUB same 1\r\nPUB same 2\r\nhi\r\n").await;
    after.hears("MSG same 1 2\r\nhi\r\n").await;
}

#[tokio::test]
async fn a_client_that_sends_single_bytes_is_understood() {
    let server = start(|_| {});
    let mut slow = Raw::connect(&server).await;
    for byte in format!("{CONNECT}SUB a.* 1\r\nPUB a.b re 5\r\nhello\r\nPING\r\n").bytes() {
        slow.say([byte]).await;
    }
    slow.hears("MSG a.b 1 re 5\r\nhello\r\nPONG\r\n").await;
}

#[tokio::test]
async fn headers_go_only_to_those_who_take_them() {
    let server = start(|_| {});
    let mut old = Raw::open(&server).await;
    old.say("SUB a 1\r\n").await;
    old.flush().await;
    let mut new = Raw::connect(&server).await;
    new.say("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a 1\r\nHPUB a 15 20\r\nNATS/1.0\r\nA\r\n\r\nhello\r\n")
        .await;
    new.hears("HMSG a 1 15 20\r\nNATS/1.0\r\nA\r\n\r\nhello\r\n")
        .await;
    old.hears("MSG a 1 5\r\nhello\r\n").await;
}

#[tokio::test]
async fn members_of_a_queue_group_get_equal_shares() {
    let server = start(|_| {});
    let mut members = Vec::new();
    for _ in 0..4 {
        let mut member = Raw::open(&server).await;
        member.say("SUB work crew 1\r\n").await;
        member.flush().await;
        members.push(member);
    }
    let mut publisher = Raw::open(&server).await;
    publisher.say("PUB work 1\r\nx\r\n".repeat(4000)).await;
    publisher.flush().await;
    let mut total = 0;
    for member in &mut members {
        member.say("PING\r\n").await;
        let mut share = 0;
        while member.line().await != "PONG\r\n" {
            share += 1;
            member.line().await;
        }
        assert!((850..=1150).contains(&share), "one of four got {share} of 4000");
        total += share;
    }
    assert_eq!(total, 4000, "each message once");
}

#[tokio::test]
async fn large_payloads_reach_each_of_many_subscribers_whole() {
    let server = start(|_| {});
    let mut subscribers = Vec::new();
    for _ in 0..20 {
        let mut subscriber = Raw::open(&server).await;
        subscriber.say("SUB large 1\r\n").await;
        subscriber.flush().await;
        subscribers.push(subscriber);
    }
    let mut publisher = Raw::open(&server).await;
    let payloads: Vec<String> = (0..20u8)
        .map(|number| {
            char::from(b'a' + number)
                .to_string()
                .repeat(8 * 1024 + 37_000 * usize::from(number))
        })
        .collect();
    let reading: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            let payloads = payloads.clone();
            tokio::spawn(async move {
                for payload in &payloads {
                    subscriber
                        .hears(&format!("MSG large 1 {}\r\n{payload}\r\n", payload.len()))
                        .await;
                }
            })
        })
        .collect();
    for payload in &payloads {
        publisher
            .say(format!("PUB large {}\r\n{payload}\r\n", payload.len()))
            .await;
    }
    publisher.flush().await;
    for one in reading {
        one.await.expect("every payload came whole and in its order");
    }
}

#[tokio::test]
async fn subscriptions_over_the_limit_are_refused_and_the_client_goes_on() {
    let server = start(|settings| settings.limits.max_subscriptions = 2);
    let mut client = Raw::open(&server).await;
    client
        .say("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nUNSUB 1\r\nSUB d 4\r\n")
        .await;
    client.hears("-ERR 'maximum subscriptions exceeded'\r\n").await;
    client.say("PUB c 1\r\nc\r\nPUB d 1\r\nd\r\n").await;
    client.hears("MSG d 4 1\r\nd\r\n").await;
}

#[tokio::test]
async fn a_stop_closes_every_client_and_returns() {
    let server = start(|_| {});
    let address = server.address();
    let mut client = Raw::open(&server).await;
    timeout(PATIENCE, server.stop())
        .await
        .expect("the stop is bounded");
    assert_eq!(client.rest().await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_publish_confirmed_by_a_pong_has_reached_every_subscriber_of_the_node() {
    let server = start(|_| {});
    let mut subscriber = Raw::open(&server).await;
    let mut publisher = Raw::open(&server).await;
    for round in 0..500 {
        subscriber.say(format!("SUB a {round}\r\n")).await;
        subscriber.flush().await;
        publisher.say("PUB a 1\r\nx\r\n").await;
        publisher.flush().await;
        subscriber.say(format!("UNSUB {round}\r\nPING\r\n")).await;
        subscriber
            .hears(&format!("MSG a {round} 1\r\nx\r\nPONG\r\n"))
            .await;
    }
}

/// One number of a page.
async fn figure(server: &Server, page: &str, name: &str) -> u64 {
    let address = server.http_address().expect("pages are served");
    let mut stream = TcpStream::connect(address).await.expect("the node listens");
    let request = format!("GET {page} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a socket");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("a page");
    let (_, behind) = answer
        .split_once(&format!("\"{name}\": "))
        .unwrap_or_else(|| panic!("{name} in {answer}"));
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_thousands_of_subscriptions_do_not_hold_up_the_others() {
    const SUBSCRIPTIONS: u64 = 4_000;
    const MESSAGES: u64 = 1_000;
    let server = start(|settings| {
        settings.process.workers = 1;
        settings.http.port = -1;
        settings.limits.max_pending = 1 << 30;
    });
    let mut subscriber = Raw::open(&server).await;
    let subs: String = (0..SUBSCRIPTIONS).map(|sid| format!("SUB a {sid}\r\n")).collect();
    subscriber.say(&subs).await;
    subscriber.flush().await;
    let mut other = Raw::open(&server).await;
    let mut publisher = Raw::open(&server).await;
    publisher.say(&"PUB a 1\r\nx\r\n".repeat(MESSAGES as usize)).await;
    let reading = tokio::spawn(async move {
        let mut rest = SUBSCRIPTIONS * MESSAGES;
        let mut buffer = vec![0; 1 << 20];
        while rest > 0 {
            let count = subscriber.stream.read(&mut buffer).await.expect("a socket");
            assert!(count > 0, "the subscriber was closed");
            rest -= buffer[..count].iter().filter(|byte| **byte == b'x').count() as u64;
        }
    });
    // The whole batch is in the node, or will be in a moment; the other client has its answers long before it is through.
    while figure(&server, "/varz", "out_msgs").await == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        other.flush().await;
    }
    let delivered = figure(&server, "/varz", "out_msgs").await;
    assert!(
        delivered < SUBSCRIPTIONS * MESSAGES,
        "{delivered}: the batch came first"
    );
    timeout(PATIENCE, reading)
        .await
        .expect("in time")
        .expect("all came");
    assert_eq!(
        figure(&server, "/varz", "out_msgs").await,
        SUBSCRIPTIONS * MESSAGES
    );
    publisher.flush().await;
}

#[tokio::test]
async fn a_subject_of_very_many_tokens_is_one_like_any_other() {
    let server = start(|settings| settings.limits.max_control_line = 1 << 20);
    let mut deep = Raw::open(&server).await;
    let subject = "a.".repeat(250_000);
    deep.say(format!("SUB {subject}> 1\r\nSUB {subject}* 2\r\n"))
        .await;
    deep.flush().await;
    deep.say(format!("PUB {subject}b 1\r\nx\r\n")).await;
    let mut heard = vec![
        deep.line().await,
        deep.line().await,
        deep.line().await,
        deep.line().await,
    ];
    heard.retain(|line| line.starts_with("MSG"));
    assert_eq!(heard.len(), 2);
    deep.say("UNSUB 1\r\nUNSUB 2\r\n").await;
    deep.flush().await;
    assert_eq!(server.subscriptions(), 0);
}

#[tokio::test]
async fn who_never_says_connect_is_asked_and_closed_as_well() {
    let server = start(|settings| {
        settings.limits.ping_interval_ms = Millis(100);
        settings.limits.ping_max = 2;
    });
    let mut silent = Raw::connect(&server).await;
    assert_eq!(silent.rest().await, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
}

/// As old clients ask: each request has a subscription of its own, which ends with its answer.
#[tokio::test]
async fn subscriptions_that_are_over_do_not_count_for_the_limit() {
    let server = start(|settings| {
        settings.limits.max_subscriptions = 3;
        settings.http.port = -1;
    });
    let mut client = Raw::open(&server).await;
    client.say("SUB stays 0\r\n").await;
    for number in 1..100 {
        client
            .say(format!(
                "SUB in.{number} {number}\r\nUNSUB {number} 1\r\nPUB in.{number} 1\r\nx\r\n"
            ))
            .await;
        assert_eq!(client.line().await, format!("MSG in.{number} {number} 1\r\n"));
        assert_eq!(client.line().await, "x\r\n");
    }
    assert_eq!(figure(&server, "/connz", "subscriptions").await, 1);
    client.say("SUB a a\r\nSUB b b\r\nSUB c c\r\n").await;
    assert_eq!(client.line().await, "-ERR 'maximum subscriptions exceeded'\r\n");
}

#[tokio::test]
async fn a_reload_counts_for_clients_that_come_later() {
    let server = start(|_| {});
    let text = "addr = \"127.0.0.1\"\nport = -1\n[limits]\nmax_pending = 1048576\n[process]\nworkers = 2\n";
    server.reload(Settings::from_toml(text).expect("settings"));
    let mut lazy = Raw::open(&server).await;
    lazy.say("SUB a 1\r\n").await;
    lazy.flush().await;
    let mut publisher = Raw::open(&server).await;
    let batch = format!("PUB a 65536\r\n{}\r\n", "x".repeat(65_536)).repeat(8);
    let start = Instant::now();
    while server.clients() == 2 {
        assert!(
            start.elapsed() < PATIENCE,
            "the client that never reads is still there"
        );
        publisher.say(&batch).await;
    }
    publisher.flush().await;
}

#[tokio::test]
async fn who_has_closed_only_its_sending_side_gets_all_that_waits() {
    const MESSAGES: usize = 200;
    let server = start(|_| {});
    let mut client = Raw::open(&server).await;
    client.say("SUB a 1\r\n").await;
    client.flush().await;
    let message = format!("PUB a 65536\r\n{}\r\n", "x".repeat(65_536));
    client.say(message.repeat(MESSAGES) + "PING\r\n").await;
    client.stream.shutdown().await.expect("a socket");
    let heard = client.rest().await;
    assert_eq!(heard.matches("MSG a 1 65536\r\n").count(), MESSAGES);
    assert!(heard.ends_with("PONG\r\n"));
}
