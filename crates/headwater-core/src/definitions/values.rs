//! The types that features and keys can have.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The type of a feature or key, as Feast names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ValueType {
    /// Bytes.
    Bytes,
    /// UTF-8 text.
    String,
    /// 32-bit integers.
    Int32,
    /// 64-bit integers.
    Int64,
    /// 32-bit floats.
    Float32,
    /// 64-bit floats.
    Float64,
    /// Booleans.
    Bool,
    /// Microseconds since the epoch, UTC.
    UnixTimestamp,
    /// Lists of one of the others. Written `array(string)`.
    Array(Box<ValueType>),
}

impl ValueType {
    /// The names of the types that are no lists.
    pub const SCALARS: [&'static str; 8] =
        ["bytes", "string", "int32", "int64", "float32", "float64", "bool", "unix_timestamp"];

    /// Reads a type's name, in any case: `int64`, `array(string)`.
    ///
    /// # Errors
    /// `Invalid`, listing the types.
    pub fn parse(text: &str) -> Result<Self> {
        let name = text.trim().to_ascii_lowercase();
        if let Some(inner) = name.strip_prefix("array(").and_then(|rest| rest.strip_suffix(')')) {
            let inner = Self::parse(inner)?;
            if matches!(inner, Self::Array(_)) {
                return Err(Error::invalid(format!("`{text}`: lists of lists are not a feature type")));
            }
            return Ok(Self::Array(Box::new(inner)));
        }
        Ok(match name.as_str() {
            "bytes" => Self::Bytes,
            "string" => Self::String,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "float32" => Self::Float32,
            "float64" => Self::Float64,
            "bool" => Self::Bool,
            "unix_timestamp" => Self::UnixTimestamp,
            _ => {
                return Err(Error::invalid(format!(
                    "`{text}` is not a type; there are {} and lists of them such as `array(string)`",
                    Self::SCALARS.map(|name| format!("`{name}`")).join(", ")
                )));
            }
        })
    }

    /// The Arrow type of its values.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Bytes => DataType::Binary,
            Self::String => DataType::Utf8,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::UnixTimestamp => timestamp_type(),
            Self::Array(inner) => DataType::List(Arc::new(ArrowField::new("item", inner.to_arrow(), true))),
        }
    }
}

/// The Arrow type of every time in Headwater: `timestamp[us, UTC]`.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => f.write_str("bytes"),
            Self::String => f.write_str("string"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::Float32 => f.write_str("float32"),
            Self::Float64 => f.write_str("float64"),
            Self::Bool => f.write_str("bool"),
            Self::UnixTimestamp => f.write_str("unix_timestamp"),
            Self::Array(inner) => write!(f, "array({inner})"),
        }
    }
}

impl TryFrom<String> for ValueType {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<ValueType> for String {
    fn from(value: ValueType) -> Self {
        value.to_string()
    }
}
