//! A connection to the server: one request, then lines.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::LinesConfig;

/// How long the server may take to answer. Every wait has a bound.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest line.
const LONGEST: usize = 16 << 20;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were taken.
    taken: usize,
}

/// An error of the plugin. `Unavailable` is temporary: the engine tries again, and says so in the job's status.
pub(crate) fn fault(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).with_plugin("lines")
}

fn away(error: std::io::Error) -> Error {
    fault(ErrorKind::Unavailable, "the feed's server does not answer").with_source(error)
}

impl Connection {
    /// Connects and sends a request.
    pub(crate) async fn open(address: &str, request: &str) -> Result<Self> {
        let connect = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(format!("{request}\n").as_bytes()).await?;
            Ok(stream)
        };
        match tokio::time::timeout(TIMEOUT, connect).await {
            Ok(stream) => Ok(Self { stream: stream.map_err(away)?, buffer: Vec::new(), taken: 0 }),
            Err(_) => Err(fault(ErrorKind::Unavailable, "the feed's server took too long")),
        }
    }

    /// Waits for more bytes, at most `most` at once. Dropping the future loses none.
    pub(crate) async fn fill(&mut self, most: usize) -> Result<()> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.len() > LONGEST {
            return Err(fault(ErrorKind::Unexpected, format!("a line is longer than {LONGEST} bytes")));
        }
        let mut limited = (&mut self.stream).take(most.max(1) as u64);
        match limited.read_buf(&mut self.buffer).await.map_err(away)? {
            0 => Err(fault(ErrorKind::Unavailable, "the feed's server has closed the connection")),
            _ => Ok(()),
        }
    }

    /// The next line that is here as a whole, without its end.
    pub(crate) fn line(&mut self) -> Result<Option<&str>> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = rest.get(..length).unwrap_or_default();
        self.taken += length + 1;
        let line = std::str::from_utf8(line);
        line.map(Some).map_err(|error| fault(ErrorKind::Unexpected, "a line is no text").with_source(error))
    }
}

/// Asks for one line.
pub(crate) async fn ask(address: &str, request: &str) -> Result<String> {
    let answer = async {
        let mut connection = Connection::open(address, request).await?;
        loop {
            if let Some(line) = connection.line()? {
                return Ok(line.to_owned());
            }
            connection.fill(4 << 10).await?;
        }
    };
    let late = |_| fault(ErrorKind::Unavailable, "the feed's server took too long");
    tokio::time::timeout(TIMEOUT, answer).await.map_err(late)?
}

/// The channels of a feed and the number of the newest line in each.
pub(crate) async fn channels(config: &LinesConfig) -> Result<BTreeMap<String, u64>> {
    let answer = ask(&config.address, &format!("channels {}", config.feed)).await?;
    let channel = |word: &str| {
        let wrong = || fault(ErrorKind::Unexpected, format!("the feed's server says `{word}`, not a channel"));
        let (name, newest) = word.split_once('=').ok_or_else(wrong)?;
        Ok((name.to_owned(), number(newest)?))
    };
    answer.split_whitespace().map(channel).collect()
}

/// Reads a number that the server has sent.
pub(crate) fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| fault(ErrorKind::Unexpected, format!("the feed's server says `{text}`, not a number")))
}
