//! The walk of one worker over the rows of its keys, key after key.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use headwater_core::{Micros, Result};

use super::Windowed;
use super::results::Piece;
use super::runs::Scratch;
use super::scan::Keeping;
use super::sort::{Rows, values};
use crate::history::asked::{AskedRow, Share};
use crate::history::memory::Budget;
use crate::history::row::{NO_CREATED, RowId};
use crate::windows::{Finisher, State};

/// Answers of a piece at most.
const PIECE_ROWS: usize = 4096;
/// Of the memory for all answers, the share that those may take which are not a piece yet, at all workers together.
const OPEN_SHARE: u64 = 4;
/// Answers that take less than this are not worth a piece of their own.
const PIECE_BYTES: u64 = 64 << 10;

/// What a worker found.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// For each of its entity rows, in their order, piece and row of the answer; [`RowId::NONE`] where no row counts.
    pub(super) answers: Vec<RowId>,
    /// The answers.
    pub(super) pieces: Vec<Piece>,
    /// How many results are null for being beyond their feature's type.
    pub(super) overflows: u64,
}

/// Goes through rows in order of key and of the time from which they count.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    view: &'a Windowed,
    share: Option<&'a Share>,
    /// The worker's entity rows by key and time, and where in this order the rows of each key begin.
    asked: Vec<u32>,
    starts: Vec<usize>,
    /// The key, its state, and which of its entity rows are still to be answered.
    key: Option<u32>,
    state: State,
    left: std::ops::Range<usize>,
    /// Rows before it count for no entity row that is left.
    floor: Micros,
    /// The last answer, as long as the state has not changed since: of whom, when.
    latest: Option<(Micros, RowId)>,
    version: Vec<u8>,
    finisher: Finisher,
    finished: usize,
    /// What is read before it is made a piece may take so much.
    piece_bytes: u64,
    out: Answered,
    memory: Arc<Budget>,
    scratch: Arc<Mutex<Scratch>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(view: &'a Windowed, worker: usize, keeping: &Keeping) -> Self {
        let share = view.rows.asked.shares.get(worker);
        let (rows, keys) = share.map_or((&[][..], 0), |share| (&share.rows, share.keys));
        let (asked, starts) = by_key(rows, keys);
        let workers = view.rows.asked.shares.len().max(1) as u64;
        Self {
            view,
            share,
            asked,
            starts,
            key: None,
            state: State::new(),
            left: 0..0,
            floor: Micros::MIN,
            latest: None,
            version: Vec::new(),
            finisher: view.layout.finisher(0),
            finished: 0,
            piece_bytes: (keeping.answers.limit() / (OPEN_SHARE * workers)).max(PIECE_BYTES),
            out: Answered { answers: vec![RowId::NONE; rows.len()], ..Answered::default() },
            memory: Arc::clone(&keeping.answers),
            scratch: Arc::new(Mutex::new(Scratch::new(keeping.folder.clone()))),
        }
    }

    /// Takes the next rows.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = Rows::of(batch)?;
        let values = values(batch)?;
        let view = self.view;
        let bound = view.layout.bind(&values)?;
        for row in 0..batch.num_rows() {
            let key = rows.keys[row];
            if self.key != Some(key) {
                self.answer(None)?;
                self.begin(key);
            }
            // A row counts for entity rows of its own time too, so only those before it are done.
            self.answer(Some(rows.counts[row]))?;
            if self.left.is_empty() || rows.times[row] < self.floor {
                continue;
            }
            self.version.clear();
            if view.layout.needs_order() {
                version(&mut self.version, rows.times[row], rows.created[row], rows.ids[row]);
            }
            self.state.update(&view.layout, &bound, row, rows.times[row], &self.version);
            self.latest = None;
        }
        Ok(())
    }

    /// No more rows come.
    pub(super) fn finish(mut self) -> Result<Answered> {
        self.answer(None)?;
        self.flush()?;
        Ok(self.out)
    }

    fn begin(&mut self, key: u32) {
        self.key = Some(key);
        self.state = State::new();
        self.latest = None;
        let at = key as usize;
        let start = self.starts.get(at).copied().unwrap_or_default();
        // Those before the first row that counts have no answer.
        self.left = start..self.starts.get(at + 1).copied().unwrap_or(start);
        self.aim();
    }

    /// Notes from where on rows count for the entity rows that are left.
    fn aim(&mut self) {
        self.floor = self.next().map_or(Micros::MAX, |(_, row)| self.view.reaches.start(row.time));
    }

    /// The next entity row, and its place among the worker's.
    fn next(&self) -> Option<(usize, &'a AskedRow)> {
        let place = *self.asked.get(self.left.start).filter(|_| !self.left.is_empty())? as usize;
        Some((place, self.share?.rows.get(place)?))
    }

    /// Answers the key's entity rows before `time`; all where there is none.
    fn answer(&mut self, time: Option<Micros>) -> Result<()> {
        let mut moved = false;
        while let Some((place, row)) = self.next()
            && time.is_none_or(|time| row.time < time)
        {
            self.left.start += 1;
            moved = true;
            if self.state.newest().is_none() {
                continue;
            }
            let answer = match self.latest {
                Some((then, answer)) if then == row.time => answer,
                _ => self.read(row.time)?,
            };
            self.latest = Some((row.time, answer));
            self.out.answers[place] = answer;
        }
        if moved {
            self.aim();
        }
        Ok(())
    }

    /// Reads the state as of `time`.
    fn read(&mut self, time: Micros) -> Result<RowId> {
        if self.finished == PIECE_ROWS || self.finisher.bytes() as u64 > self.piece_bytes {
            self.flush()?;
        }
        self.finisher.push(&self.view.layout, &self.state, time);
        let answer = RowId::first_of(self.out.pieces.len())?.plus(self.finished)?;
        self.finished += 1;
        Ok(answer)
    }

    /// Makes a piece of what was read.
    fn flush(&mut self) -> Result<()> {
        let finished = std::mem::take(&mut self.finished);
        if finished == 0 {
            return Ok(());
        }
        // As many as these take as much, more or less.
        let next = self.view.layout.finisher(finished);
        let finisher = std::mem::replace(&mut self.finisher, next);
        self.out.overflows += finisher.overflows();
        let piece = RecordBatch::try_new(Arc::clone(&self.view.schema), finisher.finish()?)?;
        let bytes = piece.get_array_memory_size() as u64;
        self.out.pieces.push(if self.memory.take(bytes) {
            self.memory.give_back(bytes);
            let place = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).write(&piece)?;
            Piece::Spilled { file: Arc::clone(&self.scratch), place }
        } else {
            Piece::Here(piece)
        });
        Ok(())
    }
}

/// The places of `rows`, which ascend by time, by key and time; and where in this order each key begins.
fn by_key(rows: &[AskedRow], keys: usize) -> (Vec<u32>, Vec<usize>) {
    let mut starts = vec![0usize; keys + 1];
    for row in rows {
        starts[row.key as usize + 1] += 1;
    }
    for key in 0..keys {
        starts[key + 1] += starts[key];
    }
    let mut next = starts.clone();
    let mut order = vec![0u32; rows.len()];
    for (row, place) in rows.iter().zip(0u32..) {
        let at = &mut next[row.key as usize];
        order[*at] = place;
        *at += 1;
    }
    (order, starts)
}

/// What orders a row among all rows of its view, as bytes: as its version does.
fn version(out: &mut Vec<u8>, time: Micros, created: Micros, id: u64) {
    let ordered = |time: Micros| (time ^ i64::MIN).to_be_bytes();
    out.extend_from_slice(&ordered(time));
    // No created time is the lowest.
    debug_assert_eq!(NO_CREATED, Micros::MIN);
    out.extend_from_slice(&ordered(created));
    out.extend_from_slice(&id.to_be_bytes());
}
