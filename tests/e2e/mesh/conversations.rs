//! The table of conversations over three nodes with one client on each: what one client sends, and what each of the three receives.

/// Index of the client on the first node. `B` and `C` are those on the second and the third.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;
pub(super) const C: usize = 2;

/// The bytes that one client sends, and everything that each of the three then receives.
pub(super) struct Step {
    pub(super) sender: usize,
    pub(super) sends: &'static str,
    pub(super) receives: [&'static str; 3],
    /// Whether the step first waits until all nodes know that a subscription has ended at its maximum. A PONG does not show that.
    pub(super) settled: bool,
}

/// One conversation.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The options that each client sends in CONNECT.
    pub(super) connects: [&'static str; 3],
    pub(super) steps: &'static [Step],
    /// The result needs `cluster.queue_preference = "local"`, which only `standin-broker` has.
    pub(super) prefers_local: bool,
}

/// A step in which no client receives anything, unless [`gives`](Step::gives) says so.
const fn step(sender: usize, sends: &'static str) -> Step {
    Step {
        sender,
        sends,
        receives: [""; 3],
        settled: false,
    }
}

impl Step {
    /// Sets what this client receives.
    const fn gives(mut self, receiver: usize, receives: &'static str) -> Self {
        self.receives[receiver] = receives;
        self
    }

    const fn when_settled(mut self) -> Self {
        self.settled = true;
        self
    }
}

const fn row(name: &'static str, connects: [&'static str; 3], steps: &'static [Step]) -> Row {
    Row {
        name,
        connects,
        steps,
        prefers_local: false,
    }
}

impl Row {
    const fn with_local_members_first(mut self) -> Self {
        self.prefers_local = true;
        self
    }
}

const OLD: &str = r#"{"verbose":false}"#;
const NEW: &str = r#"{"verbose":false,"protocol":1,"headers":true,"no_responders":true}"#;
const NO_ECHO: &str = r#"{"verbose":false,"protocol":1,"headers":true,"no_responders":true,"echo":false}"#;
const VERBOSE: &str = r#"{"verbose":true}"#;

/// The status 503, "no responders", as `standin-broker` sends it. The newest `nats-server` also sends the subject in a header.
pub(super) const NOBODY: &str = "HMSG in.1 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";

