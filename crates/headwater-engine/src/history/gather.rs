//! The features of the answers: only rows that won are read.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use futures::StreamExt;
use headwater_core::batch::{ScanBatch, ScanRequest};
use headwater_core::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::memory::Budget;
use super::plan::{InputPlan, Plan, ViewPlan, on_a_thread, stopped};
use super::row::RowId;
use super::scan::{Answers, Place, too_few};

/// The features of one view for a range of entity rows.
#[derive(Debug)]
pub(super) struct Gathered {
    /// For each feature the pieces of its column. The first is a single null.
    pub(super) columns: Vec<Vec<ArrayRef>>,
    /// For each entity row of the range where its answer stands: piece and row in it. (0, 0) = no answer.
    pub(super) places: Vec<(u32, u32)>,
}

/// What reading features shares.
#[derive(Debug)]
pub(super) struct Shared {
    /// Bytes for the features.
    pub(super) budget: Budget,
    /// As many fragments are read at once.
    pub(super) readers: Semaphore,
    /// Goes on where the budget does not suffice: the range cannot be made smaller.
    pub(super) smallest: bool,
}

/// Reads the features of `view` for the entity rows in `range`. `None` where they do not fit the budget.
pub(super) async fn gather(
    plan: &Arc<Plan>,
    answers: &Arc<Answers>,
    view: usize,
    range: Range<usize>,
    shared: &Arc<Shared>,
) -> Result<Option<Gathered>> {
    let of_view = plan.views.get(view).ok_or_else(|| Error::unexpected(format!("there is no view {view}")))?;
    let (all, length) = (Arc::clone(answers), range.len());
    let wanted = on_a_thread(move || Ok(wanted(all.views.get(view).and_then(|ids| ids.get(range))))).await?;

    let mut tasks: JoinSet<Result<Fetched>> = JoinSet::new();
    for (order, rows) in by_fragment(&wanted).into_iter().enumerate() {
        let (plan, answers, shared) = (Arc::clone(plan), Arc::clone(answers), Arc::clone(shared));
        tasks.spawn(async move {
            let _permit = shared.readers.acquire().await.map_err(|_| Error::unexpected("the join is over"))?;
            let pieces = read(&plan, &answers, view, &rows, &shared).await?;
            Ok(pieces.map(|pieces| (order, pieces)))
        });
    }
    let mut pieces: Vec<Vec<Piece>> = Vec::new();
    pieces.resize_with(tasks.len(), Vec::new);
    while let Some(outcome) = tasks.join_next().await {
        match outcome.map_err(stopped)?? {
            Some((order, of_fragment)) => pieces[order] = of_fragment,
            None => return Ok(None),
        }
    }
    let pieces: Vec<Piece> = pieces.into_iter().flatten().collect();
    let features = of_view.features.clone();
    on_a_thread(move || place(&features, pieces, &wanted, length)).await.map(Some)
}

/// The pieces of a fragment, and which of those read it is; `None` where memory did not suffice.
type Fetched = Option<(usize, Vec<Piece>)>;

/// An answer and the entity row that it answers, counted from the start of the range.
type Wanted = (RowId, u32);

/// The answers in the order in which they stand.
fn wanted(answers: Option<&[RowId]>) -> Vec<Wanted> {
    let answers = answers.unwrap_or_default();
    let mut wanted: Vec<Wanted> =
        answers.iter().zip(0u32..).filter(|(id, _)| **id != RowId::NONE).map(|(id, row)| (*id, row)).collect();
    wanted.sort_unstable();
    wanted
}

/// The rows wanted of each fragment, ascending, each once.
fn by_fragment(wanted: &[Wanted]) -> Vec<(usize, Vec<u64>)> {
    let mut out: Vec<(usize, Vec<u64>)> = Vec::new();
    for of_fragment in wanted.chunk_by(|(left, _), (right, _)| left.fragment() == right.fragment()) {
        let mut rows: Vec<u64> = of_fragment.iter().map(|(id, _)| id.row()).collect();
        rows.dedup();
        out.push((of_fragment.first().map_or(0, |(id, _)| id.fragment()), rows));
    }
    out
}

/// Rows of a fragment: one array for each feature.
#[derive(Debug)]
struct Piece {
    columns: Vec<ArrayRef>,
    rows: usize,
}

