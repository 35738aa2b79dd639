//! Dead letters: looking at them, and feeding them again after a fix.
//!
//! A replay is a split of its own, `replay-<run>`, with its own checkpoints; a record's position in it is made of its
//! split and position in the stream. What a run brings in is marked, so that later runs leave it alone: marks are
//! written first, and count from the moment that what they speak of is durable. A run that was broken off is taken up
//! again by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, BinaryArray};
use arrow::compute::concat_batches;
use bytes::Bytes;
use headwater_core::definitions::SourceKind;
use headwater_core::online::OnlineRow;
use headwater_core::stream::{AssignedSplit, Checkpoints, Payload, Progress, StreamBatch};
use headwater_core::{Error, Position, Result, SplitId};
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, GroupCheckpoints};
use super::dead::{self, DeadLetter};
use super::decode::Decoder;
use super::lane::Lane;
use super::sink::Sink;
use super::status::Board;
use super::worker::prepare;
use super::{Tuning, blocking};
use crate::project::Project;
use crate::rows::table_prefix;
use crate::view::View;

/// Splits of replays are called so, with the name of the run.
const PREFIX: &str = "replay-";

/// How many dead letters are fed at once.
const CHUNK: usize = 4_096;

/// Whether a split is that of a replay. A file that is read as a split may be called nearly so.
pub(super) fn is_replay(split: &SplitId) -> bool {
    let name = std::str::from_utf8(split.as_bytes()).ok().and_then(|name| name.strip_prefix(PREFIX));
    name.is_some_and(|run| uuid::Uuid::try_parse(run).is_ok())
}

/// A dead letter and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDeadLetter {
    /// The dead letter.
    pub letter: DeadLetter,
    /// A replay has brought it in, or its view reads the record without fault since its definition was changed.
    pub resolved: bool,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Replayed {
    /// Records that are in now.
    pub brought_in: u64,
    /// Records that failed again and stay dead letters.
    pub failed: u64,
    /// Records that a replay or the view itself has read meanwhile, or will read.
    pub skipped: u64,
}

/// All dead letters of a project, in order of view, generation, split and position.
///
/// # Errors
/// Those of the stores; `Corrupt` for what is no dead letter.
pub async fn dead_letters(project: &Arc<Project>) -> Result<Vec<ListedDeadLetter>> {
    let letters = dead::read_all(project.offline.as_ref()).await?;
    let mut open = BTreeSet::new();
    for view in &project.views {
        let run = Run::read(project, view).await?;
        let (unresolved, unread) = sort_out(project, view, &letters, &run).await?;
        open.extend(unresolved.iter().chain(&unread).map(identity));
    }
    let resolved = letters.iter().map(|letter| !open.contains(&identity(letter))).collect::<Vec<_>>();
    Ok(letters.into_iter().zip(resolved).map(|(letter, resolved)| ListedDeadLetter { letter, resolved }).collect())
}

/// Feeds the dead letters of `source`, or of all sources, to their views again, as they are defined now. Records that
/// fail again stay dead letters.
///
/// # Errors
/// `NotFound` for an unknown source; else those of the stores.
pub async fn replay_dead_letters(project: &Arc<Project>, source: Option<&str>) -> Result<Replayed> {
    if let Some(source) = source {
        project.source(source)?;
    }
    let letters = dead::read_all(project.offline.as_ref()).await?;
    let mut total = Replayed::default();
    for view in &project.views {
        let Some(stream) = &view.stream else { continue };
        if source.is_none_or(|source| source == stream.source) {
            let done = replay_view(project, view, &stream.source, &letters).await?;
            total.brought_in += done.brought_in;
            total.failed += done.failed;
            total.skipped += done.skipped;
        }
    }
    Ok(total)
}

fn identity(letter: &DeadLetter) -> (String, String, SplitId, Position) {
    (letter.view.clone(), letter.generation.clone(), letter.split.clone(), letter.position.clone())
}

