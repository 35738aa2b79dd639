//! One view of a job: what it has of each split, and what it has yet to write.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, concat_batches, filter, filter_record_batch, max};
use arrow::datatypes::{TimestampMicrosecondType, UInt32Type};
use headwater_core::definitions::LateEvents;
use headwater_core::offline::LogEnd;
use headwater_core::stream::{METADATA_TIMESTAMP, StreamBatch};
use headwater_core::{Micros, Origin, Position, Result, SplitId};
use tokio::time::Instant;

use super::checkpoint::{Checkpoint, NEWEST_EVENT, Skipped, Why};
use super::dead::{DeadLetter, Undertaker};
use super::status::{Counts, LagStatus};
use super::tombstones;
use super::windows::WindowLane;
use super::write::Packed;
use crate::rows::{RowEncoder, values_table};
use crate::view::{View, ViewRows};
use crate::windows::epoch::SplitProgress;

/// Rows of a view from consecutive records of one split.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) rows: RecordBatch,
    pub(super) positions: BinaryArray,
    pub(super) ordinals: Option<UInt32Array>,
}

/// What a view makes of a batch of its source.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) piece: Piece,
    /// The records that it cannot use, in order.
    pub(super) dead: Vec<DeadLetter>,
}

/// A batch on its way to a lane.
#[derive(Debug)]
pub(super) struct Delivery<'a> {
    pub(super) batch: &'a StreamBatch,
    pub(super) tombstones: &'a [usize],
    pub(super) now: Micros,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) view: Arc<View>,
    pub(super) source: String,
    pub(super) table: String,
    pub(super) encoder: Arc<RowEncoder>,
    pub(super) threshold: Option<Micros>,
    pub(super) late: LateEvents,
    pub(super) splits: BTreeMap<SplitId, SplitState>,
    /// Rows that are ready for the online store; none of a windowed view.
    pub(super) packed: BTreeMap<SplitId, Packed>,
    /// Of a windowed view that is served: its window rows.
    pub(super) windows: Option<WindowLane>,
}

/// One split of a lane. Positions only grow.
#[derive(Debug)]
pub(super) struct SplitState {
    /// Where the view began.
    pub(super) from: Position,
    /// Rows up to here were looked at: the lowest of the next two.
    pub(super) judged: Position,
    /// Rows up to here are in the online store, or on their way to it: in `pending`, absorbed, or being written.
    pub(super) stored: Position,
    /// Rows up to here are in the log, or in `buffer` on their way to it.
    pub(super) logged: Position,
    has_log: bool,
    /// The end of the log.
    pub(super) log_end: Position,
    /// The end of the dead letters.
    pub(super) dead_end: Position,
    /// The durable checkpoint.
    pub(super) saved: Position,
    saved_counts: Counts,
    /// Records up to here are in `counts`.
    counted: Position,
    pub(super) counts: Counts,
    /// The newest event time up to `judged`.
    pub(super) newest: Option<Micros>,
    pub(super) lag: Option<LagStatus>,
    /// The source said with what it handed out last that nothing is left.
    pub(super) at_end: bool,
    /// When the source stored the newest record up to `judged`.
    pub(super) arrived: Option<Micros>,
    /// The last records that were gone before they could be read.
    pub(super) skipped: Option<Skipped>,
    /// The source has said that no more will come.
    pub(super) ended: bool,
    pub(super) ended_saved: bool,
    /// Rows for the online store that are not absorbed yet.
    pub(super) pending: Vec<Piece>,
    /// Rows for the log.
    pub(super) buffer: Vec<Piece>,
    pub(super) buffer_bytes: usize,
    /// What the piece takes that is being published; zero where none is.
    pub(super) publishing_bytes: usize,
    /// Since when there is something for the log.
    pub(super) buffer_since: Option<Instant>,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) dead_since: Option<Instant>,
    /// The board does not know of it yet.
    pub(super) changed: bool,
}

