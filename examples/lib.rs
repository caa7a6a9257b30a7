//! Small programs that a newcomer reads first: `old_client`, a client as they were in 2012, and `failover`, which puts one
//! behind the sidecar and kills nodes under it. This library is what both share: [`OldClient`].

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A NATS client that knows one address, and for which the loss of its connection is the end.
///
/// It speaks the protocol by hand, so that all there is to see is on one page.
pub struct OldClient {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    /// The server's first line.
    pub info: String,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// What it says.
    pub payload: Vec<u8>,
}

impl OldClient {
    /// Connects, reads INFO, sends CONNECT, and waits for the server's PONG.
    ///
    /// # Errors
    /// What the socket says; a server that answers with anything else.
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

    /// Subscribes; `sid` is the client's own name for the subscription.
    ///
    /// # Errors
    /// What the socket says.
    pub fn subscribe(&mut self, subject: &str, sid: u32) -> io::Result<()> {
        self.send(&format!("SUB {subject} {sid}\r\n"))
    }

    /// Publishes.
    ///
    /// # Errors
    /// What the socket says.
    pub fn publish(&mut self, subject: &str, payload: &str) -> io::Result<()> {
        self.send(&format!("PUB {subject} {}\r\n{payload}\r\n", payload.len()))
    }

    /// A second handle on the same connection, to publish while the first one waits for messages.
    ///
    /// # Errors
    /// What the system says.
    pub fn second_hand(&self) -> io::Result<Self> {
        let writer = self.writer.try_clone()?;
        Ok(Self {
            reader: BufReader::new(writer.try_clone()?),
            writer,
            info: self.info.clone(),
        })
    }

    /// The next message, or `None` when none comes within `patience`.
    ///
    /// # Errors
    /// What the socket says; `UnexpectedEof` when the server closed; an `-ERR`.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Message>> {
        self.writer.set_read_timeout(Some(patience))?;
        loop {
            if self.reader.buffer().is_empty() {
                match self.reader.fill_buf() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(error) => return Err(error),
                    Ok(_) => {}
                }
            }
            // What has begun to come is awaited to its end.
            self.writer.set_read_timeout(None)?;
            let line = self.line()?;
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words.as_slice() {
                ["PING"] => self.send("PONG\r\n")?,
                ["MSG", subject, .., size] => {
                    let size: usize = size.parse().map_err(io::Error::other)?;
                    let mut payload = vec![0; size + 2];
                    io::Read::read_exact(&mut self.reader, &mut payload)?;
                    payload.truncate(size);
                    return Ok(Some(Message {
                        subject: (*subject).to_owned(),
                        payload,
                    }));
                }
                ["-ERR", ..] => return Err(io::Error::other(line)),
                _ => {}
            }
            self.writer.set_read_timeout(Some(patience))?;
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
