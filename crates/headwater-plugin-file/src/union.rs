//! The columns of several files as those of one table.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, make_array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use headwater_core::{Error, Result};

use crate::error;

/// Collects the columns of files, by name, in the order in which they are first seen.
#[derive(Debug, Default)]
pub(crate) struct Union {
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    files: usize,
}

#[derive(Debug)]
struct Column {
    name: String,
    data_type: DataType,
    nullable: bool,
    /// The file that gave the type, for messages.
    file: String,
    seen: usize,
}

impl Union {
    /// Adds the columns of `file`.
    ///
    /// # Errors
    /// `Invalid` where a column has a type that does not go together with that of an earlier file.
    pub(crate) fn add(&mut self, schema: &Schema, file: &str) -> Result<()> {
        self.add_with(schema, file, |_, _| None)
    }

    /// As [`Union::add`]; `fallback` may name a type where two do not go together.
    pub(crate) fn add_with(
        &mut self,
        schema: &Schema,
        file: &str,
        fallback: impl Fn(&DataType, &DataType) -> Option<DataType>,
    ) -> Result<()> {
        for field in schema.fields() {
            let Some(column) = self.by_name.get(field.name()).and_then(|index| self.columns.get_mut(*index)) else {
                self.by_name.insert(field.name().clone(), self.columns.len());
                self.columns.push(Column {
                    name: field.name().clone(),
                    data_type: field.data_type().clone(),
                    nullable: field.is_nullable(),
                    file: file.to_owned(),
                    seen: 1,
                });
                continue;
            };
            let common = common_type(&column.data_type, field.data_type())
                .or_else(|| fallback(&column.data_type, field.data_type()));
            let Some(common) = common else {
                return Err(Error::invalid(format!(
                    "column `{}` is {} in `{}` and {} in `{file}`",
                    field.name(),
                    column.data_type,
                    column.file,
                    field.data_type(),
                )));
            };
            if common != column.data_type {
                column.data_type = common;
                column.file = file.to_owned();
            }
            column.nullable |= field.is_nullable();
            column.seen += 1;
        }
        self.files += 1;
        Ok(())
    }

    /// Whether a file has this column.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The table's columns. One that a file lacks is nullable.
    pub(crate) fn finish(self) -> Vec<Field> {
        let files = self.files;
        self.columns
            .into_iter()
            .map(|column| Field::new(column.name, column.data_type, column.nullable || column.seen < files))
            .collect()
    }
}

/// The type that holds the values of both: nothing but a rounding of integers to floats is lost.
pub(crate) fn common_type(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Float16, Float32, Float64, LargeList, List, Null, Timestamp, Utf8};
    if left == right {
        return Some(left.clone());
    }
    if is_text(left) && is_text(right) {
        return Some(Utf8);
    }
    match (left, right) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (Timestamp(a, zone_a), Timestamp(b, zone_b)) => {
            // Naive times are UTC, so any mixture is an instant.
            let zone = if zone_a == zone_b { zone_a.clone() } else { Some(Arc::from("UTC")) };
            Some(Timestamp(finer(*a, *b), zone))
        }
        // Writers do not agree on what the element is called.
        (List(a) | LargeList(a), List(b) | LargeList(b)) => {
            let element = common_type(a.data_type(), b.data_type())?;
            Some(List(Arc::new(Field::new(a.name(), element, true))))
        }
        (a, b) if a.is_integer() && b.is_integer() => common_integer(a, b),
        (Float16 | Float32, Float16 | Float32) => Some(Float32),
        (a, b) if a.is_numeric() && b.is_numeric() && (a.is_floating() || b.is_floating()) => {
            (!is_decimal(a) && !is_decimal(b)).then_some(Float64)
        }
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