impl SplitState {
    /// How a split stands that is read from `resume` on. `end` is its log's, for a view with a log. `wanted` is how far
    /// windows have its rows, where that is not what the checkpoint says.
    pub(super) fn new(
        view: &View,
        checkpoint: Option<&Checkpoint>,
        end: Option<&LogEnd>,
        dead_end: Position,
        resume: &Position,
        wanted: Option<&SplitProgress>,
    ) -> Self {
        let from = checkpoint.map_or(resume, |checkpoint| &checkpoint.from).clone();
        let stored = checkpoint.map_or(resume, |checkpoint| &checkpoint.through).clone();
        let stored = wanted.map_or(stored.clone(), |wanted| stored.min(wanted.through.clone()));
        let log_end = end.map_or(Position::START, |end| end.through.clone());
        // A log that was switched on later begins where the view began.
        let logged = if view.offline { log_end.clone().max(from.clone()) } else { stored.clone() };
        let judged = stored.clone().min(logged.clone());
        let newest = if checkpoint.is_some_and(|checkpoint| checkpoint.through == judged) {
            checkpoint.and_then(|checkpoint| checkpoint.newest)
        } else if checkpoint.is_none() && judged == stored {
            None
        } else if view.offline {
            end.and_then(|end| end.metadata.get(NEWEST_EVENT)).and_then(|newest| newest.parse().ok())
        } else {
            // Windows have less than the checkpoint says: they were being read again.
            wanted.and_then(|wanted| wanted.newest)
        };
        let counts = checkpoint.map(|checkpoint| checkpoint.counts).unwrap_or_default();
        // What is read again has not ended until its source says so anew.
        let ended = checkpoint.is_some_and(|checkpoint| checkpoint.ended && checkpoint.through == judged);
        Self {
            from,
            judged,
            saved: stored.clone(),
            counted: checkpoint.map_or(&stored, |checkpoint| &checkpoint.through).clone(),
            stored,
            logged,
            has_log: view.offline,
            log_end,
            dead_end,
            saved_counts: counts,
            counts,
            newest,
            lag: None,
            at_end: false,
            arrived: checkpoint.and_then(|checkpoint| checkpoint.arrived),
            skipped: checkpoint.and_then(|checkpoint| checkpoint.skipped.clone()),
            ended,
            ended_saved: ended,
            pending: Vec::new(),
            buffer: Vec::new(),
            buffer_bytes: 0,
            publishing_bytes: 0,
            buffer_since: None,
            dead: Vec::new(),
            dead_since: None,
            changed: true,
        }
    }

    /// The checkpoint that may be written now, if there is news: all before it is synced, dead letters too.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        let news = self.saved != self.stored || self.saved_counts != self.counts || self.ended != self.ended_saved;
        if !news || self.judged != self.stored || !self.dead.is_empty() {
            return None;
        }
        Some(self.progress())
    }

    /// How far it is, durable or not.
    pub(super) fn progress(&self) -> Checkpoint {
        Checkpoint {
            through: self.judged.clone(),
            // The end is only said once the log, where there is one, has all of it.
            ended: self.ended && (!self.has_log || self.log_end >= self.logged),
            from: self.from.clone(),
            newest: self.newest,
            arrived: self.arrived,
            counts: self.counts,
            skipped: self.skipped.clone(),
        }
    }

    /// Notes that the records before `batch` are gone, as far as they are news.
    fn lost(&mut self, batch: &StreamBatch) {
        let first = batch.positions.iter().next().flatten();
        let to = first.map_or_else(|| batch.through.clone(), |first| Position::new(first.to_vec()));
        if self.judged < to {
            self.skipped = Some(Skipped { after: self.judged.clone(), to, why: Why::PositionLost });
        }
    }

    /// `checkpoint` is in the online store.
    pub(super) fn saved(&mut self, checkpoint: &Checkpoint) {
        self.saved = checkpoint.through.clone();
        self.saved_counts = checkpoint.counts;
        self.ended_saved = checkpoint.ended;
    }

    /// Whether a piece of its log is being published.
    pub(super) fn is_publishing(&self) -> bool {
        self.publishing_bytes > 0
    }

    /// What its dead letters take in memory, roughly.
    pub(super) fn dead_bytes(&self) -> usize {
        self.dead.iter().map(DeadLetter::bytes).sum()
    }

    /// Up to where everything of it is durable.
    pub(super) fn durable(&self, view: &View) -> Position {
        if view.offline { self.saved.clone().min(self.log_end.clone()) } else { self.saved.clone() }
    }
}

impl Lane {
    pub(super) fn new(project: &str, source: &str, view: &Arc<View>) -> Result<Self> {
        Ok(Self {
            table: values_table(project, &view.name, &view.generation),
            encoder: Arc::new(RowEncoder::new(view)?),
            view: Arc::clone(view),
            source: source.to_owned(),
            threshold: None,
            late: LateEvents::Accept,
            splits: BTreeMap::new(),
            packed: BTreeMap::new(),
            windows: (view.windows.is_some() && view.online).then(WindowLane::default),
        })
    }

