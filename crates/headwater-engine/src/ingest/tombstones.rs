//! Records without a value that delete the entity which their key names.
//!
//! A tombstone is a row like others: it has its record's position and the time stored with it, and wins or loses by
//! version. Rows of a stream that deletes all say whether they are tombstones, so that those of one split fit together.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimestampMicrosecondType, UInt32Type};
use headwater_core::Result;
use headwater_core::stream::{METADATA_KEY, METADATA_TIMESTAMP, StreamBatch};

use super::json::JsonDecoder;
use super::lane::Piece;
use crate::cast::{Failure, cast, without};
use crate::rows::DELETED;
use crate::view::View;

/// Which of these rows are tombstones; `None` where the rows do not say.
pub(super) fn marks(rows: &RecordBatch) -> Option<&BooleanArray> {
    rows.column_by_name(DELETED).and_then(|column| column.as_boolean_opt())
}

/// The rows of a view together with those of the tombstones among its records, in order of their positions. The records
/// whose key names no entity are failures.
///
/// # Errors
/// Those of Arrow.
pub(super) fn add(
    view: &View,
    batch: &StreamBatch,
    tombstones: &[usize],
    piece: Piece,
) -> Result<(Piece, Vec<Failure>)> {
    let rows = marked(&piece.rows, false)?;
    if tombstones.is_empty() {
        return Ok((Piece { rows, ..piece }, Vec::new()));
    }
    let (deleted, records, failures) = deleted_rows(view, batch, tombstones)?;
    if records.is_empty() {
        return Ok((Piece { rows, ..piece }, failures));
    }
    let deleted = marked(&deleted, true)?;
    let rows = concat_batches(&deleted.schema(), [&rows, &deleted])?;
    let positions = piece.positions.iter().flatten().chain(records.iter().map(|record| batch.positions.value(*record)));
    let positions = positions.collect::<Vec<_>>();
    // Rows of one record keep their order.
    let mut order = (0_u32..).take(positions.len()).collect::<Vec<_>>();
    order.sort_by_key(|row| positions.get(*row as usize));
    let order = UInt32Array::from(order);
    let positions = BinaryArray::from_iter_values(positions);
    let ordinals = piece.ordinals.map(|ordinals| {
        let all = ordinals.iter().flatten().chain(records.iter().map(|_| 0));
        UInt32Array::from_iter_values(all)
    });
    let piece = Piece {
        rows: take_record_batch(&rows, &order)?,
        positions: take(&positions, &order, None)?.as_binary::<i32>().clone(),
        ordinals: match ordinals {
            Some(ordinals) => Some(take(&ordinals, &order, None)?.as_primitive::<UInt32Type>().clone()),
            None => None,
        },
    };
    Ok((piece, failures))
}

fn marked(rows: &RecordBatch, deleted: bool) -> Result<RecordBatch> {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(DELETED, DataType::Boolean, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(BooleanArray::from(vec![deleted; rows.num_rows()])));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The rows of tombstones, the record of each, and the records that give none.
fn deleted_rows(
    view: &View,
    batch: &StreamBatch,
    tombstones: &[usize],
) -> Result<(RecordBatch, Vec<usize>, Vec<Failure>)> {
    let known = |name: &str| batch.metadata.as_ref().and_then(|metadata| metadata.column_by_name(name));
    let keys = known(METADATA_KEY).and_then(|column| column.as_binary_opt::<i32>());
    let times = known(METADATA_TIMESTAMP).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let key = |record: usize| keys.filter(|keys| keys.is_valid(record)).map(|keys| keys.value(record));
    let time = |record: usize| times.filter(|times| times.is_valid(record)).map(|times| times.value(record));

    let given: BinaryArray = tombstones.iter().map(|record| key(*record)).collect();
    let (mut columns, mut failures) = key_columns(view, &given)?;
    for (row, record) in tombstones.iter().enumerate() {
        let reason = match (time(*record), key(*record)) {
            (None, _) => "the record has neither a value nor a time at which it would delete an entity",
            (_, None) if !view.keys.is_empty() => "the record has neither a value nor a key that names an entity",
            _ => continue,
        };
        failures.push(Failure { row, reason: reason.to_owned() });
    }
    // Stable: what is wrong with the key stands first.
    failures.sort_by_key(|failure| failure.row);
    failures.dedup_by_key(|failure| failure.row);

    let schema = view.schema();
    let times = tombstones.iter().map(|record| time(*record));
    let times = times.collect::<arrow::array::TimestampMicrosecondArray>().with_timezone("UTC");
    columns.push(Arc::new(times));
    let rest = schema.fields().iter().skip(columns.len());
    columns.extend(rest.map(|field| new_null_array(field.data_type(), tombstones.len())).collect::<Vec<_>>());
    let (rows, kept) = without(columns, &schema, tombstones.len(), &failures)?;
    let record = |row: usize| tombstones.get(row).copied().unwrap_or(row);
    let records = match &kept {
        Some(kept) => kept.values().iter().map(|row| record(*row as usize)).collect(),
        None => tombstones.to_vec(),
    };
    let failures = failures.into_iter().map(|failure| Failure { row: record(failure.row), reason: failure.reason });
    Ok((rows, records, failures.collect()))
}

/// The join keys that keys of records spell: the only one as text, or all of them as a JSON object.
fn key_columns(view: &View, given: &BinaryArray) -> Result<(Vec<ArrayRef>, Vec<Failure>)> {
    let fields: Fields = view.keys.iter().map(|key| Field::new(&key.name, key.value_type.to_arrow(), false)).collect();
    let about = |reason: String| format!("the record has no value, and its key names no entity: {reason}");
    let (columns, failures) =
        match view.keys.as_slice() {
            [] => (Vec::new(), Vec::new()),
            [key] => {
                let texts: StringArray =
                    given.iter().map(|key| key.and_then(|key| std::str::from_utf8(key).ok())).collect();
                let mut failures = (0..given.len())
                    .filter(|row| given.is_valid(*row) && texts.is_null(*row))
                    .map(|row| Failure { row, reason: format!("column `{}`: the key is no text", key.name) })
                    .collect::<Vec<_>>();
                let casted = cast(&(Arc::new(texts) as ArrayRef), &key.value_type.to_arrow(), None)?;
                failures.extend(casted.failures.into_iter().map(|fault| Failure {
                    row: fault.row,
                    reason: format!("column `{}`: {}", key.name, fault.reason),
                }));
                (vec![casted.array], failures)
            }
            _ => {
                let decoded = JsonDecoder::new(fields, None, false)?.decode(given)?;
                (decoded.columns, decoded.failures)
            }
        };
    let failures = failures.into_iter().map(|fault| Failure { row: fault.row, reason: about(fault.reason) });
    Ok((columns, failures.collect()))
}