fn common_integer(a: &DataType, b: &DataType) -> Option<DataType> {
    let width = |t: &DataType| t.primitive_width().unwrap_or(8);
    match (a.is_signed_integer(), b.is_signed_integer()) {
        (true, true) | (false, false) => Some(if width(a) >= width(b) { a.clone() } else { b.clone() }),
        // A signed type holds every value of an unsigned one of half its width; 64 bits have no such partner.
        _ => {
            let unsigned = if a.is_signed_integer() { b } else { a };
            (width(unsigned) < 8).then_some(DataType::Int64)
        }
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |unit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}

/// Where a column of the table comes from in one file.
#[derive(Debug, Clone)]
enum Origin {
    /// The decoded column at this index.
    Decoded(usize),
    /// One value for the whole file: an array of length one.
    Constant(ArrayRef),
    /// The file does not have it.
    Missing,
}

/// How the decoded columns of one file become columns of the table.
#[derive(Debug, Clone)]
pub(crate) struct Alignment {
    schema: SchemaRef,
    origins: Vec<Origin>,
    /// The indices, in the file, of the columns that have to be decoded, ascending.
    decode: Vec<usize>,
    file: String,
}

impl Alignment {
    /// Prepares `wanted` (fields of the table, in the order asked for) for a file with the columns `found` and the
    /// constants `constants`.
    pub(crate) fn new(wanted: &[FieldRef], found: &Schema, constants: &HashMap<String, ArrayRef>, file: &str) -> Self {
        let mut decode: Vec<usize> = wanted.iter().filter_map(|field| found.index_of(field.name()).ok()).collect();
        decode.sort_unstable();
        decode.dedup();
        let origins = wanted
            .iter()
            .map(|field| match (found.index_of(field.name()), constants.get(field.name())) {
                (Ok(index), _) => decode.binary_search(&index).map_or(Origin::Missing, Origin::Decoded),
                (Err(_), Some(value)) => Origin::Constant(Arc::clone(value)),
                (Err(_), None) => Origin::Missing,
            })
            .collect();
        Self { schema: Arc::new(Schema::new(wanted.to_vec())), origins, decode, file: file.to_owned() }
    }

    /// The indices, in the file, of the columns that have to be decoded, ascending.
    pub(crate) fn decode(&self) -> &[usize] {
        &self.decode
    }

    /// Turns a decoded batch (the columns of [`Alignment::decode`] in that order) into one of the table.
    ///
    /// # Errors
    /// `Data` where a value does not fit the table's type.
    pub(crate) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let columns = self
            .origins
            .iter()
            .zip(self.schema.fields())
            .map(|(origin, field)| self.column(origin, field, batch))
            .collect::<Result<Vec<_>>>()?;
        // The row count is given because there may be no column to tell it.
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| error::decode(e, &self.file))
    }

    fn column(&self, origin: &Origin, field: &Field, batch: &RecordBatch) -> Result<ArrayRef> {
        let rows = batch.num_rows();
        let missing = || new_null_array(field.data_type(), rows);
        match origin {
            Origin::Missing => Ok(missing()),
            Origin::Constant(value) => {
                let zeros = UInt32Array::from(vec![0_u32; rows]);
                take(value, &zeros, None).map_err(|e| error::decode(e, &self.file))
            }
            Origin::Decoded(index) => {
                let Some(column) = batch.columns().get(*index) else { return Ok(missing()) };
                if column.data_type() == field.data_type() {
                    return Ok(Arc::clone(column));
                }
                convert(column, field.data_type())
                    .map_err(|e| error::decode(e, format!("{}, column {}", self.file, field.name())))
            }
        }
    }
}

/// Casts strictly. Times keep their instant, and naive ones are UTC.
fn convert(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let (DataType::Timestamp(..), DataType::Timestamp(unit, zone)) = (column.data_type(), to) else {
        return cast_with_options(column, to, &strict);
    };
    // Through the numbers beneath, which count from the epoch in UTC whatever the zone is. Arrow's own cast would look
    // the zone up by its name, which takes a database of zones.
    let from = column.data_type();
    let naive = with_zone(column, None)?;
    let naive = if *unit == unit_of(from) {
        naive
    } else {
        cast_with_options(&naive, &DataType::Timestamp(*unit, None), &strict)?
    };
    with_zone(&naive, zone.clone())
}

fn unit_of(data_type: &DataType) -> TimeUnit {
    match data_type {
        DataType::Timestamp(unit, _) => *unit,
        _ => TimeUnit::Microsecond,
    }
}

/// Relabels a column of timestamps.
fn with_zone(column: &ArrayRef, zone: Option<Arc<str>>) -> Result<ArrayRef, ArrowError> {
    let data_type = DataType::Timestamp(unit_of(column.data_type()), zone);
    let data = column.to_data().into_builder().data_type(data_type).build()?;
    Ok(make_array(data))
}
