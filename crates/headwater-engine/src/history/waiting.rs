//! Rows that wait for their turn in the walk.
//!
//! A row may be walked once nothing can come any more that is visible before it: once every fragment that is not yet
//! read to its end begins later. Until then it waits here, in memory as long as the budget holds, then in sorted runs
//! on disk.

use std::path::PathBuf;
use std::sync::Arc;

use headwater_core::{Micros, Result};

use super::memory::Budget;
use super::row::Row;
use super::spill::Runs;

/// The rows of one view that wait at one worker.
#[derive(Debug)]
pub(super) struct Waiting {
    by_created: bool,
    chunks: Vec<Chunk>,
    rows: usize,
    runs: Runs,
    budget: Arc<Budget>,
}

/// Rows that arrived together.
#[derive(Debug)]
struct Chunk {
    rows: Vec<Row>,
    first: Micros,
    last: Micros,
}

/// What a waiting row costs: itself, and its copy while it is sorted.
const COST: u64 = 2 * Row::SIZE as u64;

impl Waiting {
    pub(super) fn new(by_created: bool, budget: Arc<Budget>, folder: Option<PathBuf>) -> Self {
        Self { by_created, chunks: Vec::new(), rows: 0, runs: Runs::new(by_created, &budget, folder), budget }
    }

    /// How many rows wait in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.rows
    }

    pub(super) fn push(&mut self, rows: Vec<Row>) {
        if let Some(chunk) = Chunk::new(rows, self.by_created) {
            self.rows += chunk.rows.len();
            self.budget.take(chunk.cost());
            self.chunks.push(chunk);
        }
    }

    /// Writes the rows in memory to disk as a sorted run.
    pub(super) fn spill(&mut self) -> Result<()> {
        let chunks = std::mem::take(&mut self.chunks);
        let cost = chunks.iter().map(Chunk::cost).sum();
        self.rows = 0;
        let rows = self.sorted(chunks);
        let outcome = self.runs.add(&rows);
        self.budget.give_back(cost);
        outcome
    }

    /// Hands over, in order, the rows that are visible before `end`; all of them where it is `None`.
    pub(super) fn drain(&mut self, end: Option<Micros>, mut each: impl FnMut(&Row)) -> Result<()> {
        let (mut due, mut cost) = (Vec::new(), 0);
        for chunk in std::mem::take(&mut self.chunks) {
            match end {
                Some(end) if chunk.first >= end => self.chunks.push(chunk),
                Some(end) if chunk.last >= end => {
                    cost += chunk.cost();
                    let (now, later) = chunk.rows.into_iter().partition(|row| row.visible(self.by_created) < end);
                    due.extend(Chunk::new(now, self.by_created));
                    if let Some(chunk) = Chunk::new(later, self.by_created) {
                        // Not over the limit: it was counted in before.
                        self.budget.take(chunk.cost());
                        self.chunks.push(chunk);
                    }
                }
                _ => {
                    cost += chunk.cost();
                    due.push(chunk);
                }
            }
        }
        self.rows = self.chunks.iter().map(|chunk| chunk.rows.len()).sum();
        if due.is_empty() && self.runs.is_empty() {
            return Ok(());
        }
        let rows = self.sorted(due);
        let outcome = if self.runs.is_empty() {
            rows.iter().for_each(each);
            Ok(())
        } else {
            self.runs.merge(&rows, end, &mut each)
        };
        drop(rows);
        self.budget.give_back(cost);
        outcome
    }

    /// The rows of `chunks` in the order in which they become visible. Rows that become so at once stay in any order:
    /// the walk compares versions.
    fn sorted(&self, chunks: Vec<Chunk>) -> Vec<Row> {
        let mut rows = Vec::with_capacity(chunks.iter().map(|chunk| chunk.rows.len()).sum());
        for chunk in chunks {
            rows.extend_from_slice(&chunk.rows);
        }
        let key = |row: &Row| row.visible(self.by_created);
        if !rows.is_sorted_by_key(key) {
            rows.sort_unstable_by_key(key);
        }
        rows
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.budget.give_back(self.chunks.iter().map(Chunk::cost).sum());
    }
}

impl Chunk {
    /// `None` for no rows.
    fn new(rows: Vec<Row>, by_created: bool) -> Option<Self> {
        let times = || rows.iter().map(|row| row.visible(by_created));
        let (first, last) = (times().min()?, times().max()?);
        Some(Self { rows, first, last })
    }

    fn cost(&self) -> u64 {
        self.rows.len() as u64 * COST
    }
}
