//! The search: fragments are read, sifted and handed to the workers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use futures::StreamExt;
use headwater_core::batch::{Positions, ScanBatch};
use headwater_core::definitions::timestamp_type;
use headwater_core::{Error, Position, Result, SplitId};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;

use super::asked::deal;
use super::keys::NO_KEY;
use super::memory::Budget;
use super::plan::{FragmentPlan, InputPlan, Plan, ViewPlan, on_a_thread, stopped};
use super::row::{NO_CREATED, Row, RowId};
use super::worker::{Keeping, Message, ViewTask, work};
use crate::cast::cast;

/// Messages that a worker may lie behind.
const QUEUE: usize = 16;

/// Where the answers stand.
#[derive(Debug)]
pub(super) struct Answers {
    /// For each view, the answer of each entity row.
    pub(super) views: Vec<Vec<RowId>>,
    /// For each view, how many rows each of its fragments had.
    pub(super) rows: Vec<Vec<u64>>,
}

/// Finds the answers of all entity rows in all views.
pub(super) async fn search(plan: &Arc<Plan>) -> Result<Answers> {
    let keeping = Keeping {
        by_created: plan.by_created,
        budget: Arc::new(Budget::new(plan.memory)),
        folder: plan.folder.clone(),
    };
    let (mut senders, mut workers) = (Vec::new(), Vec::new());
    for worker in 0..plan.threads {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let views: Vec<ViewTask> = plan.views.iter().map(ViewPlan::task).collect();
        let keeping = keeping.clone();
        workers.push(tokio::task::spawn_blocking(move || work(worker, views, &keeping, receiver)));
        senders.push(sender);
    }
    let read = read_all(plan, senders).await;
    // The readers are gone, and with them the workers' senders, so every worker comes to its end. A worker's error comes
    // first: it is why readers stopped.
    let mut shares = Vec::with_capacity(workers.len());
    for worker in workers {
        shares.push(worker.await.map_err(stopped)??);
    }
    let rows = read?;
    let plan = Arc::clone(plan);
    let views = on_a_thread(move || gather_shares(&plan, shares)).await?;
    Ok(Answers { views, rows })
}

/// Brings the workers' answers into the order of the entity rows.
fn gather_shares(plan: &Plan, shares: Vec<Vec<Vec<RowId>>>) -> Result<Vec<Vec<RowId>>> {
    let mut views: Vec<Vec<RowId>> = plan.views.iter().map(|_| vec![RowId::NONE; plan.entities.len()]).collect();
    for (worker, of_views) in shares.into_iter().enumerate() {
        for ((answers, view), into) in of_views.into_iter().zip(&plan.views).zip(&mut views) {
            let asked = view.asked.shares.get(worker).map_or(&[][..], |share| &share.rows);
            if asked.len() != answers.len() {
                return Err(Error::unexpected(format!("worker {worker} stopped before its end")));
            }
            for (asked, answer) in asked.iter().zip(answers) {
                into[asked.row as usize] = answer;
            }
        }
    }
    Ok(views)
}

/// Reads every fragment, a few at a time, in order of time. Returns how many rows each one had.
async fn read_all(plan: &Arc<Plan>, senders: Vec<Sender<Message>>) -> Result<Vec<Vec<u64>>> {
    let mut rows: Vec<Vec<u64>> = plan.views.iter().map(|view| vec![0; view.fragments.len()]).collect();
    // Dropping the set aborts what is in it, so nothing reads on after an error or when the join is dropped.
    let mut tasks: JoinSet<Result<(usize, usize, u64)>> = JoinSet::new();
    let mut reading = plan.reading.iter();
    loop {
        while tasks.len() < plan.threads
            && let Some((view, fragment)) = reading.next().copied()
        {
            let (plan, senders) = (Arc::clone(plan), senders.clone());
            tasks.spawn(async move {
                let count = Reader::new(&plan, view, fragment)?.run(&senders).await?;
                Ok((view, fragment, count))
            });
        }
        let Some(outcome) = tasks.join_next().await else { return Ok(rows) };
        let (view, fragment, count) = outcome.map_err(stopped)??;
        rows[view][fragment] = count;
        plan.progress.report(|progress| progress.fragments_done += 1);
    }
}

/// Reads one fragment.
struct Reader<'a> {
    plan: &'a Plan,
    number: usize,
    view: &'a ViewPlan,
    input: &'a InputPlan,
    fragment: &'a FragmentPlan,
    /// The key numbers of a batch.
    numbers: Vec<u32>,
}

impl<'a> Reader<'a> {
    fn new(plan: &'a Plan, view: usize, fragment: usize) -> Result<Self> {
        let number = view;
        let wrong = || Error::unexpected(format!("there is no fragment {fragment} of view {view}"));
        let view = plan.views.get(view).ok_or_else(wrong)?;
        let fragment = view.fragments.get(fragment).ok_or_else(wrong)?;
        let input = view.inputs.get(fragment.input).ok_or_else(wrong)?;
        Ok(Self { plan, number, view, input, fragment, numbers: Vec::new() })
    }

