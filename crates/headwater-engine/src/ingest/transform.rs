//! Decoded rows into rows of a view.

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{TimeUnit, TimestampMicrosecondType, UInt32Type};
use headwater_core::stream::METADATA_TIMESTAMP;
use headwater_core::transform::PlannedTransform;
use headwater_core::{Error, ErrorKind, Micros, Result};

use crate::cast::{Failure, cast_batch, without};
use crate::view::View;

/// What a view makes of a batch of its input.
#[derive(Debug, Clone)]
pub(crate) struct Transformed {
    /// Rows with the columns of [`View::schema`], in order of their input.
    pub(crate) rows: RecordBatch,
    /// For each row its input row, ascending; `None` where row `i` came from input row `i`.
    pub(crate) inputs: Option<UInt32Array>,
    /// Which of the rows of its input row each one is; `None` where every input row gave at most one.
    pub(crate) ordinals: Option<UInt32Array>,
    /// The input rows that could not be used, ascending, each once. None of their rows is in `rows`.
    pub(crate) failures: Vec<Failure>,
}

/// Transforms `input`, casts it to the view's columns and checks it: no null keys, no null event time, no event dated
/// more than `skew` after the time stored with its record.
///
/// One input row at fault costs no other; of a row that a transform makes several of, all are left out.
///
/// # Errors
/// Those of the transform that are not `Data`; `Invalid` for a view that no stream feeds.
pub(crate) fn to_view(
    view: &View,
    input: &RecordBatch,
    unit: Option<TimeUnit>,
    skew: Option<Micros>,
) -> Result<Transformed> {
    let stream = view
        .stream
        .as_ref()
        .ok_or_else(|| Error::invalid(format!("view `{}` is not fed by a stream or push source", view.name)))?;
    let (output, inputs, mut failures) = apply(stream.transform.as_ref(), input)?;
    let schema = view.schema();
    let (columns, misfits) = cast_batch(&output, &schema, unit)?;
    let input_of = |row: usize| inputs.as_ref().map_or(row, |inputs| inputs.value(row) as usize);
    failures.extend(misfits.into_iter().map(|f| Failure { row: input_of(f.row), reason: f.reason }));
    let place = view.keys.len();
    if let (Some(skew), Some(stored)) = (skew, input.column_by_name(METADATA_TIMESTAMP))
        && let (Some(stored), Some(times)) = (
            stored.as_primitive_opt::<TimestampMicrosecondType>(),
            columns.get(place).and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>()),
        )
    {
        for row in 0..times.len() {
            let record = input_of(row);
            if times.is_valid(row)
                && stored.is_valid(record)
                && times.value(row) > stored.value(record).saturating_add(skew)
            {
                let ahead = times.value(row).saturating_sub(stored.value(record)) / 1_000_000;
                let reason = format!(
                    "column `{}`: the event is dated {ahead} s after the time stored with its record, more than \
                     `max_future_skew` allows",
                    view.event_time
                );
                failures.push(Failure { row: record, reason });
            }
        }
    }
    failures.sort_by_key(|failure| failure.row);
    failures.dedup_by_key(|failure| failure.row);

    // A record with one bad row is left out with all its rows: replaying it later must not bring some of them twice.
    let mut bad_rows = Vec::new();
    if !failures.is_empty() {
        let mut bad = failures.iter().map(|failure| failure.row).peekable();
        for row in 0..output.num_rows() {
            let record = input_of(row);
            while bad.next_if(|b| *b < record).is_some() {}
            if bad.peek() == Some(&record) {
                bad_rows.push(Failure { row, reason: String::new() });
            }
        }
    }
    let (rows, kept) = without(columns, &schema, output.num_rows(), &bad_rows)?;
    let inputs = match (inputs, kept) {
        (Some(inputs), Some(kept)) => Some(take(&inputs, &kept, None)?.as_primitive::<UInt32Type>().clone()),
        (None, kept) => kept,
        (inputs, None) => inputs,
    };
    let ordinals = inputs.as_ref().and_then(ordinals);
    Ok(Transformed { rows, inputs, ordinals, failures })
}

type Applied = (RecordBatch, Option<UInt32Array>, Vec<Failure>);

/// Applies a transform to the rows that it can compute.
fn apply(transform: &dyn PlannedTransform, input: &RecordBatch) -> Result<Applied> {
    match transform.apply(input) {
        Ok(done) => return Ok((done.rows, done.inputs, Vec::new())),
        Err(error) if error.kind() != ErrorKind::Data => return Err(error),
        Err(_) => {}
    }
    // Halves, until the rows at fault stand alone. The stack holds ranges, the next one on top.
    let mut pieces = Vec::new();
    let mut inputs = Vec::new();
    let mut failures = Vec::new();
    let mut ranges = vec![(0, input.num_rows())];
    while let Some((from, count)) = ranges.pop() {
        match transform.apply(&input.slice(from, count)) {
            Ok(done) => {
                let offset = index(from)?;
                match &done.inputs {
                    Some(of) => inputs.extend(of.values().iter().map(|row| row + offset)),
                    None => inputs.extend(offset..offset + index(done.rows.num_rows())?),
                }
                pieces.push(done.rows);
            }
            Err(error) if error.kind() == ErrorKind::Data && count == 1 => {
                failures.push(Failure { row: from, reason: error.to_string() });
            }
            Err(error) if error.kind() == ErrorKind::Data && count > 1 => {
                ranges.push((from + count / 2, count - count / 2));
                ranges.push((from, count / 2));
            }
            Err(error) => return Err(error),
        }
    }
    let schema = transform.output();
    let rows = match pieces.first() {
        Some(first) => concat_batches(&first.schema(), &pieces)?,
        None => RecordBatch::new_empty(schema),
    };
    Ok((rows, Some(UInt32Array::from(inputs)), failures))
}

fn index(row: usize) -> Result<u32> {
    u32::try_from(row).map_err(|_| Error::data("a batch has more rows than fit 32 bits"))
}

/// Counts the rows of each input row; `None` where none gave two.
fn ordinals(inputs: &UInt32Array) -> Option<UInt32Array> {
    let values = inputs.values();
    if values.windows(2).all(|pair| pair.first() != pair.last()) {
        return None;
    }
    let mut last = None;
    let mut ordinal = 0;
    let counted = values.iter().map(|input| {
        ordinal = if last == Some(*input) { ordinal + 1 } else { 0 };
        last = Some(*input);
        ordinal
    });
    Some(counted.collect())
}
