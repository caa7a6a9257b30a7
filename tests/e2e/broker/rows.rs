//! The table of conversations with one server: what a client sends, and what it must receive.

/// The bytes that one client sends, and everything that it then receives.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) sends: &'static str,
    pub(crate) receives: &'static str,
    /// What real nats-server sends instead, where `standin-broker` differs on purpose.
    pub(crate) receives_from_nats_server: Option<&'static str>,
    /// The server then closes the connection.
    pub(crate) closes: bool,
}

pub(crate) const fn row(name: &'static str, sends: &'static str, receives: &'static str) -> Row {
    Row {
        name,
        sends,
        receives,
        receives_from_nats_server: None,
        closes: false,
    }
}

const fn closing(name: &'static str, sends: &'static str, receives: &'static str) -> Row {
    Row {
        closes: true,
        ..row(name, sends, receives)
    }
}

/// A frame after which the server sends the reason and closes the connection.
const fn malformed(name: &'static str, sends: &'static str) -> Row {
    closing(name, sends, "-ERR 'Unknown Protocol Operation'\r\n")
}

/// Like [`malformed`], but real nats-server closes the connection without a reason.
const fn unexplained(name: &'static str, sends: &'static str) -> Row {
    malformed(name, sends).but_nats_server("")
}

/// Credentials that the server refuses.
pub(crate) const fn unauthorized(name: &'static str, sends: &'static str) -> Row {
    closing(name, sends, "-ERR 'Authorization Violation'\r\n")
}

impl Row {
    /// Sets what real nats-server sends instead.
    const fn but_nats_server(mut self, receives: &'static str) -> Self {
        self.receives_from_nats_server = Some(receives);
        self
    }
}