    /// Takes what is new in a part of a batch. Gives back the number of rows that are now to be written, and the first
    /// dead letter that was new.
    pub(super) fn accept(&mut self, delivery: &Delivery<'_>, part: Part) -> Result<(usize, Option<DeadLetter>)> {
        let batch = delivery.batch;
        let Some(state) = self.splits.get_mut(&batch.split) else { return Ok((0, None)) };
        state.lag = batch.lag.map(LagStatus::from).or(state.lag);
        state.at_end = batch.lag.is_some_and(|lag| lag.is_zero());
        state.changed = true;
        if batch.through <= state.judged {
            return Ok((0, None));
        }
        // Who has all of a split lacks nothing of it, however much less others have.
        if batch.lost && !state.ended {
            state.lost(batch);
        }
        let stored = batch.metadata.as_ref().and_then(|metadata| metadata.column_by_name(METADATA_TIMESTAMP));
        let stored = stored.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        state.arrived = stored.and_then(max).max(state.arrived);
        let mut piece = part.piece.after(&state.judged);
        let mut dead = part.dead;
        if let Some(column) = piece.rows.column_by_name(&self.view.event_time) {
            let times = column.as_primitive::<TimestampMicrosecondType>().clone();
            let late = judge(times.values(), tombstones::marks(&piece.rows), &mut state.newest, self.threshold);
            if let Some(late) = late {
                let new = piece.index_after(&state.counted);
                state.counts.late += late.iter().skip(new).filter(|late| **late).count() as u64;
                if self.late == LateEvents::DeadLetter {
                    let undertaker = Undertaker { source: &self.source, view: &self.view, batch, now: delivery.now };
                    piece = piece.bury(&late, &undertaker, &mut dead)?;
                }
            }
        }
        if let (Some(from), Some(column)) =
            (self.windows.as_ref().and_then(WindowLane::log_from), piece.rows.column_by_name(&self.view.event_time))
        {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            let new = times.values().iter().skip(piece.index_after(&state.counted));
            state.counts.before_log_from += new.filter(|time| **time < from).count() as u64;
        }
        let new_rows = piece.rows.num_rows() - piece.index_after(&state.counted);
        state.counts.rows += new_rows as u64;
        let counted = state.counted.as_bytes();
        let tombstones = delivery.tombstones.iter().filter(|record| batch.positions.value(**record) > counted);
        state.counts.tombstones += tombstones.count() as u64;

        let now = Instant::now();
        dead.retain(|letter| letter.position > state.judged);
        state.counts.dead_lettered += dead.iter().filter(|letter| letter.position > state.counted).count() as u64;
        dead.retain(|letter| letter.position > state.dead_end);
        let first_dead = dead.first().cloned();
        if !dead.is_empty() {
            state.dead_since.get_or_insert(now);
            state.dead.append(&mut dead);
        }
        let mut rows = 0;
        if self.view.online {
            let fresh = piece.after(&state.stored);
            rows += fresh.rows.num_rows();
            if fresh.rows.num_rows() > 0 {
                state.pending.push(fresh);
            }
        }
        if self.view.offline && batch.through > state.logged {
            let fresh = piece.after(&state.logged);
            rows += fresh.rows.num_rows();
            state.buffer_bytes += fresh.bytes();
            state.buffer_since.get_or_insert(now);
            if fresh.rows.num_rows() > 0 {
                state.buffer.push(fresh);
            }
        }
        for position in [&mut state.judged, &mut state.stored, &mut state.logged, &mut state.counted] {
            if *position < batch.through {
                *position = batch.through.clone();
            }
        }
        // Where one of them was ahead, nothing is judged twice before it is reached.
        Ok((rows, first_dead))
    }
}

/// Which rows are late, in order of their positions; `None` where none is. Moves `newest` on. Tombstones, whose time is
/// that of their record, are never late and make nothing late.
fn judge(
    times: &[Micros],
    deleted: Option<&BooleanArray>,
    newest: &mut Option<Micros>,
    threshold: Option<Micros>,
) -> Option<Vec<bool>> {
    let counts = |row: usize| deleted.is_none_or(|deleted| !deleted.value(row));
    let Some(threshold) = threshold else {
        let times = times.iter().enumerate().filter(|(row, _)| counts(*row));
        *newest = times.map(|(_, time)| *time).max().max(*newest);
        return None;
    };
    let mut any = false;
    let late = times
        .iter()
        .enumerate()
        .map(|(row, time)| {
            if !counts(row) {
                return false;
            }
            let late = newest.is_some_and(|newest| *time < newest.saturating_sub(threshold));
            *newest = Some(newest.map_or(*time, |newest| newest.max(*time)));
            any |= late;
            late
        })
        .collect();
    any.then_some(late)
}

