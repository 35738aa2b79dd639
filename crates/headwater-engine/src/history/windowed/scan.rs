//! The search: fragments are read, sifted and handed to the workers, with the columns that are aggregated.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array, UInt64Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use headwater_core::batch::ScanBatch;
use headwater_core::{Error, Micros, Result};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;

use super::sort::{Sorter, row_schema};
use super::walk::{Answered, Walk};
use super::{InputKind, Windowed};
use crate::history::asked::deal;
use crate::history::keys::NO_KEY;
use crate::history::memory::Budget;
use crate::history::plan::{FragmentPlan, InputPlan, Plan, Reporter, stopped};
use crate::history::row::NO_CREATED;
use crate::history::scan::{Place, gone, too_few};

/// Messages that a worker may lie behind.
const QUEUE: usize = 8;

/// How rows and answers are kept.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    /// Rows count from their created time on.
    pub(super) by_created: bool,
    /// Memory for the rows of all workers.
    pub(super) rows: Arc<Budget>,
    /// Memory for the answers of all workers.
    pub(super) answers: Arc<Budget>,
    /// Where goes what does not fit.
    pub(super) folder: Option<PathBuf>,
}

/// What readers tell a worker.
#[derive(Debug)]
enum Message {
    /// Rows with keys of this worker.
    Rows(RecordBatch),
    /// A fragment has been read to its end. Sent after all its rows.
    Done,
}

/// Answers the entity rows of each worker.
pub(super) async fn search(view: &Arc<Windowed>, plan: &Plan, keeping: &Keeping) -> Result<Vec<Answered>> {
    // Workers do not go on for a join that was dropped.
    let alive = Arc::new(());
    let (mut senders, mut workers) = (Vec::new(), Vec::new());
    for worker in 0..plan.threads {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (view, keeping, alive) = (Arc::clone(view), keeping.clone(), Arc::downgrade(&alive));
        workers.push(tokio::task::spawn_blocking(move || work(worker, &view, &keeping, receiver, &alive)));
        senders.push(sender);
    }
    let read = read_all(view, plan, senders, keeping.by_created).await;
    // The readers are gone, and with them the workers' senders, so every worker comes to its end. A worker's error comes
    // first: it is why readers stopped.
    let mut shares = Vec::with_capacity(workers.len());
    for worker in workers {
        shares.push(worker.await.map_err(stopped)??);
    }
    drop(alive);
    read?;
    Ok(shares)
}

/// Sorts rows until every fragment is done, then walks over them. Where readers stop before that, or nobody waits for the
/// answers any more, there is nothing to answer.
fn work(
    worker: usize,
    view: &Windowed,
    keeping: &Keeping,
    mut messages: Receiver<Message>,
    alive: &Weak<()>,
) -> Result<Answered> {
    let keys = view.rows.asked.shares.get(worker).map_or(0, |share| share.keys);
    let mut rows = Sorter::new(keys, Arc::clone(&keeping.rows), keeping.folder.clone());
    let mut done = 0;
    while let Some(message) = messages.blocking_recv() {
        match message {
            Message::Rows(batch) => rows.push(batch)?,
            Message::Done => done += 1,
        }
    }
    if done < view.rows.fragments.len() {
        return Ok(Answered::default());
    }
    let mut sorted = rows.finish()?;
    let mut walk = Walk::new(view, worker, keeping);
    while let Some(batch) = sorted.next()? {
        if alive.strong_count() == 0 {
            return Ok(Answered::default());
        }
        walk.take(&batch)?;
    }
    walk.finish()
}

/// Reads every fragment, a few at a time, in order of time.
async fn read_all(view: &Arc<Windowed>, plan: &Plan, senders: Vec<Sender<Message>>, by_created: bool) -> Result<()> {
    let mut order: Vec<usize> = (0..view.rows.fragments.len()).collect();
    order.sort_by_key(|number| view.rows.fragments.get(*number).map(|fragment| fragment.turn));
    let mut order = order.into_iter();
    // Dropping the set aborts what is in it, so nothing reads on after an error or when the join is dropped.
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    loop {
        while tasks.len() < plan.threads
            && let Some(fragment) = order.next()
        {
            let (view, senders, progress) = (Arc::clone(view), senders.clone(), Arc::clone(&plan.progress));
            tasks.spawn(async move { Reader::new(&view, fragment, by_created, &progress)?.run(&senders).await });
        }
        let Some(outcome) = tasks.join_next().await else { return Ok(()) };
        outcome.map_err(stopped)??;
        plan.progress.report(|progress| progress.fragments_done += 1);
    }
}

/// Reads one fragment.
struct Reader<'a> {
    view: &'a Windowed,
    input: &'a InputPlan,
    fragment: &'a FragmentPlan,
    by_created: bool,
    progress: &'a Reporter,
    schema: SchemaRef,
    /// Where the columns that are aggregated are among those asked for; `None` where the table has no such column.
    values: Vec<Option<usize>>,
    /// The key numbers of a batch.
    numbers: Vec<u32>,
}

