//! Casts that lose nothing.
//!
//! Join keys go to their entity's type and values to their field's. What cannot go there without loss is a failure of
//! its row: an overflow (also of a finite number to an infinite one), a fraction into an integer, text that does not
//! parse, a time finer than a microsecond. Rounding is no loss where floats are meant: float64 to float32 and integers
//! to floats.

mod time;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type, SchemaRef, TimeUnit};
use headwater_core::{Error, Result};

pub(crate) use time::{number_time, parse_time, parse_unit};

/// A row that could not be cast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Its index.
    pub(crate) row: usize,
    /// Why, naming the value.
    pub(crate) reason: String,
}

/// What came out of a cast.
#[derive(Debug, Clone)]
pub(crate) struct Casted {
    /// As many rows as went in; null where the cast failed.
    pub(crate) array: ArrayRef,
    /// The rows that failed, ascending.
    pub(crate) failures: Vec<Failure>,
}

impl Casted {
    fn whole(array: ArrayRef) -> Self {
        Self { array, failures: Vec::new() }
    }
}

/// Casts a column to `to` without loss. Numbers become times only where `unit` says what they count.
///
/// # Errors
/// Only those of Arrow itself (text that outgrows 32-bit offsets); what cannot be cast is a failure of its row.
pub(crate) fn cast(array: &ArrayRef, to: &DataType, unit: Option<TimeUnit>) -> Result<Casted> {
    use DataType::{
        Binary, BinaryView, Dictionary, FixedSizeBinary, FixedSizeList, LargeBinary, LargeList, LargeListView,
        LargeUtf8, List, ListView, Null, RunEndEncoded, Timestamp, Utf8, Utf8View,
    };
    let from = array.data_type();
    match (from, to) {
        _ if from == to => Ok(Casted::whole(Arc::clone(array))),
        (Null, _) => Ok(Casted::whole(new_null_array(to, array.len()))),
        (Dictionary(_, values), _) => cast(&plain(array, values)?, to, unit),
        (RunEndEncoded(_, values), _) => cast(&plain(array, values.data_type())?, to, unit),
        (LargeUtf8 | Utf8View, _) => cast(&plain(array, &Utf8)?, to, unit),
        (LargeBinary | BinaryView | FixedSizeBinary(_), _) => cast(&plain(array, &Binary)?, to, unit),
        (LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _), List(_)) => {
            cast(&plain(array, &List(Arc::clone(item)))?, to, unit)
        }
        (List(_), List(_)) => cast_list(array.as_list::<i32>(), to, unit),
        (_, Timestamp(TimeUnit::Microsecond, _)) => time::to_micros(array, to, unit),
        // Arrow knows no zone by its name, and we know only UTC.
        (Timestamp(of, Some(_)), _) => cast_value(&without_zone(array, *of)?, to),
        _ => cast_value(array, to),
    }
}

/// Casts `batch` to the columns of `schema`, found by name. A row fails with its first fault, which names the column; a
/// null in a column that allows none is one. The rows of failures stay in place, with nulls where they failed.
///
/// # Errors
/// `Data` where a column is missing.
pub(crate) fn cast_batch(
    batch: &RecordBatch,
    schema: &SchemaRef,
    unit: Option<TimeUnit>,
) -> Result<(Vec<ArrayRef>, Vec<Failure>)> {
    let mut failures: Vec<Failure> = Vec::new();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = field.name();
        let column = batch.column_by_name(name).ok_or_else(|| {
            let there = batch.schema().fields().iter().map(|f| format!("`{}`", f.name())).collect::<Vec<_>>();
            Error::data(format!("there is no column `{name}` among {}", there.join(", ")))
        })?;
        let casted = cast(column, field.data_type(), unit)?;
        let reason = |reason: String| format!("column `{name}`: {reason}");
        let count = failures.len();
        failures.extend(casted.failures.into_iter().map(|f| Failure { row: f.row, reason: reason(f.reason) }));
        if !field.is_nullable() && column.null_count() > 0 {
            failures.extend(
                (0..column.len())
                    .filter(|row| column.is_null(*row))
                    .map(|row| Failure { row, reason: reason("must not be null".into()) }),
            );
        }
        if count > 0 && failures.len() > count {
            // Stable: of several faults of a row the one of the first column stays.
            failures.sort_by_key(|failure| failure.row);
            failures.dedup_by_key(|failure| failure.row);
        }
        columns.push(casted.array);
    }
    failures.sort_by_key(|failure| failure.row);
    failures.dedup_by_key(|failure| failure.row);
    Ok((columns, failures))
}