pub(super) const ROWS: &[Row] = &[
    row(
        "a message goes once to each node with interest",
        [OLD; 3],
        &[
            step(B, "SUB x 1\r\n"),
            step(C, "SUB x 2\r\n"),
            step(A, "PUB x 2\r\nhi\r\n")
                .gives(B, "MSG x 1 2\r\nhi\r\n")
                .gives(C, "MSG x 2 2\r\nhi\r\n"),
            step(C, "PUB x 0\r\n\r\n")
                .gives(B, "MSG x 1 0\r\n\r\n")
                .gives(C, "MSG x 2 0\r\n\r\n"),
        ],
    ),
    row(
        "own messages are delivered to the sender and to other nodes",
        [OLD; 3],
        &[
            step(A, "SUB x 1\r\n"),
            step(B, "SUB x 2\r\n"),
            step(A, "PUB x 1\r\nm\r\n")
                .gives(A, "MSG x 1 1\r\nm\r\n")
                .gives(B, "MSG x 2 1\r\nm\r\n"),
        ],
    ),
    row(
        "wildcards",
        [OLD; 3],
        &[
            step(B, "SUB a.*.c 1\r\n"),
            step(C, "SUB b.> 2\r\n"),
            step(
                A,
                "PUB a.b.c 1\r\n1\r\nPUB a.c 1\r\n2\r\nPUB b 1\r\n3\r\nPUB b.x.y 1\r\n4\r\n",
            )
            .gives(B, "MSG a.b.c 1 1\r\n1\r\n")
            .gives(C, "MSG b.x.y 2 1\r\n4\r\n"),
        ],
    ),
    row(
        "a subject with an empty token reaches nobody",
        [OLD; 3],
        &[
            step(B, "SUB x.> 1\r\n"),
            step(A, "PUB x..b 1\r\nx\r\nPUB x. 1\r\nx\r\n").gives(
                A,
                "-ERR 'Invalid Publish Subject'\r\n-ERR 'Invalid Publish Subject'\r\n",
            ),
        ],
    ),
    row(
        "a request and its reply",
        [OLD; 3],
        &[
            step(B, "SUB ask 1\r\n"),
            step(A, "SUB in.* 2\r\nPUB ask in.7 1\r\n?\r\n").gives(B, "MSG ask 1 in.7 1\r\n?\r\n"),
            step(B, "PUB in.7 1\r\n!\r\n").gives(A, "MSG in.7 2 1\r\n!\r\n"),
        ],
    ),
    row(
        "headers, only for clients that support them",
        [NEW, NEW, OLD],
        &[
            step(B, "SUB x 1\r\n"),
            step(C, "SUB x 2\r\n"),
            step(A, "HPUB x 18 23\r\nNATS/1.0\r\nA: b\r\n\r\nhello\r\n")
                .gives(B, "HMSG x 1 18 23\r\nNATS/1.0\r\nA: b\r\n\r\nhello\r\n")
                .gives(C, "MSG x 2 5\r\nhello\r\n"),
            step(A, "HPUB x re 12 12\r\nNATS/1.0\r\n\r\n\r\n")
                .gives(B, "HMSG x 1 re 12 12\r\nNATS/1.0\r\n\r\n\r\n")
                .gives(C, "MSG x 2 re 0\r\n\r\n"),
        ],
    ),
    row(
        "no responder on any node, a responder on another, no responder again",
        [NEW; 3],
        &[
            step(A, "SUB in.* 9\r\nPUB ask in.1 1\r\nx\r\n").gives(A, NOBODY),
            step(B, "SUB ask 1\r\n"),
            step(A, "PUB ask in.1 1\r\nx\r\n").gives(B, "MSG ask 1 in.1 1\r\nx\r\n"),
            step(C, "SUB ask 2\r\n"),
            step(B, "UNSUB 1\r\n"),
            step(A, "PUB ask in.1 1\r\nx\r\n").gives(C, "MSG ask 2 in.1 1\r\nx\r\n"),
            step(C, "UNSUB 2\r\n"),
            step(A, "PUB ask in.1 1\r\nx\r\n").gives(A, NOBODY),
        ],
    ),
    row(
        "a member of a queue group on another node is a responder",
        [NEW; 3],
        &[
            step(C, "SUB ask q 1\r\n"),
            step(A, "SUB in.* 9\r\nPUB ask in.1 1\r\nx\r\n").gives(C, "MSG ask 1 in.1 1\r\nx\r\n"),
            step(C, "UNSUB 1\r\n"),
            step(A, "PUB ask in.1 1\r\nx\r\n").gives(A, NOBODY),
        ],
    ),
    row(
        "without echo, own messages go to others only",
        [NO_ECHO, NEW, OLD],
        &[
            step(A, "SUB x 1\r\n"),
            step(B, "SUB x 2\r\n"),
            step(A, "PUB x 1\r\nm\r\n").gives(B, "MSG x 2 1\r\nm\r\n"),
            step(C, "PUB x 1\r\nn\r\n")
                .gives(A, "MSG x 1 1\r\nn\r\n")
                .gives(B, "MSG x 2 1\r\nn\r\n"),
        ],
    ),
    row(
        "without echo, a client's own subscription is not a responder",
        [NO_ECHO, NEW, NEW],
        &[
            step(A, "SUB in.1 9\r\nSUB ask 1\r\nPUB ask in.1 1\r\nx\r\n").gives(A, NOBODY),
            step(B, "PUB ask in.1 1\r\nx\r\n").gives(A, "MSG ask 1 in.1 1\r\nx\r\n"),
        ],
    ),
    row(
        "no message after the maximum, whoever publishes",
        [NEW, OLD, OLD],
        &[
            step(B, "SUB x 1\r\nUNSUB 1 3\r\n"),
            step(C, "PUB x 1\r\n1\r\n").gives(B, "MSG x 1 1\r\n1\r\n"),
            step(A, "PUB x 1\r\n2\r\nPUB x 1\r\n3\r\nPUB x 1\r\n4\r\n")
                .gives(B, "MSG x 1 1\r\n2\r\nMSG x 1 1\r\n3\r\n"),
            step(A, "SUB in.* 9\r\nPUB x in.1 1\r\n5\r\n")
                .gives(A, NOBODY)
                .when_settled(),
        ],
    ),
    row(
        "one of two subscriptions of a node ends",
        [OLD; 3],
        &[
            step(B, "SUB x 1\r\nSUB x 2\r\nUNSUB 1\r\n"),
            step(A, "PUB x 1\r\nm\r\n").gives(B, "MSG x 2 1\r\nm\r\n"),
        ],
    ),
    row(
        "SUB, UNSUB and SUB at once",
        [OLD; 3],
        &[
            step(B, "SUB x 1\r\nUNSUB 1\r\nSUB x 2\r\nSUB y 3\r\nUNSUB 3\r\n"),
            step(A, "PUB x 1\r\nm\r\nPUB y 1\r\nm\r\n").gives(B, "MSG x 2 1\r\nm\r\n"),
        ],
    ),
    row(
        "an ok for each command, and none for messages of other nodes",
        [VERBOSE, VERBOSE, OLD],
        &[
            step(B, "SUB x 1\r\n").gives(B, "+OK\r\n"),
            step(A, "PUB x 1\r\nm\r\nPUB y 1\r\nm\r\n")
                .gives(A, "+OK\r\n+OK\r\n")
                .gives(B, "MSG x 1 1\r\nm\r\n"),
            step(B, "UNSUB 1\r\n").gives(B, "+OK\r\n"),
            step(A, "PUB x 1\r\nm\r\n").gives(A, "+OK\r\n"),
        ],
    ),
    row(
        "a local member of a queue group is preferred",
        [OLD; 3],
        &[
            step(A, "SUB x q 1\r\n"),
            step(B, "SUB x q 2\r\n"),
            step(A, "PUB x 1\r\n1\r\nPUB x 1\r\n2\r\n").gives(A, "MSG x 1 1\r\n1\r\nMSG x 1 1\r\n2\r\n"),
            step(B, "PUB x 1\r\n3\r\n").gives(B, "MSG x 2 1\r\n3\r\n"),
            step(A, "UNSUB 1\r\n"),
            step(A, "PUB x 1\r\n4\r\n").gives(B, "MSG x 2 1\r\n4\r\n"),
        ],
    )
    .with_local_members_first(),
    row(
        "two groups and a plain subscriber, on several nodes",
        [OLD; 3],
        &[
            step(A, "SUB x p 1\r\n"),
            step(B, "SUB x q 2\r\n"),
            step(C, "SUB x 3\r\n"),
            step(A, "PUB x 1\r\nm\r\n")
                .gives(A, "MSG x 1 1\r\nm\r\n")
                .gives(B, "MSG x 2 1\r\nm\r\n")
                .gives(C, "MSG x 3 1\r\nm\r\n"),
            step(C, "PUB x 1\r\nn\r\n")
                .gives(A, "MSG x 1 1\r\nn\r\n")
                .gives(B, "MSG x 2 1\r\nn\r\n")
                .gives(C, "MSG x 3 1\r\nn\r\n"),
        ],
    ),
    row(
        "without echo, a message for a group goes to a member on another node",
        [NO_ECHO, OLD, OLD],
        &[
            step(A, "SUB x q 1\r\n"),
            step(B, "SUB x q 2\r\n"),
            step(A, "PUB x 1\r\nm\r\n").gives(B, "MSG x 2 1\r\nm\r\n"),
        ],
    ),
];