impl<'a> Reader<'a> {
    fn new(view: &'a Windowed, fragment: usize, by_created: bool, progress: &'a Reporter) -> Result<Self> {
        let wrong = || Error::unexpected(format!("there is no fragment {fragment} of a windowed view"));
        let fragment = view.rows.fragments.get(fragment).ok_or_else(wrong)?;
        let input = view.rows.inputs.get(fragment.input).ok_or_else(wrong)?;
        let names = input.search.columns.as_deref().unwrap_or_default();
        let place = |name: &String| names.iter().position(|known| known == name).ok_or_else(|| too_few(input));
        let values = input.features.iter().map(|name| name.as_ref().map(place).transpose()).collect::<Result<_>>()?;
        let schema = row_schema(&view.rows.features);
        Ok(Self { view, input, fragment, by_created, progress, schema, values, numbers: Vec::new() })
    }

    async fn run(mut self, workers: &[Sender<Message>]) -> Result<()> {
        let mut batches = self.input.source.read(&self.fragment.fragment, &self.input.search).await?;
        let mut count = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let parts = self.sift(&batch, count, workers.len())?;
            count += batch.rows.num_rows();
            for (rows, worker) in parts.into_iter().zip(workers) {
                if let Some(rows) = rows {
                    worker.send(Message::Rows(rows)).await.map_err(|_| gone())?;
                }
            }
            self.progress.report(|progress| progress.rows_scanned += batch.rows.num_rows() as u64);
        }
        for worker in workers {
            worker.send(Message::Done).await.map_err(|_| gone())?;
        }
        Ok(())
    }

    /// The rows of a batch that count for somebody, for each worker. `before` rows of the fragment came before it.
    fn sift(&mut self, batch: &ScanBatch, before: usize, workers: usize) -> Result<Vec<Option<RecordBatch>>> {
        let rows = batch.rows.num_rows();
        let place = Place::new(self.input, &self.fragment.fragment.split, &batch.positions);
        let keys = place.keys(batch, &self.view.rows.key_types)?;
        self.view.rows.asked.index.find(&keys, rows, &mut self.numbers)?;
        if self.numbers.iter().all(|number| *number == NO_KEY) {
            return Ok(Vec::new());
        }
        let times = place.times(batch, self.input.time)?;
        let created = self.input.created.map(|column| place.times(batch, column)).transpose()?;
        let first = self.fragment.first.plus(before)?;
        first.plus(rows)?;
        // The rows of this table that count at all.
        let (from, to) = match (self.input.kind, self.view.log_from) {
            (InputKind::Batch, Some(meeting)) => (Micros::MIN, meeting.saturating_sub(1)),
            (InputKind::Log, Some(meeting)) => (meeting, Micros::MAX),
            (_, None) => (Micros::MIN, Micros::MAX),
        };
        let asked = &self.view.rows.asked;
        let mut parts: Vec<Part> = Vec::new();
        parts.resize_with(workers, Part::default);
        for (row, number) in (0u32..).zip(&self.numbers) {
            let at = row as usize;
            if *number == NO_KEY || times.is_null(at) {
                continue;
            }
            let time = times.value(at);
            let made = created.as_ref().filter(|made| made.is_valid(at)).map_or(NO_CREATED, |made| made.value(at));
            let counts = if self.by_created { time.max(made) } else { time };
            let of = *number as usize;
            if time < from || time > to || time < self.view.since[of] || counts > asked.latest[of] {
                continue;
            }
            let (worker, key) = deal(*number, workers);
            let part = &mut parts[worker];
            part.rows.push(row);
            part.keys.push(key);
            part.counts.push(counts);
            part.times.push(time);
            part.created.push(made);
            part.ids.push(first.plus_unchecked(at).to_u64());
        }
        parts.into_iter().map(|part| self.batch(batch, part, &place)).collect()
    }

    /// The rows of `part` with the columns of [`row_schema`]; `None` where there are none.
    fn batch(&self, batch: &ScanBatch, part: Part, place: &Place<'_>) -> Result<Option<RecordBatch>> {
        if part.rows.is_empty() {
            return Ok(None);
        }
        let rows = UInt32Array::from(part.rows);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(part.keys)),
            Arc::new(Int64Array::from(part.counts)),
            Arc::new(Int64Array::from(part.times)),
            Arc::new(Int64Array::from(part.created)),
            Arc::new(UInt64Array::from(part.ids)),
        ];
        for ((value, name), (_, to)) in self.values.iter().zip(&self.input.features).zip(&self.view.rows.features) {
            columns.push(match value {
                Some(value) => {
                    let picked = take(place.column(batch, *value)?, &rows, None)?;
                    place.cast(&picked, to, name.as_deref().unwrap_or_default(), Some(&rows))?
                }
                None => new_null_array(to, rows.len()),
            });
        }
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }
}

/// Rows of a batch for one worker.
#[derive(Debug, Default)]
struct Part {
    rows: Vec<u32>,
    keys: Vec<u32>,
    counts: Vec<Micros>,
    times: Vec<Micros>,
    created: Vec<Micros>,
    ids: Vec<u64>,
}
