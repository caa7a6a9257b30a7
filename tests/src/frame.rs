//! One frame of the protocol: its bytes, its verb, its words, its payload.
//!
//! This parser does not use the product's own scanner, so that the tests do not share a mistake with what they test.

/// The bytes of one frame, the final `\r\n` included, sent by a client or a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8>,
    line_length: usize,
}

impl Frame {
    /// Returns the frame at the head of `bytes`; `None` if it is not complete.
    ///
    /// # Errors
    /// A description of the mistake if the bytes are not a frame.
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
            "INFO" | "CONNECT" | "PING" | "PONG" | "+OK" | "-ERR" | "SUB" | "UNSUB" | "MOVE" => {
                line_length + 2
            }
            "PUB" | "HPUB" | "MSG" | "HMSG" => {
                let size = line.split_ascii_whitespace().next_back().unwrap_or_default();
                let size: usize = size
                    .parse()
                    .map_err(|_| format!("{size:?} is not a payload size"))?;
                line_length + 2 + size + 2
            }
            _ => return Err(format!("{verb:?} is not a verb of the protocol")),
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

    /// Returns all bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the control line without its `\r\n`.
    pub fn line(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.line_length]).into_owned()
    }

    /// Returns the verb in capitals: `MSG`, `+OK`, …
    pub fn verb(&self) -> String {
        self.line()
            .split_ascii_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase()
    }

    /// Returns the words of the control line, the verb included.
    pub fn words(&self) -> Vec<String> {
        self.line().split_ascii_whitespace().map(str::to_owned).collect()
    }

    /// Returns the payload with its headers; empty for a frame without payload.
    pub fn payload(&self) -> &[u8] {
        let start = self.line_length + 2;
        if self.bytes.len() > start {
            &self.bytes[start..self.bytes.len() - 2]
        } else {
            &[]
        }
    }

    /// Returns the JSON argument of INFO or CONNECT; null if there is none, or if it does not parse.
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