/// Builds the batch of the rows of `columns` that did not fail; `None` for the indices where all rows are kept.
///
/// # Errors
/// `Data` where the columns do not fit the schema.
pub(crate) fn without(
    columns: Vec<ArrayRef>,
    schema: &SchemaRef,
    rows: usize,
    failures: &[Failure],
) -> Result<(RecordBatch, Option<arrow::array::UInt32Array>)> {
    let options = |rows| RecordBatchOptions::new().with_row_count(Some(rows));
    if failures.is_empty() {
        return Ok((RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options(rows))?, None));
    }
    let mut bad = failures.iter().map(|failure| failure.row).peekable();
    let mut kept = Vec::with_capacity(rows);
    for row in 0..rows {
        while bad.next_if(|b| *b < row).is_some() {}
        if bad.peek() != Some(&row) {
            kept.push(u32::try_from(row).map_err(|_| Error::data("a batch has more rows than fit 32 bits"))?);
        }
    }
    let kept = arrow::array::UInt32Array::from(kept);
    let columns = columns
        .iter()
        .map(|column| arrow::compute::take(column, &kept, None))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok((RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options(kept.len()))?, Some(kept)))
}

/// Another representation of the same values.
fn plain(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// The same instants as times without a zone.
fn without_zone(array: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef> {
    let data = array.to_data().into_builder().data_type(DataType::Timestamp(unit, None)).build()?;
    Ok(arrow::array::make_array(data))
}

fn cast_list(list: &ListArray, to: &DataType, unit: Option<TimeUnit>) -> Result<Casted> {
    let DataType::List(item) = to else { return Err(Error::unexpected(format!("`{to}` is not a list"))) };
    // Null rows may hide values: only what a row shows can fail.
    let casted = cast(list.values(), item.data_type(), unit)?;
    let mut failures = Vec::new();
    let mut nulls = list.nulls().cloned();
    if !casted.failures.is_empty() {
        let offsets = list.value_offsets();
        let mut rest = casted.failures.into_iter().peekable();
        let mut valid = (0..list.len()).map(|row| list.is_valid(row)).collect::<Vec<_>>();
        for (row, ends) in offsets.windows(2).enumerate() {
            let (Some(from), Some(to)) = (ends.first(), ends.last()) else { continue };
            let (from, to) = (usize::try_from(*from).unwrap_or(0), usize::try_from(*to).unwrap_or(0));
            while rest.next_if(|failure| failure.row < from).is_some() {}
            while let Some(failure) = rest.next_if(|failure| failure.row < to) {
                if valid.get(row) == Some(&true) {
                    failures
                        .push(Failure { row, reason: format!("element {}: {}", failure.row - from, failure.reason) });
                    if let Some(valid) = valid.get_mut(row) {
                        *valid = false;
                    }
                }
            }
        }
        nulls = Some(NullBuffer::from(valid));
    }
    let offsets: OffsetBuffer<i32> = list.offsets().clone();
    let array = ListArray::try_new(Arc::clone(item), offsets, casted.array, nulls)?;
    Ok(Casted { array: Arc::new(array), failures })
}

/// Everything that is neither a time nor nested.
fn cast_value(array: &ArrayRef, to: &DataType) -> Result<Casted> {
    let from = array.data_type();
    if !can_cast_types(from, to) {
        return Ok(all_fail(array, to, &format!("a value of type {from} cannot become {to}")));
    }
    let out = cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() })?;
    let mut bad: Vec<usize> = Vec::new();
    if out.null_count() != array.null_count() {
        bad.extend((0..out.len()).filter(|row| out.is_null(*row) && array.is_valid(*row)));
    }
    if to.is_floating() {
        match to {
            DataType::Float16 => became_infinite::<Float16Type>(array, &out, |x| x.is_infinite(), &mut bad),
            DataType::Float32 => became_infinite::<Float32Type>(array, &out, f32::is_infinite, &mut bad),
            _ => became_infinite::<Float64Type>(array, &out, f64::is_infinite, &mut bad),
        }
    } else if from.is_floating() && to.is_integer() {
        let wide = plain(array, &DataType::Float64)?;
        let wide = wide.as_primitive::<Float64Type>();
        bad.extend((0..wide.len()).filter(|row| wide.is_valid(*row) && wide.value(*row).fract() != 0.0));
    } else if may_round(from, to) && can_cast_types(to, from) {
        let back = cast_with_options(&out, from, &CastOptions { safe: true, ..CastOptions::default() })?;
        let differs = distinct(array, &back)?;
        if differs.true_count() > 0 {
            bad.extend((0..differs.len()).filter(|row| differs.value(*row)));
        }
    }
    bad.sort_unstable();
    bad.dedup();
    Ok(fail(array, out, &bad, |text| format!("`{text}` does not go into {to} without loss")))
}

