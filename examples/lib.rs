//! Shared by the examples: [`OldClient`], a NATS client like the client libraries of 2012.
//!
//! | program | shows |
//! |---|---|
//! | `old_client` | the old client by itself: subscribes, prints, publishes what is typed |
//! | `failover` | the same client behind the sidecar, while nodes are killed under it |
//! | `embed_sidecar` | the sidecar as a library inside a program |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A NATS client that knows one address and does not reconnect.
///
/// It writes and reads the protocol itself, so that everything that goes over the wire is in this file.
pub struct OldClient {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    /// The first line that the server sent: INFO.
    pub info: String,
}

/// One received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The subject to which it was published.
    pub subject: String,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl OldClient {
    /// Connects, reads INFO, sends CONNECT and PING, and waits for the PONG.
    ///
    /// # Errors
    /// The socket's error, or the server's answer if it is not a PONG.
    pub fn connect(address: impl ToSocketAddrs) -> io::Result<Self> {
        let writer = TcpStream::connect(address)?;
        writer.set_nodelay(true)?;
        let mut client = Self {
            reader: BufReader::new(writer.try_clone()?),
            writer,
            info: String::new(),
        };
        client.info = client.line()?;
        client.send("CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n")?;
        match client.line()?.as_str() {
            "PONG" => Ok(client),
            other => Err(io::Error::other(format!("expected PONG, got {other}"))),
        }
    }

    /// Subscribes. The server names the subscription by `sid` in each message.
    pub fn subscribe(&mut self, subject: &str, sid: u32) -> io::Result<()> {
        self.send(&format!("SUB {subject} {sid}\r\n"))
    }

    /// Publishes a message.
    pub fn publish(&mut self, subject: &str, payload: &str) -> io::Result<()> {
        self.send(&format!("PUB {subject} {}\r\n{payload}\r\n", payload.len()))
    }

    /// Returns a second handle on the same connection, for a thread that publishes while this one waits for messages.
    pub fn second_handle(&self) -> io::Result<Self> {
        let writer = self.writer.try_clone()?;
        Ok(Self {
            reader: BufReader::new(writer.try_clone()?),
            writer,
            info: self.info.clone(),
        })
    }

    /// Returns the next message, or `None` once nothing arrives for `timeout`. Answers PINGs.
    ///
    /// # Errors
    /// The socket's error, `UnexpectedEof` if the server closed the connection, or an `-ERR` of the server.
    pub fn next(&mut self, timeout: Duration) -> io::Result<Option<Message>> {
        loop {
            self.writer.set_read_timeout(Some(timeout))?;
            match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            // A frame that has begun is read to its end.
            self.writer.set_read_timeout(None)?;
            let line = self.line()?;
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words.as_slice() {
                ["PING"] => self.send("PONG\r\n")?,
                ["MSG", subject, .., size] => {
                    let size: usize = size.parse().map_err(io::Error::other)?;
                    let mut payload = vec![0; size + 2];
                    self.reader.read_exact(&mut payload)?;
                    payload.truncate(size);
                    return Ok(Some(Message {
                        subject: (*subject).to_owned(),
                        payload,
                    }));
                }
                ["-ERR", ..] => return Err(io::Error::other(line)),
                _ => {}
            }
        }
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            ));
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}