async fn replay_view(
    project: &Arc<Project>,
    view: &Arc<View>,
    source: &str,
    letters: &[DeadLetter],
) -> Result<Replayed> {
    let mut run = Run::read(project, view).await?;
    let (open, _) = sort_out(project, view, letters, &run).await?;
    let of_view = letters.iter().filter(|letter| letter.view == view.name).count();
    let mut done = Replayed { skipped: (of_view - open.len()) as u64, ..Replayed::default() };
    if open.is_empty() {
        return Ok(done);
    }
    run.begin(project, view).await?;
    let definition = project.source(source)?;
    let SourceKind::Stream(settings) = &definition.kind else {
        return Err(Error::invalid(format!("source `{source}` is not a stream")));
    };
    let input = view.stream.as_ref().map(|stream| Arc::clone(&stream.input));
    let input = input.ok_or_else(|| Error::invalid(format!("view `{}` has no stream", view.name)))?;
    let stream = project.stream_source(source)?;
    let decoder = Arc::new(Decoder::new(&project.definitions, definition, stream.as_ref(), &input)?);
    let skew = Some(settings.max_future_skew.0);

    let board = Board::new(source, "", project.clock.now());
    let lane = Lane::new(&project.definitions.project, source, view)?;
    let mut sink = Sink::new(Arc::clone(project), vec![lane], board, Tuning::default());
    let split = run.split();
    sink.assign(&[AssignedSplit { split: split.clone(), resume: Position::START }]).await?;
    let mut rest = open.as_slice();
    while !rest.is_empty() {
        let (chunk, after) = chunk(rest, &split)?;
        let count = rest.len() - after.len();
        let (views, decoder, source, now) =
            ([Arc::clone(view)], Arc::clone(&decoder), source.to_owned(), project.clock.now());
        let writers = decoder.ask(&chunk).await?;
        let mut prepared = blocking(move || prepare(&source, &decoder, &writers, &views, skew, now, chunk)).await?;
        let mut failed = BTreeSet::new();
        for part in &mut prepared.parts {
            // They have their dead letters already.
            failed.extend(part.dead.drain(..).map(|letter| letter.position));
        }
        let positions = rest.iter().take(count).map(position_of);
        let good = positions.filter(|position| !failed.contains(position)).collect::<Vec<_>>();
        run.mark(project, view, &good).await?;
        sink.accept(prepared)?;
        sink.sync().await?;
        done.brought_in += good.len() as u64;
        done.failed += failed.len() as u64;
        rest = after;
    }
    run.end(project, view).await?;
    Ok(done)
}

/// The dead letters of a view that are worth a try, in order, each record once; and those that the view has yet to read.
async fn sort_out(
    project: &Arc<Project>,
    view: &Arc<View>,
    letters: &[DeadLetter],
    run: &Run,
) -> Result<(Vec<DeadLetter>, Vec<DeadLetter>)> {
    let of_view = letters.iter().filter(|letter| letter.view == view.name).collect::<Vec<_>>();
    if of_view.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let durable = run.durable(project, view).await?;
    let checkpoints = checkpoint::load(project.online.as_ref(), &project.definitions.project, view).await?;
    let mut open: BTreeMap<(SplitId, Position), DeadLetter> = BTreeMap::new();
    let mut unread = Vec::new();
    for letter in of_view {
        if run.has_brought_in(&position_of(letter), &durable) {
            continue;
        }
        if letter.generation != view.generation {
            // What the present generation has read itself is either in, or among its own dead letters.
            match checkpoints.get(&letter.split) {
                Some(read) if letter.position <= read.from => {}
                Some(read) if letter.position <= read.through => continue,
                _ => {
                    unread.push(letter.clone());
                    continue;
                }
            }
        }
        open.insert((letter.split.clone(), letter.position.clone()), letter.clone());
    }
    Ok((open.into_values().collect(), unread))
}

/// The position of a record in a replay: its split with `00` written as `00 ff`, `00 00`, its position. Their byte order
/// is that of (split, position).
fn position_of(letter: &DeadLetter) -> Position {
    let mut bytes = Vec::new();
    for byte in letter.split.as_bytes() {
        bytes.push(*byte);
        if *byte == 0 {
            bytes.push(0xff);
        }
    }
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(letter.position.as_bytes());
    Position::new(bytes)
}

/// The first of `letters` that make one batch: of one format and schema.
fn chunk<'a>(letters: &'a [DeadLetter], split: &SplitId) -> Result<(StreamBatch, &'a [DeadLetter])> {
    let mut encoded: Vec<BinaryArray> = Vec::new();
    let mut rows = Vec::new();
    let mut metadata = Vec::new();
    let mut positions = Vec::new();
    for letter in letters.iter().take(CHUNK) {
        let (payload, known) = (letter.payload()?, letter.metadata()?);
        let fits = match &payload {
            Payload::Encoded(_) => rows.is_empty(),
            Payload::Rows(row) => {
                encoded.is_empty()
                    && rows.first().is_none_or(|first: &arrow::array::RecordBatch| first.schema() == row.schema())
            }
        } && (positions.is_empty()
            || metadata.first().map(|first: &arrow::array::RecordBatch| first.schema())
                == known.as_ref().map(arrow::array::RecordBatch::schema));
        if !fits {
            break;
        }
        match payload {
            Payload::Encoded(record) => encoded.push(record),
            Payload::Rows(row) => rows.push(row),
        }
        metadata.extend(known);
        positions.push(position_of(letter));
    }
    let payload = match rows.first() {
        Some(first) => Payload::Rows(concat_batches(&first.schema(), &rows)?),
        None => {
            let arrays = encoded.iter().map(|record| record as &dyn arrow::array::Array).collect::<Vec<_>>();
            Payload::Encoded(arrow::compute::concat(&arrays)?.as_binary::<i32>().clone())
        }
    };
    let metadata = match metadata.first() {
        Some(first) => Some(concat_batches(&first.schema(), &metadata)?),
        None => None,
    };
    let through = positions.last().cloned().unwrap_or(Position::START);
    let batch = StreamBatch {
        split: split.clone(),
        payload,
        metadata,
        through,
        lag: None,
        lost: false,
        positions: BinaryArray::from_iter_values(positions.iter().map(Position::as_bytes)),
    };
    Ok((batch, letters.get(positions.len()..).unwrap_or_default()))
}

