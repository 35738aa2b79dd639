//! A worker: the keys that were dealt to it, in all views.

use std::path::PathBuf;
use std::sync::Arc;

use headwater_core::{Micros, Result};
use tokio::sync::mpsc::Receiver;

use super::asked::Asked;
use super::memory::Budget;
use super::row::{Row, RowId};
use super::waiting::Waiting;
use super::walk::Walk;

/// What readers tell a worker.
#[derive(Debug)]
pub(super) enum Message {
    /// Rows of a view, with keys of this worker.
    Rows {
        /// The view.
        view: usize,
        /// The rows.
        rows: Vec<Row>,
    },
    /// A fragment has been read to its end. Sent after all its rows.
    Done {
        /// The view.
        view: usize,
        /// Its place in the view's order of reading.
        turn: usize,
    },
}

/// What a worker knows of a view.
#[derive(Debug)]
pub(super) struct ViewTask {
    /// The entity rows.
    pub(super) asked: Arc<Asked>,
    /// Its ttl.
    pub(super) ttl: Micros,
    /// The earliest time of each of its fragments, ascending: the order in which they are read.
    pub(super) starts: Arc<[Micros]>,
}

/// How the rows that wait are kept.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    /// Rows answer from their created time on.
    pub(super) by_created: bool,
    /// Memory, shared by all workers.
    pub(super) budget: Arc<Budget>,
    /// Where runs are written.
    pub(super) folder: Option<PathBuf>,
}

/// Fewer rows than this are not worth a run of their own, unless the limit is tiny.
const FEWEST_SPILLED: u64 = 256;

/// Takes messages until every fragment of every view is done, or no reader is left. Returns, for each view, the answers
/// of this worker's entity rows in their order of time; what is missing of a view whose fragments are not all done is
/// missing there too.
pub(super) fn work(
    worker: usize,
    views: Vec<ViewTask>,
    keeping: &Keeping,
    mut messages: Receiver<Message>,
) -> Result<Vec<Vec<RowId>>> {
    let mut lanes: Vec<Lane> = views.into_iter().map(|view| Lane::new(worker, view, keeping)).collect();
    for lane in &mut lanes {
        lane.advance()?;
    }
    let fewest = (keeping.budget.limit() / (8 * Row::SIZE as u64)).clamp(1, FEWEST_SPILLED) as usize;
    while let Some(message) = messages.blocking_recv() {
        match message {
            Message::Rows { view, rows } => {
                if let Some(lane) = lanes.get_mut(view) {
                    lane.waiting.push(rows);
                }
                while keeping.budget.is_exceeded() {
                    let most = lanes.iter_mut().max_by_key(|lane| lane.waiting.in_memory());
                    match most {
                        Some(lane) if lane.waiting.in_memory() >= fewest => lane.relieve()?,
                        // The memory is in use elsewhere: the worker that has it will find out.
                        _ => break,
                    }
                }
            }
            Message::Done { view, turn } => {
                if let Some(lane) = lanes.get_mut(view) {
                    lane.done(turn)?;
                }
            }
        }
    }
    Ok(lanes.into_iter().map(|lane| lane.answers).collect())
}

/// One view at one worker.
#[derive(Debug)]
struct Lane {
    starts: Arc<[Micros]>,
    done: Vec<bool>,
    /// The first fragment that is not done: nothing visible before it begins can come any more.
    first_open: usize,
    waiting: Waiting,
    /// How far the rows that waited have been walked.
    walked: Option<Micros>,
    /// As many rows have to wait before it is worth to look which of them need not.
    patience: usize,
    walk: Option<Walk>,
    answers: Vec<RowId>,
}

impl Lane {
    fn new(worker: usize, view: ViewTask, keeping: &Keeping) -> Self {
        Self {
            done: vec![false; view.starts.len()],
            starts: view.starts,
            first_open: 0,
            waiting: Waiting::new(keeping.by_created, Arc::clone(&keeping.budget), keeping.folder.clone()),
            walked: None,
            patience: 0,
            walk: Some(Walk::new(view.asked, worker, view.ttl, keeping.by_created)),
            answers: Vec::new(),
        }
    }

    fn done(&mut self, turn: usize) -> Result<()> {
        if let Some(done) = self.done.get_mut(turn) {
            *done = true;
        }
        if turn == self.first_open { self.advance() } else { Ok(()) }
    }

    /// Notes how far the walk is free to go, and walks on where enough rows wait.
    fn advance(&mut self) -> Result<()> {
        while self.done.get(self.first_open).is_some_and(|done| *done) {
            self.first_open += 1;
        }
        match self.starts.get(self.first_open).copied() {
            // Where fragments overlap, most rows go on waiting. To go through them only when they have doubled makes
            // that linear in all.
            Some(start) if self.waiting.in_memory() >= self.patience => self.walk_to(Some(start)),
            Some(_) => Ok(()),
            None => {
                self.walk_to(None)?;
                if let Some(walk) = self.walk.take() {
                    self.answers = walk.finish();
                }
                Ok(())
            }
        }
    }

    /// Makes room: by walking on, or else by writing rows to disk.
    fn relieve(&mut self) -> Result<()> {
        let before = self.waiting.in_memory();
        if let Some(start) = self.starts.get(self.first_open).copied() {
            self.walk_to(Some(start))?;
        }
        if self.waiting.in_memory() == before { self.waiting.spill() } else { Ok(()) }
    }

    fn walk_to(&mut self, end: Option<Micros>) -> Result<()> {
        if end.is_some() && self.walked >= end {
            return Ok(());
        }
        if let Some(walk) = &mut self.walk {
            self.waiting.drain(end, |row| walk.take(row))?;
        }
        self.walked = end;
        self.patience = self.waiting.in_memory() * 2;
        Ok(())
    }
}
