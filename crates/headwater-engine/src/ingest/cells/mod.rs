//! Values of records into columns.
//!
//! A record is a list of cells, one for each column; a cell goes into its column without loss, or its record fails.

mod values;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int8Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, MapArray, StringBuilder, StructArray,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};
use headwater_core::{Error, Result};

use self::values::{binary, boolean, date, decimal, float, integer, misfit, text, time};
use crate::cast::{Failure, shorten};

/// A value of a record.
#[derive(Debug)]
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number beyond `i64`.
    Big(u64),
    Float(f64),
    Text(Cow<'a, str>),
    #[cfg(feature = "protobuf")]
    Bytes(&'a [u8]),
    /// Microseconds since the epoch.
    #[cfg(feature = "protobuf")]
    Time(i64),
    List(Vec<Cell<'a>>),
    /// Of repeated keys the last counts.
    Object(Vec<(Cow<'a, str>, Cell<'a>)>),
}

/// What was decoded: one row for each record, also for those that failed.
#[derive(Debug)]
pub(super) struct Columns {
    /// The columns, in order of the fields.
    pub(super) columns: Vec<ArrayRef>,
    /// The records that failed, ascending.
    pub(super) failures: Vec<Failure>,
}

/// Columns that grow record by record.
#[derive(Debug)]
pub(super) struct ColumnBuilder<'f> {
    fields: &'f Fields,
    columns: Vec<Column>,
    unit: Option<TimeUnit>,
    row: usize,
    failures: Vec<Failure>,
}

impl<'f> ColumnBuilder<'f> {
    /// Empty columns for about so many records. `unit` is what numbers count where they stand for times.
    ///
    /// # Errors
    /// `Unsupported` for a type that records are not read to.
    pub(super) fn new(fields: &'f Fields, unit: Option<TimeUnit>, rows: usize) -> Result<Self> {
        let columns = fields.iter().map(|field| Column::new(field, rows)).collect::<Result<_>>()?;
        Ok(Self { fields, columns, unit, row: 0, failures: Vec::new() })
    }

    /// Appends a record, given by a cell for each column. Its first fault is its failure.
    pub(super) fn append(&mut self, cells: &[Cell<'_>]) {
        let mut fault = None;
        for ((column, field), cell) in self.columns.iter_mut().zip(self.fields).zip(cells) {
            let outcome = column.append(cell, self.unit);
            let outcome = match cell {
                Cell::Null if !field.is_nullable() => Err("must not be null".to_owned()),
                _ => outcome,
            };
            if let Err(reason) = outcome {
                fault.get_or_insert_with(|| format!("column `{}`: {reason}", field.name()));
            }
        }
        self.end(fault);
    }

    /// Appends a row of nulls for a record that is none, or has failed for this reason.
    pub(super) fn skip(&mut self, reason: Option<String>) {
        for column in &mut self.columns {
            // A null goes into every column.
            let _ = column.append(&Cell::Null, self.unit);
        }
        self.end(reason);
    }

    fn end(&mut self, fault: Option<String>) {
        if let Some(reason) = fault {
            self.failures.push(Failure { row: self.row, reason });
        }
        self.row += 1;
    }

    /// The columns.
    ///
    /// # Errors
    /// Those of Arrow where columns outgrow it.
    pub(super) fn finish(self) -> Result<Columns> {
        let columns = self.columns.into_iter().map(Column::finish).collect::<Result<Vec<_>>>()?;
        Ok(Columns { columns, failures: self.failures })
    }
}

/// A column that grows by one value at a time. A value that does not fit is appended as a null and reported.
#[derive(Debug)]
enum Column {
    Bool(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Time(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Decimal(Decimal128Builder, u8, i8),
    List { item: FieldRef, inner: Box<Column>, offsets: Vec<i32>, valid: Vec<bool> },
    Struct { fields: Fields, inner: Vec<Column>, valid: Vec<bool> },
    Map { entries: FieldRef, keys: Box<Column>, values: Box<Column>, offsets: Vec<i32>, valid: Vec<bool> },
}

impl Column {
    fn new(field: &FieldRef, rows: usize) -> Result<Self> {
        let unsupported = || {
            Error::unsupported(format!(
                "column `{}`: records are not decoded to type {}",
                field.name(),
                field.data_type()
            ))
        };
        Ok(match field.data_type() {
            DataType::Boolean => Self::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::Int8 => Self::Int8(Int8Builder::with_capacity(rows)),
            DataType::Int16 => Self::Int16(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            DataType::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            DataType::Utf8 => Self::Text(StringBuilder::with_capacity(rows, rows * 16)),
            DataType::Binary => Self::Binary(BinaryBuilder::with_capacity(rows, rows * 16)),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Self::Time(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone_opt(zone.clone()))
            }
            DataType::Date32 => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Decimal128(precision, scale) => Self::Decimal(
                Decimal128Builder::with_capacity(rows).with_precision_and_scale(*precision, *scale)?,
                *precision,
                *scale,
            ),
            DataType::List(item) => Self::List {
                item: Arc::clone(item),
                inner: Box::new(Self::new(item, rows)?),
                offsets: vec![0],
                valid: Vec::with_capacity(rows),
            },
            DataType::Struct(fields) => Self::Struct {
                fields: fields.clone(),
                inner: fields.iter().map(|field| Self::new(field, rows)).collect::<Result<_>>()?,
                valid: Vec::with_capacity(rows),
            },
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else { return Err(unsupported()) };
                let (Some(key), Some(value)) = (fields.first(), fields.get(1)) else { return Err(unsupported()) };
                Self::Map {
                    entries: Arc::clone(entries),
                    keys: Box::new(Self::new(key, rows)?),
                    values: Box::new(Self::new(value, rows)?),
                    offsets: vec![0],
                    valid: Vec::with_capacity(rows),
                }
            }
            _ => return Err(unsupported()),
        })
    }

    /// Appends exactly one value, a null where it returns an error.
    fn append(&mut self, cell: &Cell<'_>, unit: Option<TimeUnit>) -> Result<(), String> {
        let mut outcome = Ok(());
        macro_rules! append {
            ($builder:expr, $convert:expr) => {{
                let convert = $convert;
                match cell {
                    Cell::Null => $builder.append_null(),
                    cell => match convert(cell) {
                        Ok(value) => $builder.append_value(value),
                        Err(reason) => {
                            outcome = Err(reason);
                            $builder.append_null();
                        }
                    },
                }
            }};
        }
        match self {
            Self::Bool(builder) => append!(builder, boolean),
            Self::Int8(builder) => append!(builder, |cell| integer(cell, "int8")),
            Self::Int16(builder) => append!(builder, |cell| integer(cell, "int16")),
            Self::Int32(builder) => append!(builder, |cell| integer(cell, "int32")),
            Self::Int64(builder) => append!(builder, |cell| integer(cell, "int64")),
            Self::Float32(builder) => append!(builder, |cell: &Cell<'_>| {
                let wide = float(cell)?;
                #[allow(clippy::cast_possible_truncation)] // Rounding is meant; what becomes infinite fails.
                let narrow = wide as f32;
                if narrow.is_infinite() && wide.is_finite() { Err(misfit(cell, "float32")) } else { Ok(narrow) }
            }),
            Self::Float64(builder) => append!(builder, float),
            Self::Text(builder) => append!(builder, text),
            Self::Binary(builder) => append!(builder, binary),
            Self::Time(builder) => append!(builder, |cell| time(cell, unit)),
            Self::Date(builder) => append!(builder, date),
            Self::Decimal(builder, precision, scale) => {
                append!(builder, |cell| decimal(cell, *precision, *scale));
            }
            Self::List { inner, offsets, valid, .. } => {
                let items = match cell {
                    Cell::Null => None,
                    Cell::List(items) => Some(items),
                    _ => {
                        outcome = Err(misfit(cell, "a list"));
                        None
                    }
                };
                valid.push(items.is_some());
                for (at, item) in items.into_iter().flatten().enumerate() {
                    if let Err(reason) = inner.append(item, unit) {
                        outcome = Err(format!("element {at}: {reason}"));
                    }
                }
                offsets.push(next_offset(offsets, items.map_or(0, Vec::len)));
            }
            Self::Struct { fields, inner, valid } => {
                let entries = match cell {
                    Cell::Null => None,
                    Cell::Object(entries) => Some(entries),
                    _ => {
                        outcome = Err(misfit(cell, "an object"));
                        None
                    }
                };
                valid.push(entries.is_some());
                for (column, field) in inner.iter_mut().zip(fields.iter()) {
                    let found = entries.into_iter().flatten().rev().find(|(key, _)| key == field.name());
                    if let Err(reason) = column.append(found.map_or(&Cell::Null, |(_, value)| value), unit) {
                        outcome = Err(format!("field `{}`: {reason}", field.name()));
                    }
                }
            }
            Self::Map { keys, values, offsets, valid, .. } => {
                let entries = match cell {
                    Cell::Null => None,
                    Cell::Object(entries) => Some(entries),
                    _ => {
                        outcome = Err(misfit(cell, "an object"));
                        None
                    }
                };
                valid.push(entries.is_some());
                for (key, value) in entries.into_iter().flatten() {
                    let key_outcome = keys.append(&Cell::Text(Cow::Borrowed(key)), unit);
                    if let Err(reason) = values.append(value, unit).and(key_outcome) {
                        outcome = Err(format!("key `{}`: {reason}", shorten(key)));
                    }
                }
                offsets.push(next_offset(offsets, entries.map_or(0, Vec::len)));
            }
        }
        outcome
    }

    fn finish(self) -> Result<ArrayRef> {
        Ok(match self {
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Int8(mut builder) => Arc::new(builder.finish()),
            Self::Int16(mut builder) => Arc::new(builder.finish()),
            Self::Int32(mut builder) => Arc::new(builder.finish()),
            Self::Int64(mut builder) => Arc::new(builder.finish()),
            Self::Float32(mut builder) => Arc::new(builder.finish()),
            Self::Float64(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Binary(mut builder) => Arc::new(builder.finish()),
            Self::Time(mut builder) => Arc::new(builder.finish()),
            Self::Date(mut builder) => Arc::new(builder.finish()),
            Self::Decimal(mut builder, ..) => Arc::new(builder.finish()),
            Self::List { item, inner, offsets, valid } => Arc::new(ListArray::try_new(
                item,
                OffsetBuffer::new(offsets.into()),
                inner.finish()?,
                Some(NullBuffer::from(valid)),
            )?),
            Self::Struct { fields, inner, valid } => {
                let rows = valid.len();
                let inner = inner.into_iter().map(Self::finish).collect::<Result<Vec<_>>>()?;
                let nulls = Some(NullBuffer::from(valid));
                Arc::new(StructArray::try_new_with_length(fields, inner, nulls, rows)?)
            }
            Self::Map { entries, keys, values, offsets, valid } => {
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(Error::unexpected("a map's entries are no struct"));
                };
                let pairs = StructArray::try_new(fields.clone(), vec![keys.finish()?, values.finish()?], None)?;
                let nulls = Some(NullBuffer::from(valid));
                Arc::new(MapArray::try_new(entries, OffsetBuffer::new(offsets.into()), pairs, nulls, false)?)
            }
        })
    }
}

/// Batches are bounded far below what 32 bits hold.
fn next_offset(offsets: &[i32], count: usize) -> i32 {
    offsets.last().copied().unwrap_or(0).saturating_add(i32::try_from(count).unwrap_or(i32::MAX))
}