async fn read(
    plan: &Plan,
    answers: &Answers,
    view: usize,
    (number, wanted): &(usize, Vec<u64>),
    shared: &Shared,
) -> Result<Option<Vec<Piece>>> {
    let wrong = || Error::unexpected(format!("there is no fragment {number} of view {view}"));
    let of_view = plan.views.get(view).ok_or_else(wrong)?;
    let fragment = of_view.fragments.get(*number).ok_or_else(wrong)?;
    let input = of_view.inputs.get(fragment.input).ok_or_else(wrong)?;
    let searched = answers.rows.get(view).and_then(|rows| rows.get(*number)).copied().ok_or_else(wrong)?;

    // The same rows as in the search, of other columns.
    let mut columns: Vec<String> = input.features.iter().flatten().cloned().collect();
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() {
        // A log that is older than all of these features.
        let piece = Piece { columns: nulls(of_view, wanted.len()), rows: wanted.len() };
        return Ok(Some(vec![piece]));
    }
    let request = ScanRequest { columns: Some(columns), ..input.search.clone() };
    let mut batches = input.source.read(&fragment.fragment, &request).await?;
    let (mut pieces, mut before, mut left) = (Vec::new(), 0u64, wanted.as_slice());
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let after = before + batch.rows.num_rows() as u64;
        let (here, later) = left.split_at(left.partition_point(|row| *row < after));
        if !here.is_empty() {
            let place = Place::new(input, &fragment.fragment.split, &batch.positions);
            let piece = pick(of_view, input, &request, &batch, here, before, &place)?;
            let bytes = piece.columns.iter().map(|column| column.get_array_memory_size() as u64).sum();
            if shared.budget.take(bytes) && !shared.smallest {
                return Ok(None);
            }
            pieces.push(piece);
        }
        (before, left) = (after, later);
    }
    if before != searched {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "`{}`, `{}` had {searched} rows, and a moment later {before}: it changed while it was joined; try again",
                input.source.identity(),
                String::from_utf8_lossy(fragment.fragment.split.as_bytes())
            ),
        ));
    }
    Ok(Some(pieces))
}

/// The rows `wanted` of a batch before which `before` rows came, with the view's types.
fn pick(
    view: &ViewPlan,
    input: &InputPlan,
    request: &ScanRequest,
    batch: &ScanBatch,
    wanted: &[u64],
    before: u64,
    place: &Place<'_>,
) -> Result<Piece> {
    let names = request.columns.as_deref().unwrap_or_default();
    let rows = wanted
        .iter()
        .map(|row| u32::try_from(row - before))
        .collect::<std::result::Result<Vec<u32>, _>>()
        .map_err(|_| Error::unsupported("a batch of more rows than fit 32 bits"))?;
    let rows = UInt32Array::from(rows);
    let mut columns = Vec::with_capacity(view.features.len());
    for ((_, to), name) in view.features.iter().zip(&input.features) {
        let Some(name) = name else {
            columns.push(new_null_array(to, rows.len()));
            continue;
        };
        let at = names.iter().position(|known| known == name);
        let column = at.and_then(|at| batch.rows.columns().get(at)).ok_or_else(|| too_few(input))?;
        // Every row of the batch: nothing to pick.
        let picked = if rows.len() == column.len() { Arc::clone(column) } else { take(column, &rows, None)? };
        columns.push(place.cast(&picked, to, name, Some(&rows))?);
    }
    Ok(Piece { columns, rows: rows.len() })
}

/// Finds the place of every answer among the pieces, which stand in the order of `wanted`.
fn place(features: &[(String, DataType)], pieces: Vec<Piece>, wanted: &[Wanted], length: usize) -> Result<Gathered> {
    let mut columns: Vec<Vec<ArrayRef>> = features.iter().map(|(_, of)| vec![new_null_array(of, 1)]).collect();
    let mut places = vec![(0, 0); length];
    let mut spots =
        pieces.iter().zip(1u32..).flat_map(|(piece, number)| (0u32..).take(piece.rows).map(move |row| (number, row)));
    for same in wanted.chunk_by(|(left, _), (right, _)| left == right) {
        let spot = spots.next().ok_or_else(|| Error::unexpected("fewer rows were read than won"))?;
        for (_, row) in same {
            places[*row as usize] = spot;
        }
    }
    for piece in pieces {
        for (column, array) in columns.iter_mut().zip(piece.columns) {
            column.push(array);
        }
    }
    Ok(Gathered { columns, places })
}

fn nulls(view: &ViewPlan, rows: usize) -> Vec<ArrayRef> {
    view.features.iter().map(|(_, of)| new_null_array(of, rows)).collect()
}
