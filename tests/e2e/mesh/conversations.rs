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
    /// The step waits until all nodes know that a subscription has ended at its maximum. No client sends a PING after that end.
    pub(super) settled: bool,
}

/// One conversation.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The options that each client sends in CONNECT.
    pub(super) connects: [&'static str; 3],
    pub(super) steps: &'static [Step],
    /// Only `standin-broker` guarantees this result; `nats-server` is not tested.
    pub(super) standin_only: bool,
}

const fn step(sender: usize, sends: &'static str, receives: [&'static str; 3]) -> Step {
    Step {
        sender,
        sends,
        receives,
        settled: false,
    }
}

/// A step in which no client receives anything.
const fn quiet(sender: usize, sends: &'static str) -> Step {
    step(sender, sends, ["", "", ""])
}

impl Step {
    const fn when_settled(mut self) -> Self {
        self.settled = true;
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
    Row {
        name: "a message goes once to each node with interest",
        connects: [OLD; 3],
        steps: &[
            quiet(B, "SUB x 1\r\n"),
            quiet(C, "SUB x 2\r\n"),
            step(
                A,
                "PUB x 2\r\nhi\r\n",
                ["", "MSG x 1 2\r\nhi\r\n", "MSG x 2 2\r\nhi\r\n"],
            ),
            step(
                C,
                "PUB x 0\r\n\r\n",
                ["", "MSG x 1 0\r\n\r\n", "MSG x 2 0\r\n\r\n"],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "own messages are delivered back and to other nodes",
        connects: [OLD; 3],
        steps: &[
            quiet(A, "SUB x 1\r\n"),
            quiet(B, "SUB x 2\r\n"),
            step(
                A,
                "PUB x 1\r\nm\r\n",
                ["MSG x 1 1\r\nm\r\n", "MSG x 2 1\r\nm\r\n", ""],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "wildcards",
        connects: [OLD; 3],
        steps: &[
            quiet(B, "SUB a.*.c 1\r\n"),
            quiet(C, "SUB b.> 2\r\n"),
            step(
                A,
                "PUB a.b.c 1\r\n1\r\nPUB a.c 1\r\n2\r\nPUB b 1\r\n3\r\nPUB b.x.y 1\r\n4\r\nPUB a.b.d 1\r\n5\r\n",
                ["", "MSG a.b.c 1 1\r\n1\r\n", "MSG b.x.y 2 1\r\n4\r\n"],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "wildcards are whole tokens only",
        connects: [OLD; 3],
        steps: &[
            quiet(B, "SUB foo* 1\r\nSUB a>.b 2\r\n"),
            step(
                A,
                "PUB foo* 1\r\nx\r\nPUB foob 1\r\ny\r\nPUB a>.b 1\r\nz\r\n",
                ["", "MSG foo* 1 1\r\nx\r\nMSG a>.b 2 1\r\nz\r\n", ""],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "subjects with any letters, payloads with line ends",
        connects: [OLD; 3],
        steps: &[
            quiet(B, "SUB gr\u{fc}\u{df}.* sid-1\r\n"),
            step(
                C,
                "PUB gr\u{fc}\u{df}.\u{1f980} 6\r\n\r\n\0\r\n+\r\n",
                ["", "MSG gr\u{fc}\u{df}.\u{1f980} sid-1 6\r\n\r\n\0\r\n+\r\n", ""],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "a subject with an empty token reaches nobody",
        connects: [OLD; 3],
        steps: &[
            quiet(B, "SUB x.> 1\r\n"),
            step(
                A,
                "PUB x..b 1\r\nx\r\nPUB x. 1\r\nx\r\n",
                [
                    "-ERR 'Invalid Publish Subject'\r\n-ERR 'Invalid Publish Subject'\r\n",
                    "",
                    "",
                ],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "a request and its reply",
        connects: [OLD; 3],
        steps: &[
            quiet(B, "SUB ask 1\r\n"),
            step(
                A,
                "SUB in.* 2\r\nPUB ask in.7 1\r\n?\r\n",
                ["", "MSG ask 1 in.7 1\r\n?\r\n", ""],
            ),
            step(B, "PUB in.7 1\r\n!\r\n", ["MSG in.7 2 1\r\n!\r\n", "", ""]),
        ],
        standin_only: false,
    },
    Row {
        name: "headers, only for clients that support them",
        connects: [NEW, NEW, OLD],
        steps: &[
            quiet(B, "SUB x 1\r\n"),
            quiet(C, "SUB x 2\r\n"),
            step(
                A,
                "HPUB x 18 23\r\nNATS/1.0\r\nA: b\r\n\r\nhello\r\n",
                [
                    "",
                    "HMSG x 1 18 23\r\nNATS/1.0\r\nA: b\r\n\r\nhello\r\n",
                    "MSG x 2 5\r\nhello\r\n",
                ],
            ),
            step(
                A,
                "HPUB x re 12 12\r\nNATS/1.0\r\n\r\n\r\n",
                [
                    "",
                    "HMSG x 1 re 12 12\r\nNATS/1.0\r\n\r\n\r\n",
                    "MSG x 2 re 0\r\n\r\n",
                ],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "no responder on any node, a responder on another, no responder again",
        connects: [NEW; 3],
        steps: &[
            step(A, "SUB in.* 9\r\nPUB ask in.1 1\r\nx\r\n", [NOBODY, "", ""]),
            quiet(B, "SUB ask 1\r\n"),
            step(
                A,
                "PUB ask in.1 1\r\nx\r\n",
                ["", "MSG ask 1 in.1 1\r\nx\r\n", ""],
            ),
            quiet(C, "SUB ask 2\r\n"),
            quiet(B, "UNSUB 1\r\n"),
            step(
                A,
                "PUB ask in.1 1\r\nx\r\n",
                ["", "", "MSG ask 2 in.1 1\r\nx\r\n"],
            ),
            quiet(C, "UNSUB 2\r\n"),
            step(A, "PUB ask in.1 1\r\nx\r\n", [NOBODY, "", ""]),
        ],
        standin_only: false,
    },
    Row {
        name: "a member of a queue group on another node is a responder",
        connects: [NEW; 3],
        steps: &[
            quiet(C, "SUB ask q 1\r\n"),
            step(
                A,
                "SUB in.* 9\r\nPUB ask in.1 1\r\nx\r\n",
                ["", "", "MSG ask 1 in.1 1\r\nx\r\n"],
            ),
            quiet(C, "UNSUB 1\r\n"),
            step(A, "PUB ask in.1 1\r\nx\r\n", [NOBODY, "", ""]),
        ],
        standin_only: false,
    },
    Row {
        name: "without echo, own messages go to others only",
        connects: [NO_ECHO, NEW, OLD],
        steps: &[
            quiet(A, "SUB x 1\r\n"),
            quiet(B, "SUB x 2\r\n"),
            step(A, "PUB x 1\r\nm\r\n", ["", "MSG x 2 1\r\nm\r\n", ""]),
            step(
                C,
                "PUB x 1\r\nn\r\n",
                ["MSG x 1 1\r\nn\r\n", "MSG x 2 1\r\nn\r\n", ""],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "without echo an own subscription is not a responder",
        connects: [NO_ECHO, NEW, NEW],
        steps: &[
            step(
                A,
                "SUB in.1 9\r\nSUB ask 1\r\nPUB ask in.1 1\r\nx\r\n",
                [NOBODY, "", ""],
            ),
            step(
                B,
                "PUB ask in.1 1\r\nx\r\n",
                ["MSG ask 1 in.1 1\r\nx\r\n", "", ""],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "no message after the maximum, whoever publishes",
        connects: [NEW, OLD, OLD],
        steps: &[
            quiet(B, "SUB x 1\r\nUNSUB 1 3\r\n"),
            step(C, "PUB x 1\r\n1\r\n", ["", "MSG x 1 1\r\n1\r\n", ""]),
            step(
                A,
                "PUB x 1\r\n2\r\nPUB x 1\r\n3\r\nPUB x 1\r\n4\r\n",
                ["", "MSG x 1 1\r\n2\r\nMSG x 1 1\r\n3\r\n", ""],
            ),
            step(A, "SUB in.* 9\r\nPUB x in.1 1\r\n5\r\n", [NOBODY, "", ""]).when_settled(),
        ],
        standin_only: false,
    },
    Row {
        name: "one of two subscriptions of a node ends",
        connects: [OLD; 3],
        steps: &[
            quiet(B, "SUB x 1\r\nSUB x 2\r\nUNSUB 1\r\n"),
            step(A, "PUB x 1\r\nm\r\n", ["", "MSG x 2 1\r\nm\r\n", ""]),
        ],
        standin_only: false,
    },
    Row {
        name: "SUB, UNSUB and SUB at once",
        connects: [OLD; 3],
        steps: &[
            quiet(B, "SUB x 1\r\nUNSUB 1\r\nSUB x 2\r\nSUB y 3\r\nUNSUB 3\r\n"),
            step(
                A,
                "PUB x 1\r\nm\r\nPUB y 1\r\nm\r\n",
                ["", "MSG x 2 1\r\nm\r\n", ""],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "an ok for each command, and none for messages of other nodes",
        connects: [VERBOSE, VERBOSE, OLD],
        steps: &[
            step(B, "SUB x 1\r\n", ["", "+OK\r\n", ""]),
            step(
                A,
                "PUB x 1\r\nm\r\nPUB y 1\r\nm\r\n",
                ["+OK\r\n+OK\r\n", "MSG x 1 1\r\nm\r\n", ""],
            ),
            step(B, "UNSUB 1\r\n", ["", "+OK\r\n", ""]),
            step(A, "PUB x 1\r\nm\r\n", ["+OK\r\n", "", ""]),
        ],
        standin_only: false,
    },
    Row {
        name: "a local member of a queue group is preferred",
        connects: [OLD; 3],
        steps: &[
            quiet(A, "SUB x q 1\r\n"),
            quiet(B, "SUB x q 2\r\n"),
            step(
                A,
                "PUB x 1\r\n1\r\nPUB x 1\r\n2\r\n",
                ["MSG x 1 1\r\n1\r\nMSG x 1 1\r\n2\r\n", "", ""],
            ),
            step(B, "PUB x 1\r\n3\r\n", ["", "MSG x 2 1\r\n3\r\n", ""]),
            quiet(A, "UNSUB 1\r\n"),
            step(A, "PUB x 1\r\n4\r\n", ["", "MSG x 2 1\r\n4\r\n", ""]),
        ],
        // `nats-server` chooses among the members of all nodes.
        standin_only: true,
    },
    Row {
        name: "two groups and a plain subscriber, on several nodes",
        connects: [OLD; 3],
        steps: &[
            quiet(A, "SUB x p 1\r\n"),
            quiet(B, "SUB x q 2\r\n"),
            quiet(C, "SUB x 3\r\n"),
            step(
                A,
                "PUB x 1\r\nm\r\n",
                ["MSG x 1 1\r\nm\r\n", "MSG x 2 1\r\nm\r\n", "MSG x 3 1\r\nm\r\n"],
            ),
            step(
                C,
                "PUB x 1\r\nn\r\n",
                ["MSG x 1 1\r\nn\r\n", "MSG x 2 1\r\nn\r\n", "MSG x 3 1\r\nn\r\n"],
            ),
        ],
        standin_only: false,
    },
    Row {
        name: "without echo, a message for a group goes to a member on another node",
        connects: [NO_ECHO, OLD, OLD],
        steps: &[
            quiet(A, "SUB x q 1\r\n"),
            quiet(B, "SUB x q 2\r\n"),
            step(A, "PUB x 1\r\nm\r\n", ["", "MSG x 2 1\r\nm\r\n", ""]),
        ],
        standin_only: false,
    },
];