/// The latest replay of a view, and what all of them have brought in.
#[derive(Debug)]
struct Run {
    id: String,
    open: bool,
    /// Position in a replay → the run that brought it in.
    marks: BTreeMap<Position, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    version: u32,
    id: String,
    open: bool,
}

impl Run {
    fn table(project: &Project) -> String {
        format!("{}_replays", table_prefix(&project.definitions.project))
    }

    fn key(kind: &str, view: &View) -> Vec<u8> {
        format!("{kind}\0{}\0{}\0", view.name, view.generation).into_bytes()
    }

    async fn read(project: &Project, view: &View) -> Result<Self> {
        let (run, mark) = (Bytes::from(Self::key("run", view)), Bytes::from(Self::key("mark", view)));
        let length = mark.len();
        let table = Self::table(project);
        let journal = project.online.get(&table, &[run]).await?.pop().flatten();
        let journal = match journal {
            Some(row) => serde_json::from_slice(&row.value)
                .map_err(|error| Error::corrupt("the journal of a replay cannot be read").with_source(error))?,
            None => Journal { version: 1, id: String::new(), open: false },
        };
        if journal.version != 1 {
            return Err(Error::new(
                headwater_core::ErrorKind::FormatVersion,
                format!("a replay's journal has version `{}`; this release knows `1`", journal.version),
            ));
        }
        let marks = project.online.get_prefixes(&table, &[mark]).await?;
        let marks = marks
            .into_iter()
            .flatten()
            .map(|row| (Position::new(row.key.slice(length..)), String::from_utf8_lossy(&row.value).into_owned()));
        Ok(Self { id: journal.id, open: journal.open, marks: marks.collect() })
    }

    fn split(&self) -> SplitId {
        SplitId::from(format!("{PREFIX}{}", self.id).as_str())
    }

    /// Up to where the run is durable, if it was broken off.
    async fn durable(&self, project: &Arc<Project>, view: &Arc<View>) -> Result<Position> {
        if !self.open {
            return Ok(Position::START);
        }
        let checkpoints = GroupCheckpoints::new(Arc::clone(project), vec![Arc::clone(view)]);
        Ok(match checkpoints.resume(&self.split()).await? {
            Some(Progress::Through(position)) => position,
            _ => Position::START,
        })
    }

    fn has_brought_in(&self, position: &Position, durable: &Position) -> bool {
        self.marks.get(position).is_some_and(|run| !(self.open && *run == self.id) || position <= durable)
    }

    async fn begin(&mut self, project: &Project, view: &View) -> Result<()> {
        if !self.open {
            self.id = uuid::Uuid::new_v4().to_string();
            self.open = true;
            self.write(project, view).await?;
        }
        Ok(())
    }

    async fn end(&mut self, project: &Project, view: &View) -> Result<()> {
        self.open = false;
        self.write(project, view).await
    }

    async fn write(&self, project: &Project, view: &View) -> Result<()> {
        let journal = Journal { version: 1, id: self.id.clone(), open: self.open };
        let value = serde_json::to_vec(&journal)
            .map_err(|error| Error::unexpected("a journal cannot be written").with_source(error))?;
        let row =
            OnlineRow { key: Self::key("run", view).into(), version: Bytes::new(), value: value.into(), expiry: None };
        project.online.put(&Self::table(project), vec![row]).await?;
        project.online.sync().await
    }

    async fn mark(&self, project: &Project, view: &View, positions: &[Position]) -> Result<()> {
        let prefix = Self::key("mark", view);
        let rows = positions.iter().map(|position| OnlineRow {
            key: [prefix.as_slice(), position.as_bytes()].concat().into(),
            version: Bytes::new(),
            value: self.id.clone().into(),
            expiry: None,
        });
        project.online.put(&Self::table(project), rows.collect()).await?;
        project.online.sync().await
    }
}