impl Piece {
    /// The index of the first row behind `position`.
    fn index_after(&self, position: &Position) -> usize {
        let (mut low, mut high) = (0, self.positions.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.positions.value(middle) <= position.as_bytes() { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The rows behind `position`.
    pub(super) fn after(&self, position: &Position) -> Self {
        match self.index_after(position) {
            0 => self.clone(),
            from => {
                let count = self.positions.len() - from;
                Self {
                    rows: self.rows.slice(from, count),
                    positions: self.positions.slice(from, count),
                    ordinals: self.ordinals.as_ref().map(|ordinals| ordinals.slice(from, count)),
                }
            }
        }
    }

    /// Makes dead letters of the records that have a late row, and leaves out all their rows.
    fn bury(self, late: &[bool], undertaker: &Undertaker<'_>, dead: &mut Vec<DeadLetter>) -> Result<Self> {
        let positions = &undertaker.batch.positions;
        let mut kept = vec![true; late.len()];
        let mut row = 0;
        let mut record = 0;
        while row < late.len() {
            let position = self.positions.value(row);
            let end = (row..late.len()).find(|at| self.positions.value(*at) != position).unwrap_or(late.len());
            if late.iter().take(end).skip(row).any(|late| *late) {
                kept.iter_mut().take(end).skip(row).for_each(|kept| *kept = false);
                while record < positions.len() && positions.value(record) < position {
                    record += 1;
                }
                if record < positions.len() {
                    dead.push(undertaker.bury(record, "the event is older than the watermark")?);
                }
            }
            row = end;
        }
        dead.sort_by(|a, b| a.position.cmp(&b.position));
        let kept = BooleanArray::from(kept);
        Ok(Self {
            rows: filter_record_batch(&self.rows, &kept)?,
            positions: filter(&self.positions, &kept)?.as_binary::<i32>().clone(),
            ordinals: match &self.ordinals {
                Some(ordinals) => Some(filter(ordinals, &kept)?.as_primitive::<UInt32Type>().clone()),
                None => None,
            },
        })
    }

    /// What it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let data = |array: &dyn Array| array.to_data().get_slice_memory_size().unwrap_or(0);
        self.rows.columns().iter().map(|column| data(column)).sum::<usize>() + data(&self.positions)
    }

    /// Consecutive pieces as one; `None` of none.
    pub(super) fn join(pieces: &[Self]) -> Result<Option<Self>> {
        let Some(first) = pieces.first() else { return Ok(None) };
        if pieces.len() == 1 {
            return Ok(Some(first.clone()));
        }
        let positions = pieces.iter().map(|piece| &piece.positions as &dyn Array).collect::<Vec<_>>();
        let ordinals = if pieces.iter().any(|piece| piece.ordinals.is_some()) {
            let each = pieces.iter().map(Self::ordinals).collect::<Vec<_>>();
            let each = each.iter().map(|ordinals| ordinals as &dyn Array).collect::<Vec<_>>();
            Some(concat(&each)?.as_primitive::<UInt32Type>().clone())
        } else {
            None
        };
        Ok(Some(Self {
            rows: concat_batches(&first.rows.schema(), pieces.iter().map(|piece| &piece.rows))?,
            positions: concat(&positions)?.as_binary::<i32>().clone(),
            ordinals,
        }))
    }

    fn ordinals(&self) -> UInt32Array {
        self.ordinals.clone().unwrap_or_else(|| UInt32Array::from(vec![0; self.positions.len()]))
    }

    /// As rows that versions can be made of.
    pub(super) fn into_view_rows(self, split: &SplitId) -> ViewRows {
        ViewRows {
            rows: self.rows,
            origin: Origin::Stream,
            split: split.clone(),
            positions: self.positions,
            ordinals: self.ordinals,
        }
    }

    /// No rows of a view.
    pub(super) fn empty(view: &View) -> Self {
        Self {
            rows: RecordBatch::new_empty(view.schema()),
            positions: BinaryArray::from(Vec::<&[u8]>::new()),
            ordinals: None,
        }
    }
}
