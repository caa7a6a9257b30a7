//! The table of conversations: what a client says, and what it must hear.

/// What one client says, and all that it hears.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    pub(crate) hears: &'static str,
    /// What real nats-server says instead, where ours differs on purpose.
    pub(crate) hears_from_nats: Option<&'static str>,
    /// The server closes the connection behind it.
    pub(crate) closes: bool,
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

/// A line after which the server closes: ours says why, real nats-server does not.
const fn unexplained(name: &'static str, says: &'static str) -> Row {
    closing(name, says, "-ERR 'Unknown Protocol Operation'\r\n").but_nats("")
}

impl Row {
    /// Real nats-server says this instead.
    const fn but_nats(mut self, hears: &'static str) -> Self {
        self.hears_from_nats = Some(hears);
        self
    }
}

/// On a server that is open to all.
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
    row(
        "an empty queue token is a name like any other",
        "CONNECT {\"verbose\":false}\r\nSUB a q..x 1\r\nSUB b q.* 2\r\nPUB a 1\r\nx\r\nPUB b 1\r\nx\r\n",
        "MSG a 1 1\r\nx\r\nMSG b 2 1\r\nx\r\n",
    ),
    row(
        "a subject with an empty token reaches nobody",
        "CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPUB a..b 1\r\nx\r\nPUB .a 1\r\nx\r\nPUB a. 1\r\nx\r\n",
        "-ERR 'Invalid Publish Subject'\r\n-ERR 'Invalid Publish Subject'\r\n-ERR 'Invalid Publish Subject'\r\n",
    ),
    row(
        "wildcards are whole tokens only",
        "CONNECT {\"verbose\":false}\r\nSUB foo* 1\r\nSUB a>.b 2\r\nPUB foo* 1\r\nx\r\nPUB foob 1\r\ny\r\nPUB a>.b 1\r\nz\r\n",
        "MSG foo* 1 1\r\nx\r\nMSG a>.b 2 1\r\nz\r\n",
    ),
    row(
        "subjects and sids of any letters",
        "CONNECT {\"verbose\":false}\r\nSUB gr\u{fc}\u{df}.\u{1f980} sid-1\r\nPUB gr\u{fc}\u{df}.\u{1f980} 1\r\nx\r\n",
        "MSG gr\u{fc}\u{df}.\u{1f980} sid-1 1\r\nx\r\n",
    ),
    row(
        "a payload of line ends",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 4\r\n\r\n\r\n\r\n",
        "MSG a 1 4\r\n\r\n\r\n\r\n",
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
        "words behind PING, a PONG that nobody asked for",
        "CONNECT {\"verbose\":false}\r\nPING x\r\nPONG\r\n",
        "PONG\r\n",
    ),
    row(
        "CONNECT without a blank behind it",
        "connect{\"verbose\":false}\r\nPING\r\n",
        "PONG\r\n",
    ),
    row(
        "a second CONNECT is laid over the first",
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nCONNECT {\"name\":\"x\"}\r\nSUB a 1\r\n\
         HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        "HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    ),
    row(
        "nobody listens, and the answer would go to a queue",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in.1 q 1\r\nPUB nobody in.1 1\r\nx\r\n",
        "",
    ),
    row(
        "UNSUB with a maximum that is no number above 0 ends it at once",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nUNSUB 1 x\r\nSUB a 2\r\nUNSUB 2 -1\r\nSUB a 3\r\nUNSUB 3 0\r\n\
         PUB a 1\r\nx\r\n",
        "",
    ),
    row(
        "an ok for what changes nothing, none for PING and PONG",
        "CONNECT {\"verbose\":true}\r\nUNSUB 9\r\nPING\r\nPONG\r\n",
        "+OK\r\n+OK\r\nPONG\r\n",
    ),
    row(
        "an error in place of the ok, but a message is taken all the same",
        "CONNECT {\"verbose\":true}\r\nSUB a..b 1\r\nPUB a..b 1\r\nx\r\n",
        "+OK\r\n-ERR 'Invalid Subject'\r\n-ERR 'Invalid Publish Subject'\r\n+OK\r\n",
    ),
    row(
        "an own subscription is nobody without echo",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"echo\":false}\r\nSUB in.1 9\r\nSUB a 1\r\n\
         PUB a in.1 1\r\nx\r\n",
        "HMSG in.1 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    )
    .but_nats("HMSG in.1 9 33 33\r\nNATS/1.0 503\r\nNats-Subject: a\r\n\r\n\r\n"),
    row(
        "a subscription that is over is nobody",
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in.1 9\r\nSUB a 1\r\nUNSUB 1 1\r\n\
         PUB a in.1 1\r\nx\r\nPUB a in.1 1\r\ny\r\n",
        "MSG a 1 in.1 1\r\nx\r\nHMSG in.1 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    )
    .but_nats(
        "MSG a 1 in.1 1\r\nx\r\nHMSG in.1 9 33 33\r\nNATS/1.0 503\r\nNats-Subject: a\r\n\r\n\r\n",
    ),
    row(
        "no headers in spite of HPUB",
        "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a 1\r\nHPUB a 0 5\r\nhello\r\n",
        "MSG a 1 5\r\nhello\r\n",
    ),
    row(
        "what headers say is not looked at",
        "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a 1\r\nHPUB a 12 17\r\nXATS/1.0\r\n\r\nhello\r\n",
        "HMSG a 1 12 17\r\nXATS/1.0\r\n\r\nhello\r\n",
    ),
    closing("no line", "CONNECT {\"verbose\":false}\r\n\r\n", "-ERR 'Unknown Protocol Operation'\r\n"),
    closing(
        "blanks before a verb",
        "CONNECT {\"verbose\":false}\r\n PING\r\n",
        "-ERR 'Unknown Protocol Operation'\r\n",
    ),
    closing(
        "a payload longer than it was said",
        "CONNECT {\"verbose\":false}\r\nPUB a 2\r\nhixx\r\n",
        "-ERR 'Unknown Protocol Operation'\r\n",
    ),
    closing(
        "a frame of servers",
        "CONNECT {\"verbose\":false}\r\nMSG a 1 2\r\nhi\r\n",
        "-ERR 'Unknown Protocol Operation'\r\n",
    ),
    closing("SUB alone", "CONNECT {\"verbose\":false}\r\nSUB\r\n", "-ERR 'Unknown Protocol Operation'\r\n"),
    closing("PUB alone", "CONNECT {\"verbose\":false}\r\nPUB\r\n", "-ERR 'Unknown Protocol Operation'\r\n"),
    closing("UNSUB alone", "CONNECT {\"verbose\":false}\r\nUNSUB\r\n", "-ERR 'Unknown Protocol Operation'\r\n"),
    unexplained("SUB without a sid", "SUB a\r\n"),
    unexplained("SUB with too many words", "SUB a b c d\r\n"),
    unexplained("UNSUB with too many words", "UNSUB 1 2 3\r\n"),
    unexplained("PUB without a size", "PUB a\r\n"),
    unexplained("PUB with a size that is no number", "PUB a x\r\n"),
    unexplained("PUB with a size below nothing", "PUB a -1\r\n"),
    unexplained("PUB with a sign before its size", "PUB a +1\r\n"),
    unexplained("PUB with a size beyond all measure", "PUB a 99999999999999999999\r\n"),
    unexplained("PUB with too many words", "PUB a b 1 2\r\n"),
    closing(
        "headers larger than all",
        "CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB a 13 12\r\n",
        "-ERR 'Unknown Protocol Operation'\r\n",
    )
    .but_nats(""),
    closing("CONNECT without JSON", "CONNECT\r\n", "-ERR 'Unknown Protocol Operation'\r\n").but_nats(""),
    closing("CONNECT with half a JSON", "CONNECT {\"a\r\n", "-ERR 'Unknown Protocol Operation'\r\n").but_nats(""),
    closing("CONNECT with a list", "CONNECT []\r\n", "-ERR 'Unknown Protocol Operation'\r\n").but_nats(""),
    closing(
        "CONNECT with a word for yes or no",
        "CONNECT {\"verbose\":\"yes\"}\r\n",
        "-ERR 'Unknown Protocol Operation'\r\n",
    )
    .but_nats(""),
    closing(
        "a version of the protocol below nothing",
        "CONNECT {\"verbose\":false,\"protocol\":-1}\r\n",
        "-ERR 'invalid client protocol'\r\n",
    ),
];

/// A second CONNECT ends all subscriptions; on a server that is open to all. They also hold behind the sidecar.
pub(crate) const AGAIN: &[Row] = &[
    row(
        "a second CONNECT ends the subscriptions",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nCONNECT {\"verbose\":false}\r\nPUB foo 1\r\nx\r\n",
        "",
    ),
    row(
        "a second CONNECT that says nothing",
        "CONNECT {\"verbose\":false}\r\nSUB foo q 1\r\nCONNECT {}\r\nPUB foo 1\r\nx\r\n",
        "",
    ),
    row(
        "a second CONNECT, both verbose",
        "CONNECT {\"verbose\":true}\r\nSUB foo 1\r\nCONNECT {\"verbose\":true}\r\nPUB foo 1\r\nx\r\n",
        "+OK\r\n+OK\r\n+OK\r\n+OK\r\n",
    ),
    row(
        "a second CONNECT that asks for oks",
        "CONNECT {\"verbose\":false}\r\nSUB a 1\r\nCONNECT {\"verbose\":true}\r\nPUB a 1\r\nx\r\n",
        "+OK\r\n+OK\r\n",
    ),
    row(
        "a second CONNECT that asks for no more oks",
        "CONNECT {\"verbose\":true}\r\nSUB foo 1\r\nCONNECT {\"verbose\":false}\r\nPUB foo 1\r\nx\r\n",
        "+OK\r\n+OK\r\n",
    ),
    row(
        "the sid of a subscription that a second CONNECT ended is free, its maximum forgotten",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nUNSUB 1 1\r\nCONNECT {\"verbose\":false}\r\nSUB foo 1\r\n\
         PUB foo 1\r\nx\r\nPUB foo 1\r\ny\r\n",
        "MSG foo 1 1\r\nx\r\nMSG foo 1 1\r\ny\r\n",
    ),
    row(
        "the first CONNECT ends nothing that came before it",
        "SUB foo 1\r\nCONNECT {\"verbose\":false}\r\nPUB foo 1\r\nx\r\n",
        "+OK\r\nMSG foo 1 1\r\nx\r\n",
    ),
    row(
        "and the second one behind it does",
        "SUB foo 1\r\nCONNECT {\"verbose\":false}\r\nSUB foo 2\r\nCONNECT {\"verbose\":false}\r\nPUB foo 1\r\nx\r\n",
        "+OK\r\n",
    ),
    row(
        "a third CONNECT is as the second",
        "CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nCONNECT {\"verbose\":false}\r\nSUB foo 2\r\nPUB foo 1\r\nx\r\n\
         CONNECT {\"verbose\":false}\r\nPUB foo 1\r\ny\r\nUNSUB 2\r\nSUB foo 2\r\nPUB foo 1\r\nz\r\n",
        "MSG foo 2 1\r\nx\r\nMSG foo 2 1\r\nz\r\n",
    ),
];

/// On a server with the user `a` and the password `b`.
pub(crate) const GUARDED: &[Row] = &[
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

/// On a server with the token `t`.
pub(crate) const TOKEN: &[Row] = &[
    row(
        "the right token",
        "CONNECT {\"verbose\":false,\"auth_token\":\"t\"}\r\nPING\r\n",
        "PONG\r\n",
    ),
    closing(
        "the wrong token",
        "CONNECT {\"verbose\":false,\"auth_token\":\"u\"}\r\n",
        "-ERR 'Authorization Violation'\r\n",
    ),
    closing(
        "a user in place of the token",
        "CONNECT {\"verbose\":false,\"user\":\"t\",\"pass\":\"t\"}\r\n",
        "-ERR 'Authorization Violation'\r\n",
    ),
];

/// On a server with two users, and with small limits.
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
    closing(
        "a second CONNECT with a wrong password",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB foo 1\r\n\
         CONNECT {\"verbose\":false,\"user\":\"c\",\"pass\":\"x\"}\r\nPUB foo 1\r\nx\r\n",
        "-ERR 'Authorization Violation'\r\n",
    ),
    row(
        "each of several users",
        "CONNECT {\"verbose\":false,\"user\":\"c\",\"pass\":\"d\"}\r\nPING\r\n",
        "PONG\r\n",
    ),
    closing(
        "the password of another",
        "CONNECT {\"verbose\":false,\"user\":\"c\",\"pass\":\"b\"}\r\n",
        "-ERR 'Authorization Violation'\r\n",
    ),
    row(
        "as much as allowed",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB a 1\r\nSUB b 2\r\nPUB a 8\r\n12345678\r\n",
        "MSG a 1 8\r\n12345678\r\n",
    ),
    row(
        "a subscription too many",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB a 1\r\nSUB b 2\r\nSUB c 3\r\nPUB c 1\r\nx\r\n\
         UNSUB 1\r\nSUB c 4\r\nPUB c 1\r\ny\r\n",
        "-ERR 'maximum subscriptions exceeded'\r\nMSG c 4 1\r\ny\r\n",
    ),
    closing(
        "a byte too many",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nPUB a 9\r\n123456789\r\n",
        "-ERR 'Maximum Payload Violation'\r\n",
    ),
    closing(
        "headers and payload a byte too many",
        "CONNECT {\"verbose\":false,\"headers\":true,\"user\":\"a\",\"pass\":\"b\"}\r\nHPUB a 8 9\r\n12345678x\r\n",
        "-ERR 'Maximum Payload Violation'\r\n",
    ),
    closing(
        "a line too long",
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nSUB \
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 1\r\n",
        "-ERR 'maximum control line exceeded'\r\n",
    ),
];

/// The settings of that server, in nats-server's format.
pub(crate) const LIMITS: &str = "max_payload: 8\nmax_control_line: 128\nmax_subscriptions: 2\n\
                              authorization { users = [{ user: a, password: b }, { user: c, password: d }] }\n";
