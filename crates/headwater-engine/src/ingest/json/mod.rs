//! JSON records into columns.
//!
//! Each record stands alone: one that is no JSON object, or has a value that does not go into its column without loss,
//! fails with its reason and costs the others nothing. Unknown keys are skipped, missing ones are null, of repeated ones
//! the last counts.

mod values;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, MapArray, StringBuilder,
    StructArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};
use headwater_core::{Error, Result};
use rustc_hash::FxHashMap;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use self::values::{base64, boolean, date, decimal, float, integer, misfit, text, time};
use crate::cast::{Failure, shorten};

/// Decodes records to these columns.
#[derive(Debug, Clone)]
pub(super) struct JsonDecoder {
    fields: Fields,
    places: FxHashMap<String, usize>,
    unit: Option<TimeUnit>,
}

/// What was decoded: one row for each record, also for those that failed.
#[derive(Debug)]
pub(super) struct JsonColumns {
    /// The columns, in order of the fields.
    pub(super) columns: Vec<ArrayRef>,
    /// The records that failed, ascending.
    pub(super) failures: Vec<Failure>,
}

impl JsonDecoder {
    /// A decoder for objects with these keys. `unit` is what numeric times count.
    ///
    /// # Errors
    /// `Unsupported` for a type that JSON is not read to.
    pub(super) fn new(fields: Fields, unit: Option<TimeUnit>) -> Result<Self> {
        for field in &fields {
            Column::new(field, 0)?;
        }
        let places = fields.iter().enumerate().map(|(place, field)| (field.name().clone(), place)).collect();
        Ok(Self { fields, places, unit })
    }

    /// Decodes all records. Null ones become rows of nulls, and are the caller's to drop.
    ///
    /// # Errors
    /// Those of Arrow where columns outgrow it.
    pub(super) fn decode(&self, records: &BinaryArray) -> Result<JsonColumns> {
        let mut columns =
            self.fields.iter().map(|field| Column::new(field, records.len())).collect::<Result<Vec<_>>>()?;
        let mut failures = Vec::new();
        let mut cells: Vec<Cell<'_>> = Vec::with_capacity(self.fields.len());
        for (row, record) in records.iter().enumerate() {
            cells.clear();
            cells.resize_with(self.fields.len(), || Cell::Null);
            let mut fault = None;
            if let Some(record) = record
                && let Err(reason) = self.parse(record, &mut cells)
            {
                fault = Some(reason);
                cells.iter_mut().for_each(|cell| *cell = Cell::Null);
            }
            for ((column, field), cell) in columns.iter_mut().zip(&self.fields).zip(&cells) {
                let outcome = column.append(cell, self.unit);
                let outcome = match cell {
                    Cell::Null if !field.is_nullable() && record.is_some() => Err("must not be null".to_owned()),
                    _ => outcome,
                };
                if let Err(reason) = outcome {
                    fault.get_or_insert_with(|| format!("column `{}`: {reason}", field.name()));
                }
            }
            if let Some(reason) = fault {
                failures.push(Failure { row, reason });
            }
        }
        let columns = columns.into_iter().map(Column::finish).collect::<Result<Vec<_>>>()?;
        Ok(JsonColumns { columns, failures })
    }

    fn parse<'a>(&self, record: &'a [u8], cells: &mut [Cell<'a>]) -> Result<(), String> {
        let mut deserializer = serde_json::Deserializer::from_slice(record);
        RecordSeed { decoder: self, cells }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end())
            .map_err(|error| format!("not a JSON object: {error}"))
    }
}

/// A value as JSON has it.
#[derive(Debug)]
enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number beyond `i64`.
    Big(u64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Cell<'a>>),
    Object(Vec<(Cow<'a, str>, Cell<'a>)>),
}

struct RecordSeed<'s, 'a> {
    decoder: &'s JsonDecoder,
    cells: &'s mut [Cell<'a>],
}

impl<'de> DeserializeSeed<'de> for RecordSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Records mostly have their keys in order of the columns.
        let mut next = 0;
        while let Some(Text(key)) = map.next_key()? {
            let expected = self.decoder.fields.get(next).filter(|field| *field.name() == key).map(|_| next);
            match expected.or_else(|| self.decoder.places.get(key.as_ref()).copied()) {
                Some(place) => {
                    let value = map.next_value()?;
                    if let Some(cell) = self.cells.get_mut(place) {
                        *cell = value;
                    }
                    next = place + 1;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Text that is borrowed where it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Cell<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell<'de>, E> {
        Ok(Cell::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell<'de>, E> {
        Ok(Cell::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell<'de>, E> {
        Ok(i64::try_from(value).map_or(Cell::Big(value), Cell::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell<'de>, E> {
        Ok(Cell::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Cell::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some((Text(key), value)) = map.next_entry()? {
            entries.push((key, value));
        }
        Ok(Cell::Object(entries))
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
            Error::unsupported(format!("column `{}`: JSON is not decoded to type {}", field.name(), field.data_type()))
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
            Self::Binary(builder) => append!(builder, |cell: &Cell<'_>| match cell {
                Cell::Text(text) => base64(text).ok_or_else(|| misfit(cell, "bytes (base64)")),
                _ => Err(misfit(cell, "bytes (base64)")),
            }),
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
