//! The record formats: which columns each of them brings.

use std::path::Path;

use arrow::datatypes::SchemaRef;
use headwater_core::definitions::RecordFormat;
use headwater_core::{Error, Result};

/// What records of a format bring, under their own names.
#[derive(Debug)]
pub(crate) struct Described {
    /// The columns.
    pub(crate) schema: SchemaRef,
    /// For each column what makes other values of the same records, beside its type.
    pub(crate) notes: Vec<String>,
    /// What makes other records of the same bytes.
    pub(crate) identity: String,
}

/// The columns of records in a format other than JSON. Paths start from `folder`.
///
/// # Errors
/// `Unsupported` for a format that is not in this build; `Invalid` for a schema that is none; those of reading a
/// descriptor set.
#[cfg_attr(not(feature = "protobuf"), allow(unused_variables))]
pub(crate) fn describe(format: &RecordFormat, folder: &Path) -> Result<Described> {
    match format.kind.as_str() {
        #[cfg(feature = "avro")]
        "avro" => {
            let (schema, notes) = super::avro::describe(format.schema.as_deref().unwrap_or_default())?;
            Ok(Described { schema, notes, identity: String::new() })
        }
        #[cfg(feature = "protobuf")]
        "protobuf" => {
            let (schema, notes) = super::protobuf::describe(format, folder)?;
            let message = format.options.get("message").and_then(|message| message.as_str()).unwrap_or_default();
            Ok(Described { schema, notes, identity: format!(" as {message}") })
        }
        other => Err(missing(other)),
    }
}

/// The error for a format that this build does not decode.
pub(crate) fn missing(kind: &str) -> Error {
    Error::unsupported(format!(
        "this build does not decode the record format `{kind}`: build with the cargo feature `{kind}`"
    ))
}
