//! Values as JSON, the way Feast's feature server writes them, and join keys read from JSON.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use headwater_core::definitions::ValueType;
use headwater_core::{Error, Micros, Result};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::cast;

/// A time as RFC 3339 with `Z` and no, three or six digits of fraction.
pub fn format_time(time: Micros) -> String {
    match DateTime::from_timestamp_micros(time) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        // Some 260,000 years away: beyond what RFC 3339 can say.
        None => format!("{time}us"),
    }
}

/// One value of a column, to be serialised.
///
/// Integers are numbers; float32 is widened to double; infinities and NaN are the strings `Infinity`, `-Infinity` and
/// `NaN`; bytes are base64; times are RFC 3339.
#[derive(Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) array: &'a dyn Array,
    pub(crate) row: usize,
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { array, row } = *self;
        if array.is_null(row) {
            return serializer.serialize_unit();
        }
        match array.data_type() {
            DataType::Binary => serializer.serialize_str(&STANDARD.encode(array.as_binary::<i32>().value(row))),
            DataType::Utf8 => serializer.serialize_str(array.as_string::<i32>().value(row)),
            DataType::Int32 => serializer.serialize_i32(array.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => serializer.serialize_i64(array.as_primitive::<Int64Type>().value(row)),
            DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(row)), serializer),
            DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row), serializer),
            DataType::Boolean => serializer.serialize_bool(array.as_boolean().value(row)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                serializer.serialize_str(&format_time(array.as_primitive::<TimestampMicrosecondType>().value(row)))
            }
            DataType::List(_) => Cells(&array.as_list::<i32>().value(row)).serialize(serializer),
            other => Err(serde::ser::Error::custom(format!("{other} is not a feature type"))),
        }
    }
}

/// A column, to be serialised as an array.
#[derive(Debug)]
pub(crate) struct Cells<'a>(pub(crate) &'a ArrayRef);

impl Serialize for Cells<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for row in 0..self.0.len() {
            list.serialize_element(&Cell { array: self.0.as_ref(), row })?;
        }
        list.end()
    }
}

fn float<S: Serializer>(value: f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() {
        serializer.serialize_str("NaN")
    } else if value.is_infinite() {
        serializer.serialize_str(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        serializer.serialize_f64(value)
    }
}

/// Columns of join keys as JSON has them: `{"driver_id": [1001, 1002]}`. Keeps the order in which they were given.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EntityColumns(pub Vec<(String, Vec<Value>)>);

impl EntityColumns {
    /// Adds a column.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>, values: impl IntoIterator<Item = impl Into<Value>>) -> Self {
        self.0.push((name.into(), values.into_iter().map(Into::into).collect()));
        self
    }
}

impl<'de> Deserialize<'de> for EntityColumns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;

        impl<'de> Visitor<'de> for Columns {
            type Value = EntityColumns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of arrays, such as {\"driver_id\": [1001, 1002]}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut columns: Vec<(String, Vec<Value>)> = Vec::new();
                while let Some((name, values)) = map.next_entry::<String, Vec<Value>>()? {
                    if columns.iter().any(|(known, _)| *known == name) {
                        return Err(serde::de::Error::custom(format!("`{name}` is given twice")));
                    }
                    columns.push((name, values));
                }
                Ok(EntityColumns(columns))
            }
        }

        deserializer.deserialize_map(Columns)
    }
}

/// Reads a column of join keys. The JSON type has to be the key's: numbers for numbers (a whole one for an integer),
/// strings for strings, base64 for bytes, RFC 3339 for times. Nulls stay nulls.
///
/// # Errors
/// `Invalid`, naming the key, the row and the value.
pub(crate) fn read_key(name: &str, value_type: &ValueType, values: &[Value]) -> Result<ArrayRef> {
    fn read<T, A: FromIterator<Option<T>>>(
        name: &str,
        value_type: &ValueType,
        values: &[Value],
        cell: impl Fn(&Value) -> Option<T>,
    ) -> Result<A> {
        values
            .iter()
            .enumerate()
            .map(|(row, value)| match value {
                Value::Null => Ok(None),
                value => cell(value).map(Some).ok_or_else(|| {
                    Error::invalid(format!("join key `{name}`, row {row}: `{value}` is no `{value_type}`"))
                }),
            })
            .collect()
    }
    Ok(match value_type {
        ValueType::Bytes => {
            let decode = |value: &Value| value.as_str().and_then(|text| STANDARD.decode(text).ok());
            Arc::new(read::<_, BinaryArray>(name, value_type, values, decode)?)
        }
        ValueType::String => {
            Arc::new(read::<_, StringArray>(name, value_type, values, |value| value.as_str().map(str::to_owned))?)
        }
        ValueType::Int32 => {
            let narrow = |value: &Value| integer(value).and_then(|value| i32::try_from(value).ok());
            Arc::new(read::<_, Int32Array>(name, value_type, values, narrow)?)
        }
        ValueType::Int64 => Arc::new(read::<_, Int64Array>(name, value_type, values, integer)?),
        ValueType::Float32 => {
            // What a float32 holds exactly, or the nearest to what was written in decimals; never infinity.
            #[allow(clippy::cast_possible_truncation)]
            let narrow = |value: &Value| value.as_f64().map(|value| value as f32).filter(|value| value.is_finite());
            Arc::new(read::<_, Float32Array>(name, value_type, values, narrow)?)
        }
        ValueType::Float64 => Arc::new(read::<_, Float64Array>(name, value_type, values, Value::as_f64)?),
        ValueType::Bool => Arc::new(read::<_, BooleanArray>(name, value_type, values, Value::as_bool)?),
        ValueType::UnixTimestamp => {
            let parse = |value: &Value| value.as_str().and_then(|text| parse_time(text).ok());
            Arc::new(read::<_, TimestampMicrosecondArray>(name, value_type, values, parse)?.with_timezone("UTC"))
        }
        ValueType::Array(_) => {
            return Err(Error::invalid(format!("join key `{name}` is a list; lists cannot be keys")));
        }
    })
}

/// A whole number, also where JSON writes it as `1001.0`.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let value = value.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0)?;
        // Below 2^53 every whole number is exact.
        #[allow(clippy::cast_possible_truncation)]
        Some(value as i64)
    })
}

/// Reads a time as people write it: RFC 3339, without a zone UTC, or a date alone.
///
/// # Errors
/// `Invalid`, saying what would be right.
pub fn parse_time(text: &str) -> Result<Micros> {
    cast::parse_time(text).map_err(|reason| {
        Error::invalid(format!(
            "{reason}: write `2026-01-31T08:30:00Z`; without a zone it is UTC, a date alone is its midnight"
        ))
    })
}
