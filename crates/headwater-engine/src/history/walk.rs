//! The walk of one worker over one view's rows.

use std::sync::Arc;

use headwater_core::Micros;

use super::asked::Asked;
use super::row::{Row, RowId};

/// Goes through a view's rows in order of time, and past entity rows as their time comes.
#[derive(Debug)]
pub(super) struct Walk {
    asked: Arc<Asked>,
    worker: usize,
    ttl: Micros,
    by_created: bool,
    /// For each key the newest of its rows so far.
    last: Vec<Newest>,
    /// The first entity row that time has not passed.
    next: usize,
    /// The answers of the entity rows before it.
    answers: Vec<RowId>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    time: Micros,
    created: Micros,
    id: RowId,
}

impl Walk {
    pub(super) fn new(asked: Arc<Asked>, worker: usize, ttl: Micros, by_created: bool) -> Self {
        let (keys, rows) = asked.shares.get(worker).map_or((0, 0), |share| (share.keys, share.rows.len()));
        Self {
            asked,
            worker,
            ttl,
            by_created,
            last: vec![Newest { time: Micros::MIN, created: Micros::MIN, id: RowId::NONE }; keys],
            next: 0,
            answers: Vec::with_capacity(rows),
        }
    }

    /// Takes the next row. The caller guarantees that it is not visible before any row that was taken, and that its key
    /// is one of this worker's.
    #[inline]
    pub(super) fn take(&mut self, row: &Row) {
        // A row answers entity rows of its own time too, so only those before it are done.
        self.pass(Some(row.visible(self.by_created)));
        let newest = &mut self.last[row.key as usize];
        // `NONE` is the greatest id, so an entry that holds no row must not be compared by version.
        if newest.id == RowId::NONE || (newest.time, newest.created, newest.id) < (row.time, row.created, row.id) {
            *newest = Newest { time: row.time, created: row.created, id: row.id };
        }
    }

    /// No more rows come: answers the remaining entity rows. Returns an answer for each entity row of this worker, in
    /// their order of time.
    pub(super) fn finish(mut self) -> Vec<RowId> {
        self.pass(None);
        self.answers
    }

    /// Answers the entity rows before `time`; all where there is none.
    #[inline]
    fn pass(&mut self, time: Option<Micros>) {
        let Some(share) = self.asked.shares.get(self.worker) else { return };
        while let Some(asked) = share.rows.get(self.next) {
            if time.is_some_and(|time| asked.time >= time) {
                break;
            }
            let newest = self.last[asked.key as usize];
            let alive = self.ttl <= 0 || newest.time >= asked.time.saturating_sub(self.ttl);
            self.answers.push(if alive { newest.id } else { RowId::NONE });
            self.next += 1;
        }
    }
}
