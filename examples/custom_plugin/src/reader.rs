//! The reader: all lines of a feed, in order of each channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch, TimestampMicrosecondArray};
use async_trait::async_trait;
use headwater_core::stream::{
    AssignedSplit, Lag, Payload, Progress, ReaderContext, StartPosition, StreamBatch, StreamEvent,
};
use headwater_core::{Error, ErrorKind, Result, SplitId, StreamReader};
use tokio::time::{Instant, timeout_at};

use crate::LinesConfig;
use crate::connection::{Connection, ask, channels, fault, number};
use crate::source::{metadata, position};

#[derive(Debug)]
pub(crate) struct LinesReader {
    config: Arc<LinesConfig>,
    context: ReaderContext,
    /// For each channel the last line that was delivered or lies before the start.
    read: BTreeMap<String, u64>,
    connection: Option<Connection>,
    /// A line of the connection that comes after those of the last batch.
    held: Option<Line>,
    /// When to look for new channels.
    look: Instant,
}

/// A line as the server sends it.
#[derive(Debug)]
struct Line {
    channel: String,
    number: u64,
    newest: u64,
    time: i64,
    text: String,
}

impl Line {
    fn read(line: &str) -> Result<Self> {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (channel, at, newest, time, text) = (word(), word(), word(), word().parse(), word());
        if channel == "lost" {
            let message = format!("channel `{at}` has {newest} lines, fewer than were read of it");
            return Err(fault(ErrorKind::PositionLost, message));
        }
        let time = time.map_err(|_| fault(ErrorKind::Unexpected, format!("`{line}` has no time")))?;
        let (channel, text) = (channel.to_owned(), text.to_owned());
        Ok(Self { channel, number: number(at)?, newest: number(newest)?, time, text })
    }
}

impl LinesReader {
    pub(crate) fn new(config: Arc<LinesConfig>, context: ReaderContext) -> Self {
        let (read, look) = (BTreeMap::new(), Instant::now());
        Self { config, context, read, connection: None, held: None, look }
    }

    /// Behind which line to begin a channel: its checkpoint, or as `start` says where there is none.
    async fn start(&self, channel: &str, newest: u64) -> Result<u64> {
        let split = SplitId::from(channel);
        match self.context.checkpoints.resume(&split).await? {
            Some(Progress::Through(position)) => {
                let wrong = || fault(ErrorKind::Corrupt, format!("`{position}` is no position of a line"));
                return position.to_u64().ok_or_else(wrong);
            }
            Some(Progress::End) => return Err(Error::unexpected("a channel has no end")),
            // Whatever appears later is read from its beginning.
            None if !self.read.is_empty() || self.context.checkpoints.started().await? => return Ok(0),
            None => {}
        }
        match self.context.start {
            StartPosition::Earliest => Ok(0),
            StartPosition::Latest => Ok(newest),
            StartPosition::At(time) => {
                let request = format!("find {} {channel} {time}", self.config.feed);
                number(&ask(&self.config.address, &request).await?)
            }
        }
    }

    /// Looks for channels that are not read yet.
    async fn look(&mut self) -> Result<Vec<AssignedSplit>> {
        let mut found = BTreeMap::new();
        for (channel, newest) in channels(&self.config).await? {
            if !self.read.contains_key(&channel) {
                let from = self.start(&channel, newest).await?;
                found.insert(channel, from);
            }
        }
        // Nothing is awaited from here on: a future that is dropped above has assigned nothing.
        self.look = Instant::now() + self.context.refresh;
        let assigned = found
            .iter()
            .map(|(channel, from)| AssignedSplit { split: SplitId::from(channel.as_str()), resume: position(*from) });
        let assigned = assigned.collect::<Vec<_>>();
        if !assigned.is_empty() {
            self.read.extend(found);
            self.disconnect();
        }
        Ok(assigned)
    }

    /// The next call begins anew behind the last lines that were delivered.
    fn disconnect(&mut self) {
        self.connection = None;
        self.held = None;
    }

    /// The lines of one channel that are here, as a batch. Awaits nothing, so no line is lost on the way.
    fn batch(&mut self) -> Result<Option<StreamBatch>> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        let mut bytes = 0;
        let mut lines: Vec<Line> = Vec::new();
        while lines.len() < self.context.batch_records.max(1) {
            let line = match self.held.take() {
                Some(line) => line,
                None => match connection.line()? {
                    Some(line) => Line::read(line)?,
                    None => break,
                },
            };
            bytes += line.text.len();
            if let Some(last) = lines.last()
                && (last.channel != line.channel || bytes > self.context.buffer_bytes)
            {
                self.held = Some(line);
                break;
            }
            lines.push(line);
        }
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(None) };
        let read = self.read.get_mut(&first.channel);
        let read = read.ok_or_else(|| fault(ErrorKind::Unexpected, format!("nobody reads `{}`", first.channel)))?;
        if !lines.iter().map(|line| line.number).eq((*read + 1..).take(lines.len())) {
            return Err(fault(ErrorKind::Unexpected, format!("lines are missing behind line {read}")));
        }
        *read = last.number;
        let times = TimestampMicrosecondArray::from_iter_values(lines.iter().map(|line| line.time));
        Ok(Some(StreamBatch {
            split: SplitId::from(first.channel.as_str()),
            payload: Payload::Encoded(BinaryArray::from_iter_values(lines.iter().map(|line| &line.text))),
            positions: BinaryArray::from_iter_values(lines.iter().map(|line| line.number.to_be_bytes())),
            metadata: Some(RecordBatch::try_new(metadata(), vec![Arc::new(times.with_timezone("UTC"))])?),
            through: position(last.number),
            lag: Some(Lag { records: Some(last.newest.saturating_sub(last.number)), bytes: None, time: None }),
            lost: false,
        }))
    }

    /// Waits for more lines.
    async fn fill(&mut self) -> Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let read = self.read.iter().map(|(channel, after)| format!(" {channel}={after}")).collect::<String>();
                let request = format!("read {}{read}", self.config.feed);
                self.connection.insert(Connection::open(&self.config.address, &request).await?)
            }
        };
        connection.fill(self.context.buffer_bytes.min(64 << 10)).await
    }

    async fn advance(&mut self) -> Result<StreamEvent> {
        loop {
            if Instant::now() >= self.look {
                let assigned = self.look().await?;
                if !assigned.is_empty() {
                    return Ok(StreamEvent::Assigned(assigned));
                }
            }
            if let Some(batch) = self.batch()? {
                return Ok(StreamEvent::Batch(batch));
            }
            let look = self.look;
            match timeout_at(look, self.fill()).await {
                Ok(filled) => filled?,
                // Time to look for channels again.
                Err(_) => continue,
            }
        }
    }
}

#[async_trait]
impl StreamReader for LinesReader {
    async fn next(&mut self) -> Result<Option<StreamEvent>> {
        let event = self.advance().await;
        if event.is_err() {
            self.disconnect();
        }
        event.map(Some)
    }

    async fn commit(&mut self, _: &[(SplitId, Progress)]) -> Result<()> {
        // The server keeps no positions: the engine's checkpoints are the truth.
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
