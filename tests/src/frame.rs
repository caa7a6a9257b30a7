//! One whole frame as a test sees it: its bytes, its verb, its words, its payload.
//!
//! Deliberately a second, simple reading of the protocol page and not the product's own scanner: the tests must not
//! share a mistake with what they test.

/// The bytes of one frame of either direction, final `\r\n` included.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8>,
    line_length: usize,
}

impl Frame {
    /// The frame at the head of `bytes`; `None` when more are needed; an error when they can never become a frame.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the bytes.
    pub fn at_head(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some(line_length) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        let line =
            std::str::from_utf8(&bytes[..line_length]).map_err(|e| format!("the line is not UTF-8: {e}"))?;
        let verb = line
            .split_ascii_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        let total = match verb.as_str() {
            "INFO" | "CONNECT" | "PING" | "PONG" | "+OK" | "-ERR" | "SUB" | "UNSUB" => line_length + 2,
            "PUB" | "HPUB" | "MSG" | "HMSG" => {
                let size = line.split_ascii_whitespace().next_back().unwrap_or_default();
                let size: usize = size.parse().map_err(|_| format!("{size:?} is no payload size"))?;
                line_length + 2 + size + 2
            }
            _ => return Err(format!("{verb:?} is no verb of the protocol")),
        };
        if bytes.len() < total {
            return Ok(None);
        }
        if total > line_length + 2 && &bytes[total - 2..total] != b"\r\n" {
            return Err("the payload does not end where its size says".to_owned());
        }
        Ok(Some(Self {
            bytes: bytes[..total].to_vec(),
            line_length,
        }))
    }

    /// All bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The control line without its `\r\n`.
    pub fn line(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.line_length]).into_owned()
    }

    /// The verb in capitals: `MSG`, `+OK`, …
    pub fn verb(&self) -> String {
        self.line()
            .split_ascii_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase()
    }

    /// The words of the control line, verb included.
    pub fn words(&self) -> Vec<String> {
        self.line().split_ascii_whitespace().map(str::to_owned).collect()
    }

    /// The payload, headers included; empty for a frame without one.
    pub fn payload(&self) -> &[u8] {
        let start = self.line_length + 2;
        if self.bytes.len() > start {
            &self.bytes[start..self.bytes.len() - 2]
        } else {
            &[]
        }
    }

    /// The JSON argument of INFO or CONNECT; null when there is none that parses.
    pub fn json(&self) -> serde_json::Value {
        let line = self.line();
        let start = line.find('{').unwrap_or(line.len());
        serde_json::from_str(&line[start..]).unwrap_or_default()
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::conversation::escaped(&self.bytes))
    }
}