    async fn run(mut self, workers: &[Sender<Message>]) -> Result<u64> {
        let mut batches = self.input.source.read(&self.fragment.fragment, &self.input.search).await?;
        let mut count = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let parts = self.sift(&batch, count, workers.len())?;
            count += batch.rows.num_rows();
            for (rows, worker) in parts.into_iter().zip(workers) {
                if !rows.is_empty() {
                    worker.send(Message::Rows { view: self.number, rows }).await.map_err(|_| gone())?;
                }
            }
            self.plan.progress.report(|progress| progress.rows_scanned += batch.rows.num_rows() as u64);
        }
        for worker in workers {
            let done = Message::Done { view: self.number, turn: self.fragment.turn };
            worker.send(done).await.map_err(|_| gone())?;
        }
        Ok(count as u64)
    }

    /// The rows of a batch that may answer somebody, for each worker. `before` rows of the fragment came before it.
    fn sift(&mut self, batch: &ScanBatch, before: usize, workers: usize) -> Result<Vec<Vec<Row>>> {
        let rows = batch.rows.num_rows();
        let mut parts: Vec<Vec<Row>> = Vec::new();
        parts.resize_with(workers, Vec::new);
        if rows == 0 {
            return Ok(parts);
        }
        let place = Place::new(self.input, &self.fragment.fragment.split, &batch.positions);
        let keys = place.keys(batch, &self.view.key_types)?;
        self.view.asked.index.find(&keys, rows, &mut self.numbers)?;
        if self.numbers.iter().all(|number| *number == NO_KEY) {
            return Ok(parts);
        }
        let times = place.times(batch, self.input.time)?;
        let created = self.input.created.map(|column| place.times(batch, column)).transpose()?;
        let first = self.fragment.first.plus(before)?;
        first.plus(rows)?;
        parts.iter_mut().for_each(|part| part.reserve(rows / workers + rows / 8));

        let asked = &self.view.asked;
        let (ttl, by_created, start) = (self.view.view.ttl, self.plan.by_created, self.fragment.start);
        let (all_times, has_nulls) = (times.values(), times.null_count() > 0);
        for (row, (number, time)) in self.numbers.iter().zip(all_times).enumerate() {
            if *number == NO_KEY || (has_nulls && times.is_null(row)) {
                continue;
            }
            if *time < start {
                return Err(place.wrong(row, "its time lies before the least time in the statistics"));
            }
            let made = created.as_ref().filter(|made| made.is_valid(row)).map_or(NO_CREATED, |made| made.value(row));
            let (worker, key) = deal(*number, workers);
            let made_row = Row { time: *time, created: made, id: first.plus_unchecked(row), key };
            let number = *number as usize;
            // Too new or too old for every entity row of its key.
            if made_row.visible(by_created) > asked.latest[number]
                || (ttl > 0 && *time < asked.earliest[number].saturating_sub(ttl))
            {
                continue;
            }
            parts[worker].push(made_row);
        }
        Ok(parts)
    }
}

impl ViewPlan {
    fn task(&self) -> ViewTask {
        ViewTask { asked: Arc::clone(&self.asked), ttl: self.view.ttl, starts: Arc::clone(&self.starts) }
    }
}

/// A worker that has stopped taking messages. Its own error says why, and is preferred to this one.
pub(super) fn gone() -> Error {
    Error::unexpected("a worker of the join is gone")
}

/// A source that gives fewer columns than it was asked for.
pub(super) fn too_few(input: &InputPlan) -> Error {
    Error::unexpected(format!("`{}` gave fewer columns than it was asked for", input.source.identity()))
}

/// Where rows of a batch stand, for casts and their messages.
pub(super) struct Place<'a> {
    input: &'a InputPlan,
    split: &'a SplitId,
    positions: &'a Positions,
}

impl<'a> Place<'a> {
    pub(super) fn new(input: &'a InputPlan, split: &'a SplitId, positions: &'a Positions) -> Self {
        Self { input, split, positions }
    }

    /// The join keys of a batch of the search, with the types of the view.
    pub(super) fn keys(&self, batch: &ScanBatch, types: &[DataType]) -> Result<Vec<ArrayRef>> {
        let columns = self.input.keys.iter().zip(types);
        columns.map(|(column, of)| self.cast(self.column(batch, *column)?, of, self.name(*column), None)).collect()
    }

    /// A column of times of a batch of the search.
    pub(super) fn times(&self, batch: &ScanBatch, column: usize) -> Result<TimestampMicrosecondArray> {
        let times = self.cast(self.column(batch, column)?, &timestamp_type(), self.name(column), None)?;
        Ok(times.as_primitive::<TimestampMicrosecondType>().clone())
    }

    /// A column of a batch of the search, by its place among the columns asked for.
    pub(super) fn column<'b>(&self, batch: &'b ScanBatch, place: usize) -> Result<&'b ArrayRef> {
        batch.rows.columns().get(place).ok_or_else(|| too_few(self.input))
    }

    fn name(&self, place: usize) -> &str {
        self.input.search.columns.as_ref().and_then(|names| names.get(place)).map_or("", String::as_str)
    }

    /// Casts a column without loss. Where `rows` is given, its rows are those of the batch.
    pub(super) fn cast(
        &self,
        array: &ArrayRef,
        to: &DataType,
        column: &str,
        rows: Option<&arrow::array::UInt32Array>,
    ) -> Result<ArrayRef> {
        let casted = cast(array, to, None)?;
        match casted.failures.first() {
            None => Ok(casted.array),
            Some(failure) => {
                let row = rows.map_or(failure.row, |rows| rows.value(failure.row) as usize);
                Err(self.wrong(row, &format!("column `{column}`: {}", failure.reason)))
            }
        }
    }

    /// What is wrong with row `row` of the batch.
    pub(super) fn wrong(&self, row: usize, reason: &str) -> Error {
        let position = match self.positions {
            Positions::Consecutive(first) => Position::from_u64(first.saturating_add(row as u64)),
            Positions::Each(each) if row < each.len() => Position::new(each.value(row).to_vec()),
            Positions::Each(_) => Position::START,
        };
        let at = position.to_u64().map_or_else(|| format!("position {position}"), |number| format!("row {number}"));
        let split = String::from_utf8_lossy(self.split.as_bytes());
        Error::data(format!("`{}`, `{split}`, {at}: {reason}", self.input.source.identity()))
    }
}
