//! One table of conversations, held with ours and with real nats-server: where the two differ, a row fails on one of them.

use e2e::{Conversation, Maker, Server};
use tokio::net::TcpStream;

/// What one client says, and all that it hears.
struct Row {
    name: &'static str,
    says: &'static str,
    hears: &'static str,
    /// What real nats-server says instead, where ours differs on purpose.
    hears_from_nats: Option<&'static str>,
    /// The server closes the connection behind it.
    closes: bool,
}

const fn row(name: &'static str, says: &'static str, hears: &'static str) -> Row {
    Row {
        name,
        says,
        hears,
        hears_from_nats: None,
        closes: false,
    }
}

const fn closing(name: &'static str, says: &'static str, hears: &'static str) -> Row {
    Row {
        name,
        says,
        hears,
        hears_from_nats: None,
        closes: true,
    }
}

impl Row {
    /// Real nats-server says this instead.
    const fn but_nats(mut self, hears: &'static str) -> Self {
        self.hears_from_nats = Some(hears);
        self
    }
}

/// On a server that is open to all.
const OPEN: &[Row] = &[
    row("ping", "PING\r\n", "PONG\r\n"),
    row("verbose before CONNECT", "SUB a 1\r\n", "+OK\r\n"),
    row(
        "verbose is the default of CONNECT",
        "CONNECT {}\r\nPING\r\n",
        "+OK\r\nPONG\r\n",
    ),
    row(
        "an ok for each command",
        "CONNECT {\"verbose\":true,\"pedantic\":false}\r\nSUB a 1\r\nPUB a 1\r\nx\r\nUNSUB 1\r\nPING\r\n",
        "+OK\r\n+OK\r\n+OK\r\nMSG a 1 1\r\nx\r\n+OK\r\nPONG\r\n",
    ),
    row(
        "own messages come back",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nPUB foo 5\r\nhello\r\nPUB foo 0\r\n\r\n",
        "MSG foo 1 5\r\nhello\r\nMSG foo 1 0\r\n\r\n",
    ),
    row(
        "own messages do not come back without echo",
        "CONNECT {\"verbose\":false,\"echo\":false}\r\nSUB foo 1\r\nSUB foo q 2\r\nPUB foo 5\r\nhello\r\n",
        "",
    ),
    row(
        "a reply subject is passed on",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nPUB foo bar 2\r\nhi\r\n",
        "MSG foo 1 bar 2\r\nhi\r\n",
    ),
    row(
        "wildcards",
        "CONNECT {\"verbose\":false}\r\nSUB a.*.c 1\r\nSUB b.> 2\r\nPUB a.b.c 1\r\n1\r\nPUB a.c 1\r\n2\r\n\
         PUB b 1\r\n3\r\nPUB b.x.y 1\r\n4\r\nPUB a.b.d 1\r\n5\r\n",
        "MSG a.b.c 1 1\r\n1\r\nMSG b.x.y 2 1\r\n4\r\n",
    ),
    row(
        "verbs in any case, blanks of any kind",
        "connect {\"verbose\":false}\r\nsub \t a  \t1 \r\npub\ta\t 1\r\nx\r\nPing\r\n",
        "MSG a 1 1\r\nx\r\nPONG\r\n",
    ),
    row(
        "a queue group gets each message once",
        "CONNECT {\"verbose\":false}\r\nSUB a q 7\r\nSUB b q 7\r\nPUB a 1\r\nx\r\n",
        "MSG a 7 1\r\nx\r\n",
    ),
    row(
        "nothing after UNSUB",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 1\r\n1\r\nUNSUB 1\r\nPUB a 1\r\n2\r\nUNSUB 1\r\nUNSUB 9\r\n",
        "MSG a 1 1\r\n1\r\n",
    ),
    row(
        "no more than the maximum",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nUNSUB 1 2\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nPUB a 1\r\n3\r\n",
        "MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\n",
    ),
    row(
        "the maximum counts from SUB",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nUNSUB 1 3\r\nPUB a 1\r\n3\r\nPUB a 1\r\n4\r\n",
        "MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\nMSG a 1 1\r\n3\r\n",
    ),
    row(
        "a maximum that is reached already ends it",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nUNSUB 1 2\r\nPUB a 1\r\n3\r\n",
        "MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\n",
    ),
    row(
        "a sid that has ended is free again",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nUNSUB 1 1\r\nPUB a 1\r\n1\r\nSUB b 1\r\nPUB b 1\r\n2\r\n",
        "MSG a 1 1\r\n1\r\nMSG b 1 1\r\n2\r\n",
    ),
    row(
        "a sid in use keeps its subscription",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nSUB b 1\r\nPUB b 1\r\n1\r\nPUB a 1\r\n2\r\n",
        "MSG a 1 1\r\n2\r\n",
    ),
    row(
        "headers",
        "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a 1\r\nHPUB a 12 17\r\nNATS/1.0\r\n\r\nhello\r\n\
         HPUB a re 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        "HMSG a 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\nHMSG a 1 re 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    ),
    row(
        "nobody listens",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in.* 1\r\nPUB nobody in.1 1\r\nx\r\nPUB nobody 1\r\nx\r\n",
        "HMSG in.1 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    )
    // Newer versions name the subject, too; ours says what all versions understand.
    .but_nats("HMSG in.1 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n"),
    row(
        "somebody listens",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in.* 1\r\nSUB a q 2\r\nPUB a in.1 1\r\nx\r\n",
        "MSG a 2 in.1 1\r\nx\r\n",
    ),
    row(
        "nobody asked whether anybody listens",
        "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB in.* 1\r\nPUB nobody in.1 1\r\nx\r\n",
        "",
    ),
    row(
        "bad subjects of subscriptions",
        "CONNECT {\"verbose\":false}\r\nSUB a..b 1\r\nSUB .a 2\r\nSUB a. 3\r\nSUB >.a 4\r\nSUB a>.b 5\r\n",
        "-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n",
    ),
    row(
        "pedantic complains of a subject and takes the message",
        "CONNECT {\"verbose\":false,\"pedantic\":true}\r\nSUB > 1\r\nPUB a.* 1\r\nx\r\n",
        "-ERR 'Invalid Publish Subject'\r\nMSG a.* 1 1\r\nx\r\n",
    ),
    closing(
        "no verb",
        "CONNECT {\"verbose\":false}\r\nHELLO\r\n",
        "-ERR 'Unknown Protocol Operation'\r\n",
    ),
    closing(
        "too large",
        "CONNECT {\"verbose\":false}\r\nPUB a 1048577\r\n",
        "-ERR 'Maximum Payload Violation'\r\n",
    ),
    closing(
        "a version of the protocol that there is not",
        "CONNECT {\"verbose\":false,\"protocol\":2}\r\n",
        "-ERR 'invalid client protocol'\r\n",
    ),
    closing(
        "no_responders without headers",
        "CONNECT {\"verbose\":false,\"no_responders\":true}\r\n",
        "-ERR 'no responders requires headers support'\r\n",
    ),
    closing(
        "HPUB without headers",
        "CONNECT {\"verbose\":false}\r\nHPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        "-ERR 'message headers not supported'\r\n",
    )
    // Closes without a word, which helps nobody.
    .but_nats(""),
];

/// On a server with the user `a` and the password `b`.
const GUARDED: &[Row] = &[
    row(
        "the right user",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nPING\r\n",
        "PONG\r\n",
    ),
    closing(
        "the wrong password",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"c\"}\r\nPING\r\n",
        "-ERR 'Authorization Violation'\r\n",
    ),
    closing(
        "no credentials",
        "CONNECT {\"verbose\":false}\r\n",
        "-ERR 'Authorization Violation'\r\n",
    ),
    closing(
        "a command before CONNECT",
        "PING\r\n",
        "-ERR 'Authorization Violation'\r\n",
    ),
    closing("nothing at all in time", "", "-ERR 'Authentication Timeout'\r\n"),
];

async fn hold(maker: Maker, flags: &[&str], rows: &[Row]) {
    let server = Server::start(maker, flags).await;
    for row in rows {
        let hears = match row.hears_from_nats {
            Some(hears) if maker == Maker::Nats => hears,
            _ => row.hears,
        };
        let stream = TcpStream::connect(server.address())
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", row.name));
        let mut client = Conversation::new(row.name, stream);
        assert_eq!(client.read_frame().await.verb(), "INFO", "{}", row.name);
        client.send(row.says).await;
        if row.closes {
            let (heard, _) = client.read_to_end().await;
            assert_eq!(String::from_utf8_lossy(&heard), hears, "{}", row.name);
        } else {
            // All is answered when the last PING is.
            client.send("PING\r\n").await;
            client.expect(format!("{hears}PONG\r\n")).await;
            client.close().await;
        }
    }
}

#[tokio::test]
async fn the_table_holds_on_ours() {
    hold(Maker::Ours, &[], OPEN).await;
    hold(Maker::Ours, &["--user", "a", "--pass", "b"], GUARDED).await;
}

#[tokio::test]
async fn the_table_holds_on_nats_server() {
    hold(Maker::Nats, &[], OPEN).await;
    hold(Maker::Nats, &["--user", "a", "--pass", "b"], GUARDED).await;
}