/// Whether Arrow's cast between these two types can change a value without saying so.
fn may_round(from: &DataType, to: &DataType) -> bool {
    let number_or_time = |t: &DataType| {
        t.is_numeric()
            || t.is_temporal()
            || matches!(t, DataType::Boolean | DataType::Decimal32(..) | DataType::Decimal64(..))
    };
    number_or_time(from) && number_or_time(to) && !(from.is_integer() && to.is_integer())
}

fn became_infinite<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    out: &ArrayRef,
    is_infinite: impl Fn(T::Native) -> bool,
    bad: &mut Vec<usize>,
) {
    let floats = out.as_primitive::<T>();
    if !floats.values().iter().any(|value| is_infinite(*value)) {
        return;
    }
    let was = |row: usize| match array.data_type() {
        DataType::Float16 => array.as_primitive::<Float16Type>().value(row).is_infinite(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).is_infinite(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).is_infinite(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_ascii_lowercase().contains("inf"),
        _ => false,
    };
    bad.extend((0..floats.len()).filter(|row| floats.is_valid(*row) && is_infinite(floats.value(*row)) && !was(*row)));
}

/// Every row that is not null fails for the same reason.
fn all_fail(array: &ArrayRef, to: &DataType, reason: &str) -> Casted {
    let failures = (0..array.len())
        .filter(|row| array.is_valid(*row))
        .map(|row| Failure { row, reason: reason.to_owned() })
        .collect();
    Casted { array: new_null_array(to, array.len()), failures }
}

/// Makes the `bad` rows of `out` null and says why, with the value as it was.
fn fail(array: &ArrayRef, out: ArrayRef, bad: &[usize], reason: impl Fn(&str) -> String) -> Casted {
    if bad.is_empty() {
        return Casted::whole(out);
    }
    let mut valid = (0..out.len()).map(|row| out.is_valid(row)).collect::<Vec<_>>();
    for row in bad {
        if let Some(valid) = valid.get_mut(*row) {
            *valid = false;
        }
    }
    let failures = bad.iter().map(|row| Failure { row: *row, reason: reason(&show(array, *row)) }).collect();
    let data = out.to_data().into_builder().nulls(Some(NullBuffer::from(valid))).build();
    match data {
        Ok(data) => Casted { array: arrow::array::make_array(data), failures },
        Err(_) => Casted { array: new_null_array(out.data_type(), out.len()), failures },
    }
}

/// A value as text, cut where it is long.
pub(crate) fn show(array: &ArrayRef, row: usize) -> String {
    let shown = match array.data_type() {
        DataType::Timestamp(unit, Some(_)) => without_zone(array, *unit).ok(),
        _ => None,
    };
    let array = shown.as_ref().unwrap_or(array);
    let text = arrow::util::display::array_value_to_string(array, row).unwrap_or_else(|_| "?".into());
    shorten(&text)
}

/// Text for a message: at most 80 characters.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
