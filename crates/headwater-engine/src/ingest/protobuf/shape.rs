//! What columns are made of fields, and values of messages into cells.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use headwater_core::definitions::timestamp_type;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::ingest::cells::Cell;

/// How a field's values become a column's.
#[derive(Debug)]
pub(super) enum Shape {
    Bool,
    Int32,
    /// Also unsigned ones; what goes beyond 63 bits does not fit.
    Int64,
    Float32,
    Float64,
    Text,
    Bytes,
    /// Its names by number.
    Enum(BTreeMap<i32, String>),
    /// `google.protobuf.Timestamp`.
    Time,
    /// A message of one value, of the kind that `google.protobuf` has to tell nothing from zero.
    Wrapper(FieldDescriptor, Box<Shape>),
    List(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    Struct(Vec<(FieldDescriptor, Shape)>),
}

const WRAPPERS: [&str; 9] = [
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.StringValue",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
];

impl Shape {
    /// The shape of a field; `None` where no column can have it.
    pub(super) fn of(field: &FieldDescriptor) -> Option<Self> {
        Self::inside(field, &mut Vec::new())
    }

    /// `outer` are the messages that the field stands in.
    fn inside(field: &FieldDescriptor, outer: &mut Vec<MessageDescriptor>) -> Option<Self> {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return None };
            let key = Self::one(&entry.map_entry_key_field(), outer)?;
            let value = Self::one(&entry.map_entry_value_field(), outer)?;
            return Some(Self::Map(Box::new(key), Box::new(value)));
        }
        let one = Self::one(field, outer)?;
        Some(if field.is_list() { Self::List(Box::new(one)) } else { one })
    }

    fn one(field: &FieldDescriptor, outer: &mut Vec<MessageDescriptor>) -> Option<Self> {
        Some(match field.kind() {
            Kind::Bool => Self::Bool,
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Self::Int32,
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Self::Int64,
            Kind::Uint32 | Kind::Fixed32 | Kind::Uint64 | Kind::Fixed64 => Self::Int64,
            Kind::Float => Self::Float32,
            Kind::Double => Self::Float64,
            Kind::String => Self::Text,
            Kind::Bytes => Self::Bytes,
            Kind::Enum(of) => {
                // Of several names of a number the first counts.
                let mut names = BTreeMap::new();
                for value in of.values() {
                    names.entry(value.number()).or_insert_with(|| value.name().to_owned());
                }
                Self::Enum(names)
            }
            Kind::Message(of) if of.full_name() == "google.protobuf.Timestamp" => Self::Time,
            Kind::Message(of) if WRAPPERS.contains(&of.full_name()) => {
                let value = of.get_field(1)?;
                let shape = Self::one(&value, outer)?;
                Self::Wrapper(value, Box::new(shape))
            }
            Kind::Message(of) => {
                if outer.contains(&of) {
                    return None;
                }
                outer.push(of.clone());
                let fields = of.fields().map(|field| Some((field.clone(), Self::inside(&field, outer)?)));
                let fields = fields.collect::<Option<Vec<_>>>();
                outer.pop();
                Self::Struct(fields.filter(|fields| !fields.is_empty())?)
            }
        })
    }

    /// The type of the column.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Text | Self::Enum(_) => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Time => timestamp_type(),
            Self::Wrapper(_, inner) => inner.data_type(),
            Self::List(item) => DataType::List(Arc::new(Field::new("item", item.data_type(), true))),
            Self::Map(key, value) => {
                let entries = Fields::from(vec![
                    Field::new("key", key.data_type(), false),
                    Field::new("value", value.data_type(), true),
                ]);
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
            }
            Self::Struct(fields) => {
                let fields = fields.iter().map(|(field, shape)| Field::new(field.name(), shape.data_type(), true));
                DataType::Struct(fields.collect())
            }
        }
    }

    /// What a field without presence holds that was not sent.
    fn default(&self) -> Cell<'_> {
        match self {
            Self::Bool => Cell::Bool(false),
            Self::Int32 | Self::Int64 => Cell::Int(0),
            Self::Float32 | Self::Float64 => Cell::Float(0.0),
            Self::Text => Cell::Text(Cow::Borrowed("")),
            Self::Bytes => Cell::Bytes(&[]),
            Self::Enum(names) => name(names, 0),
            Self::Time | Self::Wrapper(..) | Self::Struct(_) => Cell::Null,
            Self::List(_) => Cell::List(Vec::new()),
            Self::Map(..) => Cell::Object(Vec::new()),
        }
    }

    fn cell<'m>(&'m self, value: &'m Value) -> Result<Cell<'m>, String> {
        Ok(match (self, value) {
            (Self::Enum(names), Value::EnumNumber(number)) => name(names, *number),
            (Self::Time, Value::Message(message)) => Cell::Time(micros(message)?),
            (Self::Wrapper(field, inner), Value::Message(message)) => {
                // The wrapper is there, so its value is.
                match cell_of(inner, field, message)? {
                    Cell::Null => inner.default(),
                    cell => cell,
                }
            }
            (Self::Struct(fields), Value::Message(message)) => {
                let entry = |(field, shape): &'m (FieldDescriptor, Shape)| {
                    let cell = cell_of(shape, field, message);
                    let cell = cell.map_err(|reason| format!("field `{}`: {reason}", field.name()))?;
                    Ok((Cow::Borrowed(field.name()), cell))
                };
                Cell::Object(fields.iter().map(entry).collect::<Result<_, String>>()?)
            }
            (Self::List(shape), Value::List(items)) => {
                let item = |(at, item)| shape.cell(item).map_err(|reason| format!("element {at}: {reason}"));
                Cell::List(items.iter().enumerate().map(item).collect::<Result<_, String>>()?)
            }
            (Self::Map(_, shape), Value::Map(entries)) => {
                // The map's own order is another one each time.
                let mut entries = entries.iter().collect::<Vec<_>>();
                entries.sort_unstable_by_key(|(key, _)| *key);
                let entry = |(key, value): (&'m MapKey, &'m Value)| Ok((key_text(key), shape.cell(value)?));
                Cell::Object(entries.into_iter().map(entry).collect::<Result<_, String>>()?)
            }
            (_, Value::Bool(value)) => Cell::Bool(*value),
            (_, Value::I32(value)) => Cell::Int(i64::from(*value)),
            (_, Value::I64(value)) => Cell::Int(*value),
            (_, Value::U32(value)) => Cell::Int(i64::from(*value)),
            (_, Value::U64(value)) => i64::try_from(*value).map_or(Cell::Big(*value), Cell::Int),
            (_, Value::F32(value)) => Cell::Float(f64::from(*value)),
            (_, Value::F64(value)) => Cell::Float(*value),
            (_, Value::String(value)) => Cell::Text(Cow::Borrowed(value)),
            (_, Value::Bytes(value)) => Cell::Bytes(value),
            _ => return Err("the value is not of its field's type".into()),
        })
    }
}

