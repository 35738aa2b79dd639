//! The training set: entity rows with the features of their answers beside them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use headwater_core::{Error, Result};
use tokio::sync::Semaphore;

use super::TrainingSet;
use super::gather::{Gathered, Shared, gather};
use super::memory::Budget;
use super::plan::{Plan, on_a_thread};
use super::scan::Answers;

/// A part of one batch of entity rows: an output batch to be.
#[derive(Debug, Clone)]
struct Part {
    batch: usize,
    offset: usize,
    rows: usize,
    /// The place of its first row among all entity rows.
    first: usize,
}

impl Part {
    fn end(&self) -> usize {
        self.first + self.rows
    }
}

/// The stream of the training set. Features are read for as many entity rows at once as memory allows.
pub(super) fn put_out(plan: Arc<Plan>, answers: Answers) -> TrainingSet {
    let (schema, rows, overflows) = (Arc::clone(&plan.schema), plan.entities.len() as u64, plan.overflows.clone());
    let parts: Arc<[Part]> = parts(&plan).into();
    let answers = Arc::new(answers);
    let passes = stream::try_unfold(0, move |next| {
        let (plan, answers, parts) = (Arc::clone(&plan), Arc::clone(&answers), Arc::clone(&parts));
        async move {
            if next >= parts.len() {
                return Ok::<_, Error>(None);
            }
            let (end, gathered) = pass(&plan, &answers, &parts, next).await?;
            let first = parts.get(next).map_or(0, |part| part.first);
            Ok(Some((batches(plan, Arc::new(gathered), &parts[next..end], first), end)))
        }
    });
    TrainingSet { schema, rows, overflows, batches: passes.try_flatten().boxed() }
}

fn parts(plan: &Plan) -> Vec<Part> {
    let (mut parts, mut first) = (Vec::new(), 0);
    for (number, batch) in plan.entities.batches().iter().enumerate() {
        for offset in (0..batch.num_rows()).step_by(plan.batch_rows) {
            let rows = plan.batch_rows.min(batch.num_rows() - offset);
            parts.push(Part { batch: number, offset, rows, first });
            first += rows;
        }
    }
    parts
}

/// Reads the features of the parts from `next` on, as many as fit. Returns the end of those it read.
async fn pass(plan: &Arc<Plan>, answers: &Arc<Answers>, parts: &[Part], next: usize) -> Result<(usize, Vec<Gathered>)> {
    let first = parts.get(next).map_or(0, |part| part.first);
    let fits = usize::try_from(plan.memory / row_width(plan)).unwrap_or(usize::MAX);
    let mut end = parts.partition_point(|part| part.end() <= first.saturating_add(fits)).max(next + 1);
    loop {
        let shared = Arc::new(Shared {
            budget: Budget::new(plan.memory),
            readers: Semaphore::new(plan.threads),
            smallest: end == next + 1,
        });
        let range = first..parts.get(end - 1).map_or(first, Part::end);
        let views = (0..plan.views.len()).map(|view| gather(plan, answers, view, range.clone(), &shared));
        let gathered: Option<Vec<Gathered>> = try_join_all(views).await?.into_iter().collect();
        match gathered {
            Some(gathered) => return Ok((end, gathered)),
            // Text turned out longer than it was taken for: half as many rows.
            None => end = next + ((end - next) / 2).max(1),
        }
    }
}

/// What the features of an entity row are taken to need in memory while they wait.
fn row_width(plan: &Plan) -> u64 {
    plan.views
        .iter()
        .flat_map(|view| &view.features)
        .map(|(_, of)| match of {
            DataType::Boolean => 1,
            of => of.primitive_width().map_or(32, |width| width as u64),
        })
        .sum::<u64>()
        // And its places, and the answer while it is being sorted.
        + 24 * plan.views.len() as u64
        + 1
}

/// Puts out the parts whose features were read. The first row of what was gathered is entity row `first`.
fn batches(
    plan: Arc<Plan>,
    gathered: Arc<Vec<Gathered>>,
    parts: &[Part],
    first: usize,
) -> BoxStream<'static, Result<RecordBatch>> {
    let ahead = plan.threads;
    stream::iter(parts.to_vec())
        .map(move |part| {
            let (plan, gathered) = (Arc::clone(&plan), Arc::clone(&gathered));
            on_a_thread(move || {
                let batch = batch(&plan, &gathered, &part, part.first - first..part.end() - first)?;
                plan.progress.report(|progress| progress.rows_done += batch.num_rows() as u64);
                Ok(batch)
            })
        })
        .buffered(ahead)
        .boxed()
}

fn batch(plan: &Plan, gathered: &[Gathered], part: &Part, range: Range<usize>) -> Result<RecordBatch> {
    let wrong = || Error::unexpected("a part of the training set was not gathered");
    let entities = plan.entities.batches().get(part.batch).ok_or_else(wrong)?.slice(part.offset, part.rows);
    let places: Vec<Vec<(usize, usize)>> = gathered
        .iter()
        .map(|view| {
            let of_part = view.places.get(range.clone()).ok_or_else(wrong)?;
            Ok(of_part.iter().map(|(piece, row)| (*piece as usize, *row as usize)).collect())
        })
        .collect::<Result<_>>()?;
    let mut columns: Vec<ArrayRef> = entities.columns().to_vec();
    for (view, feature) in &plan.columns {
        let pieces = gathered.get(*view).and_then(|view| view.columns.get(*feature)).ok_or_else(wrong)?;
        let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
        columns.push(interleave(&pieces, places.get(*view).ok_or_else(wrong)?)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(part.rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options)?)
}