/// Rows for a server without authentication.
pub(crate) const OPEN: &[Row] = &[
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
        "own messages are delivered back",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nPUB foo 5\r\nhello\r\nPUB foo 0\r\n\r\n",
        "MSG foo 1 5\r\nhello\r\nMSG foo 1 0\r\n\r\n",
    ),
    row(
        "own messages are not delivered back without echo",
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
        "no message after the maximum",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nUNSUB 1 2\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nPUB a 1\r\n3\r\n",
        "MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\n",
    ),
    row(
        "the maximum counts from SUB",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nUNSUB 1 3\r\nPUB a 1\r\n3\r\nPUB a 1\r\n4\r\n",
        "MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\nMSG a 1 1\r\n3\r\n",
    ),
    row(
        "a maximum that is already reached ends the subscription",
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
        "no responders",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in.* 1\r\nPUB nobody in.1 1\r\nx\r\nPUB nobody 1\r\nx\r\n",
        "HMSG in.1 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    )
    // Newer versions add the subject. `standin-broker` sends what all versions understand.
    .but_nats_server("HMSG in.1 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n"),
    row(
        "a responder",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in.* 1\r\nSUB a q 2\r\nPUB a in.1 1\r\nx\r\n",
        "MSG a 2 in.1 1\r\nx\r\n",
    ),
    row(
        "no responders, and the client did not ask for the status",
        "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB in.* 1\r\nPUB nobody in.1 1\r\nx\r\n",
        "",
    ),
    row(
        "invalid subjects of subscriptions",
        "CONNECT {\"verbose\":false}\r\nSUB a..b 1\r\nSUB .a 2\r\nSUB a. 3\r\nSUB >.a 4\r\nSUB a>.b 5\r\n",
        "-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n",
    ),
    row(
        "pedantic mode sends an error about a subject and accepts the message",
        "CONNECT {\"verbose\":false,\"pedantic\":true}\r\nSUB > 1\r\nPUB a.* 1\r\nx\r\n",
        "-ERR 'Invalid Publish Subject'\r\nMSG a.* 1 1\r\nx\r\n",
    ),
    malformed("an unknown verb", "CONNECT {\"verbose\":false}\r\nHELLO\r\n"),
    closing(
        "a payload over the limit",
        "CONNECT {\"verbose\":false}\r\nPUB a 1048577\r\n",
        "-ERR 'Maximum Payload Violation'\r\n",
    ),
    closing(
        "an unknown version of the protocol",
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
    // `nats-server` closes without an error text.
    .but_nats_server(""),
    row(
        "a queue group with an empty token is a name like any other",
        "CONNECT {\"verbose\":false}\r\nSUB a q..x 1\r\nSUB b q.* 2\r\nPUB a 1\r\nx\r\nPUB b 1\r\nx\r\n",
        "MSG a 1 1\r\nx\r\nMSG b 2 1\r\nx\r\n",
    ),
    row(
        "a publish to a subject with an empty token is refused",
        "CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPUB a..b 1\r\nx\r\nPUB .a 1\r\nx\r\nPUB a. 1\r\nx\r\n",
        "-ERR 'Invalid Publish Subject'\r\n-ERR 'Invalid Publish Subject'\r\n-ERR 'Invalid Publish Subject'\r\n",
    ),
    row(
        "wildcards are whole tokens only",
        "CONNECT {\"verbose\":false}\r\nSUB foo* 1\r\nSUB a>.b 2\r\nPUB foo* 1\r\nx\r\nPUB foob 1\r\ny\r\nPUB a>.b 1\r\nz\r\n",
        "MSG foo* 1 1\r\nx\r\nMSG a>.b 2 1\r\nz\r\n",
    ),
    row(
        "subjects and sids with any letters",
        "CONNECT {\"verbose\":false}\r\nSUB gr\u{fc}\u{df}.\u{1f980} sid-1\r\nPUB gr\u{fc}\u{df}.\u{1f980} 1\r\nx\r\n",
        "MSG gr\u{fc}\u{df}.\u{1f980} sid-1 1\r\nx\r\n",
    ),
    row(
        "a payload with line ends and a zero byte",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 6\r\n\r\n\0\r\n+\r\n",
        "MSG a 1 6\r\n\r\n\0\r\n+\r\n",
    ),
    row(
        "a bare line feed ends a line",
        "CONNECT {\"verbose\":false}\nSUB a 1\nPUB a 1\nx\r\nPING\n",
        "MSG a 1 1\r\nx\r\nPONG\r\n",
    ),
    row(
        "blanks at the end of a line",
        "CONNECT {\"verbose\":false}  \r\nPING  \r\nSUB a 1  \r\nPUB a 1  \r\nx\r\n",
        "PONG\r\nMSG a 1 1\r\nx\r\n",
    ),
    row(
        "words after PING, and a PONG without a PING",
        "CONNECT {\"verbose\":false}\r\nPING x\r\nPONG\r\n",
        "PONG\r\n",
    ),
    row(
        "CONNECT without a blank after it",
        "connect{\"verbose\":false}\r\nPING\r\n",
        "PONG\r\n",
    ),
    row(
        "a second CONNECT overrides only the options that it has",
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nCONNECT {\"name\":\"x\"}\r\nSUB a 1\r\n\
         HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        "HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    ),
    row(
        "no responders, and the inbox is in a queue group",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in.1 q 1\r\nPUB nobody in.1 1\r\nx\r\n",
        "",
    ),
    row(
        "UNSUB with a maximum that is not a number above 0 ends the subscription at once",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nUNSUB 1 x\r\nSUB a 2\r\nUNSUB 2 -1\r\nSUB a 3\r\nUNSUB 3 0\r\n\
         PUB a 1\r\nx\r\n",
        "",
    ),
    row(
        "an ok for a command without effect, none for PING and PONG",
        "CONNECT {\"verbose\":true}\r\nUNSUB 9\r\nPING\r\nPONG\r\n",
        "+OK\r\n+OK\r\nPONG\r\n",
    ),
    row(
        "an error instead of the ok for SUB, an error and the ok for PUB",
        "CONNECT {\"verbose\":true}\r\nSUB a..b 1\r\nPUB a..b 1\r\nx\r\n",
        "+OK\r\n-ERR 'Invalid Subject'\r\n-ERR 'Invalid Publish Subject'\r\n+OK\r\n",
    ),
    row(
        "without echo an own subscription is not a responder",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"echo\":false}\r\nSUB in.1 9\r\nSUB a 1\r\n\
         PUB a in.1 1\r\nx\r\n",
        "HMSG in.1 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    )
    .but_nats_server("HMSG in.1 9 33 33\r\nNATS/1.0 503\r\nNats-Subject: a\r\n\r\n\r\n"),
    row(
        "an ended subscription is not a responder",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in.1 9\r\nSUB a 1\r\nUNSUB 1 1\r\n\
         PUB a in.1 1\r\nx\r\nPUB a in.1 1\r\ny\r\n",
        "MSG a 1 in.1 1\r\nx\r\nHMSG in.1 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    )
    .but_nats_server(
        "MSG a 1 in.1 1\r\nx\r\nHMSG in.1 9 33 33\r\nNATS/1.0 503\r\nNats-Subject: a\r\n\r\n\r\n",
    ),
    row(
        "HPUB with headers of size 0",
        "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a 1\r\nHPUB a 0 5\r\nhello\r\n",
        "MSG a 1 5\r\nhello\r\n",
    ),
    row(
        "headers are not parsed",
        "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a 1\r\nHPUB a 12 17\r\nXATS/1.0\r\n\r\nhello\r\n",
        "HMSG a 1 12 17\r\nXATS/1.0\r\n\r\nhello\r\n",
    ),
    malformed("an empty line", "CONNECT {\"verbose\":false}\r\n\r\n"),
    malformed("blanks before a verb", "CONNECT {\"verbose\":false}\r\n PING\r\n"),
    malformed("a payload longer than its size says", "CONNECT {\"verbose\":false}\r\nPUB a 2\r\nhixx\r\n"),
    malformed("a frame that only servers send", "CONNECT {\"verbose\":false}\r\nMSG a 1 2\r\nhi\r\n"),
    malformed("SUB alone", "CONNECT {\"verbose\":false}\r\nSUB\r\n"),
    malformed("PUB alone", "CONNECT {\"verbose\":false}\r\nPUB\r\n"),
    malformed("UNSUB alone", "CONNECT {\"verbose\":false}\r\nUNSUB\r\n"),
    unexplained("SUB without a sid", "SUB a\r\n"),
    unexplained("SUB with too many words", "SUB a b c d\r\n"),
    unexplained("UNSUB with too many words", "UNSUB 1 2 3\r\n"),
    unexplained("PUB without a size", "PUB a\r\n"),
    unexplained("PUB with a size that is not a number", "PUB a x\r\n"),
    unexplained("PUB with a negative size", "PUB a -1\r\n"),
    unexplained("PUB with a sign before its size", "PUB a +1\r\n"),
    unexplained("PUB with a size beyond 64 bits", "PUB a 99999999999999999999\r\n"),
    unexplained("PUB with too many words", "PUB a b 1 2\r\n"),
    unexplained("headers larger than the whole message", "CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB a 13 12\r\n"),
    unexplained("CONNECT without JSON", "CONNECT\r\n"),
    unexplained("CONNECT with incomplete JSON", "CONNECT {\"a\r\n"),
    unexplained("CONNECT with a list", "CONNECT []\r\n"),
    unexplained("CONNECT with a text instead of a boolean", "CONNECT {\"verbose\":\"yes\"}\r\n"),
    closing(
        "a negative version of the protocol",
        "CONNECT {\"verbose\":false,\"protocol\":-1}\r\n",
        "-ERR 'invalid client protocol'\r\n",
    ),
    row(
        "a second CONNECT that turns pedantic on, and a repeated line",
        "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPUB a.* 64\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n\
         CONNECT {\"pedantic\":true}\r\nPUB a.* 64\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
        "-ERR 'Invalid Publish Subject'\r\n",
    ),
];

/// Rows about a second CONNECT, which ends all subscriptions, for a server without authentication. They hold also behind the sidecar.
pub(crate) const AGAIN: &[Row] = &[
    row(
        "a second CONNECT ends the subscriptions",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nCONNECT {\"verbose\":false}\r\nPUB foo 1\r\nx\r\n",
        "",
    ),
    row(
        "a second CONNECT without options",
        "CONNECT {\"verbose\":false}\r\nSUB foo q 1\r\nCONNECT {}\r\nPUB foo 1\r\nx\r\n",
        "",
    ),
    row(
        "a second CONNECT, both verbose",
        "CONNECT {\"verbose\":true}\r\nSUB foo 1\r\nCONNECT {\"verbose\":true}\r\nPUB foo 1\r\nx\r\n",
        "+OK\r\n+OK\r\n+OK\r\n+OK\r\n",
    ),
    row(
        "a second CONNECT that turns verbose on",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nCONNECT {\"verbose\":true}\r\nPUB a 1\r\nx\r\n",
        "+OK\r\n+OK\r\n",
    ),
    row(
        "a second CONNECT that turns verbose off",
        "CONNECT {\"verbose\":true}\r\nSUB foo 1\r\nCONNECT {\"verbose\":false}\r\nPUB foo 1\r\nx\r\n",
        "+OK\r\n+OK\r\n",
    ),
    row(
        "the sid of a subscription that a second CONNECT ended can be reused without its maximum",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nUNSUB 1 1\r\nCONNECT {\"verbose\":false}\r\nSUB foo 1\r\n\
         PUB foo 1\r\nx\r\nPUB foo 1\r\ny\r\n",
        "MSG foo 1 1\r\nx\r\nMSG foo 1 1\r\ny\r\n",
    ),
    row(
        "the first CONNECT does not end a subscription made before it",
        "SUB foo 1\r\nCONNECT {\"verbose\":false}\r\nPUB foo 1\r\nx\r\n",
        "+OK\r\nMSG foo 1 1\r\nx\r\n",
    ),
    row(
        "the second CONNECT ends a subscription made before the first",
        "SUB foo 1\r\nCONNECT {\"verbose\":false}\r\nSUB foo 2\r\nCONNECT {\"verbose\":false}\r\nPUB foo 1\r\nx\r\n",
        "+OK\r\n",
    ),
    row(
        "a third CONNECT has the effect of the second",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nCONNECT {\"verbose\":false}\r\nSUB foo 2\r\nPUB foo 1\r\nx\r\n\
         CONNECT {\"verbose\":false}\r\nPUB foo 1\r\ny\r\nUNSUB 2\r\nSUB foo 2\r\nPUB foo 1\r\nz\r\n",
        "MSG foo 2 1\r\nx\r\nMSG foo 2 1\r\nz\r\n",
    ),
];

/// Rows for a server with the user `a` and the password `b`.
pub(crate) const GUARDED: &[Row] = &[
    row(
        "the right user",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nPING\r\n",
        "PONG\r\n",
    ),
    unauthorized(
        "the wrong password",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"c\"}\r\nPING\r\n",
    ),
    unauthorized("no credentials", "CONNECT {\"verbose\":false}\r\n"),
    unauthorized("a command before CONNECT", "PING\r\n"),
    closing(
        "no CONNECT before the timeout",
        "",
        "-ERR 'Authentication Timeout'\r\n",
    ),
];

/// Rows for a server with the token `t`.
pub(crate) const TOKEN: &[Row] = &[
    row(
        "the right token",
        "CONNECT {\"verbose\":false,\"auth_token\":\"t\"}\r\nPING\r\n",
        "PONG\r\n",
    ),
    unauthorized(
        "the wrong token",
        "CONNECT {\"verbose\":false,\"auth_token\":\"u\"}\r\n",
    ),
    unauthorized(
        "a user instead of the token",
        "CONNECT {\"verbose\":false,\"user\":\"t\",\"pass\":\"t\"}\r\n",
    ),
];

/// Rows for a server with two users and with low limits.
pub(crate) const LIMITED: &[Row] = &[
    row(
        "a second CONNECT with the same credentials ends the subscriptions",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB foo 1\r\n\
         CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nPUB foo 1\r\nx\r\n",
        "",
    ),
    row(
        "a second CONNECT with another user's credentials ends the subscriptions",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB foo 1\r\n\
         CONNECT {\"verbose\":false,\"user\":\"c\",\"pass\":\"d\"}\r\nPUB foo 1\r\nx\r\n",
        "",
    ),
    unauthorized(
        "a second CONNECT with a wrong password",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB foo 1\r\n\
         CONNECT {\"verbose\":false,\"user\":\"c\",\"pass\":\"x\"}\r\nPUB foo 1\r\nx\r\n",
    ),
    row(
        "each of several users",
        "CONNECT {\"verbose\":false,\"user\":\"c\",\"pass\":\"d\"}\r\nPING\r\n",
        "PONG\r\n",
    ),
    unauthorized(
        "the password of another user",
        "CONNECT {\"verbose\":false,\"user\":\"c\",\"pass\":\"b\"}\r\n",
    ),
    row(
        "everything up to the limits",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB a 1\r\nSUB b 2\r\nPUB a 8\r\n12345678\r\n",
        "MSG a 1 8\r\n12345678\r\n",
    ),
    row(
        "a subscription over the limit",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB a 1\r\nSUB b 2\r\nSUB c 3\r\nPUB c 1\r\nx\r\n\
         UNSUB 1\r\nSUB c 4\r\nPUB c 1\r\ny\r\n",
        "-ERR 'maximum subscriptions exceeded'\r\nMSG c 4 1\r\ny\r\n",
    ),
    closing(
        "a payload one byte over the limit",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nPUB a 9\r\n123456789\r\n",
        "-ERR 'Maximum Payload Violation'\r\n",
    ),
    closing(
        "headers and payload one byte over the limit",
        "CONNECT {\"verbose\":false,\"headers\":true,\"user\":\"a\",\"pass\":\"b\"}\r\nHPUB a 8 9\r\n12345678x\r\n",
        "-ERR 'Maximum Payload Violation'\r\n",
    ),
    closing(
        "a control line over the limit",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB \
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 1\r\n",
        "-ERR 'maximum control line exceeded'\r\n",
    ),
];

/// Settings of the server for [`LIMITED`], in the format of nats-server.
pub(crate) const LIMITS: &str = "max_payload: 8\nmax_control_line: 128\nmax_subscriptions: 2\n\
                              authorization { users = [{ user: a, password: b }, { user: c, password: d }] }\n";