/// The value of a field: null where it was not sent and the field tells so, else its default.
pub(super) fn cell_of<'m>(
    shape: &'m Shape,
    field: &FieldDescriptor,
    message: &'m DynamicMessage,
) -> Result<Cell<'m>, String> {
    if message.has_field(field)
        && let Cow::Borrowed(value) = message.get_field(field)
    {
        return shape.cell(value);
    }
    Ok(if field.supports_presence() { Cell::Null } else { shape.default() })
}

fn name(names: &BTreeMap<i32, String>, number: i32) -> Cell<'_> {
    // A number that was added later has no name here.
    Cell::Text(names.get(&number).map_or_else(|| Cow::Owned(number.to_string()), |name| Cow::Borrowed(name.as_str())))
}

fn key_text(key: &MapKey) -> Cow<'_, str> {
    match key {
        MapKey::Bool(key) => Cow::Owned(key.to_string()),
        MapKey::I32(key) => Cow::Owned(key.to_string()),
        MapKey::I64(key) => Cow::Owned(key.to_string()),
        MapKey::U32(key) => Cow::Owned(key.to_string()),
        MapKey::U64(key) => Cow::Owned(key.to_string()),
        MapKey::String(key) => Cow::Borrowed(key),
    }
}

/// A `google.protobuf.Timestamp` in microseconds.
fn micros(message: &DynamicMessage) -> Result<i64, String> {
    let number = |field| message.get_field_by_number(field).map(|value| value.as_ref().clone());
    let seconds = number(1).and_then(|value| value.as_i64()).unwrap_or_default();
    let nanos = number(2).and_then(|value| value.as_i32()).unwrap_or_default();
    let shown = || format!("time `{seconds} s {nanos} ns`");
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(format!("{} has nanoseconds beyond a second", shown()));
    }
    if nanos % 1_000 != 0 {
        return Err(format!("{} is finer than a microsecond", shown()));
    }
    let micros = seconds.checked_mul(1_000_000).and_then(|micros| micros.checked_add(i64::from(nanos / 1_000)));
    micros.ok_or_else(|| format!("{} does not go into 64 bits of microseconds", shown()))
}
