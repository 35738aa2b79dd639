//! Protocol buffers into columns.
//!
//! The descriptor set says what a message holds; a field of another version of the message is found by its number, or
//! skipped. That is all the resolution protocol buffers have, so the writer's schema is never asked for.

mod shape;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, BinaryArray};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use headwater_core::definitions::RecordFormat;
use headwater_core::{Error, ErrorKind, Result};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor};

use self::shape::{Shape, cell_of};
use super::cells::{Cell, ColumnBuilder, Columns};
use super::framing;
use crate::project::suggest;

/// The columns that records bring, and for each what its message says beside its type. Fields without a type that a
/// column can have (messages without fields or that hold themselves) bring none.
///
/// # Errors
/// `NotFound` for a file or a message that is not there, `Invalid` for a file that is no descriptor set or a message
/// without columns.
pub(crate) fn describe(format: &RecordFormat, folder: &Path) -> Result<(SchemaRef, Vec<String>)> {
    let message = message(format, folder)?;
    let mut fields = Vec::new();
    let mut notes = Vec::new();
    for field in message.fields() {
        if let Some(shape) = Shape::of(&field) {
            fields.push(Field::new(field.name(), shape.data_type(), true));
            notes.push(format!(" number {}", field.number()));
        }
    }
    if fields.is_empty() {
        return Err(Error::invalid(format!(
            "the message `{}` has no field that a column can hold",
            message.full_name()
        )));
    }
    Ok((Arc::new(Schema::new(fields)), notes))
}

/// Reads the descriptor set.
fn message(format: &RecordFormat, folder: &Path) -> Result<MessageDescriptor> {
    let option = |key: &str| {
        let text = format.options.get(key).and_then(|value| value.as_str());
        text.ok_or_else(|| Error::invalid(format!("`record_format.{key}` is missing")))
    };
    let path = folder.join(option("descriptor_set")?);
    let shown = path.display();
    let bytes = std::fs::read(&path).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, format!("the descriptor set `{shown}` cannot be read")).with_source(error)
    })?;
    let pool = DescriptorPool::decode(bytes.as_slice()).map_err(|error| {
        let message = format!(
            "`{shown}` is no whole descriptor set; `protoc --include_imports --descriptor_set_out=FILE` writes one"
        );
        Error::invalid(message).with_source(error)
    })?;
    let name = option("message")?;
    pool.get_message_by_name(name).ok_or_else(|| {
        let messages = pool.all_messages().filter(|message| !message.is_map_entry());
        let names = messages.map(|message| message.full_name().to_owned()).collect::<Vec<_>>();
        let names = names.iter().map(String::as_str).filter(|name| !name.starts_with("google.protobuf."));
        Error::not_found(format!("the descriptor set `{shown}` has no message `{name}`{}", suggest(name, names)))
    })
}

/// Decodes messages of one type.
#[derive(Debug)]
pub(super) struct ProtobufDecoder {
    message: MessageDescriptor,
    fields: Fields,
    /// For each column its field.
    columns: Vec<(FieldDescriptor, Shape)>,
    /// Where the message stands in its file, for records that are framed.
    place: Option<Vec<i64>>,
}

impl ProtobufDecoder {
    /// A decoder to these columns, among those that [`describe`] gives.
    ///
    /// # Errors
    /// As [`describe`]; `Unsupported` for types that records are not read to.
    pub(super) fn new(fields: Fields, format: &RecordFormat, folder: &Path, framed: bool) -> Result<Self> {
        let message = message(format, folder)?;
        ColumnBuilder::new(&fields, None, 0)?;
        let columns = fields
            .iter()
            .map(|field| {
                let found = message.get_field_by_name(field.name());
                found.and_then(|field| Shape::of(&field).map(|shape| (field, shape))).ok_or_else(|| {
                    Error::invalid(format!("the message `{}` has no column `{}`", message.full_name(), field.name()))
                })
            })
            .collect::<Result<_>>()?;
        // A path names a field of the descriptor and an index in it, by turns.
        let place = message.path().iter().skip(1).step_by(2).map(|index| i64::from(*index)).collect();
        Ok(Self { message, fields, columns, place: framed.then_some(place) })
    }

    /// Decodes all records. Null ones become rows of nulls, and are the caller's to drop.
    ///
    /// # Errors
    /// Those of Arrow where columns outgrow it.
    pub(super) fn decode(&self, records: &BinaryArray) -> Result<Columns> {
        let mut builder = ColumnBuilder::new(&self.fields, None, records.len())?;
        for record in records {
            let Some(record) = record else {
                builder.skip(None);
                continue;
            };
            let message = self.body(record).and_then(|body| {
                DynamicMessage::decode(self.message.clone(), body)
                    .map_err(|error| format!("not a message `{}`: {error}", self.message.full_name()))
            });
            match message {
                Ok(message) => match self.cells(&message) {
                    Ok(cells) => builder.append(&cells),
                    Err(reason) => builder.skip(Some(reason)),
                },
                Err(reason) => builder.skip(Some(reason)),
            }
        }
        builder.finish()
    }

    fn cells<'m>(&'m self, message: &'m DynamicMessage) -> Result<Vec<Cell<'m>>, String> {
        let cell = |(field, shape): &'m (FieldDescriptor, Shape)| {
            cell_of(shape, field, message).map_err(|reason| format!("column `{}`: {reason}", field.name()))
        };
        self.columns.iter().map(cell).collect()
    }

    /// The message in a record. Behind the schema's number stand the indices of the message in its file, one for each
    /// level; a single zero is the file's first message.
    fn body<'r>(&self, record: &'r [u8]) -> Result<&'r [u8], String> {
        let Some(place) = &self.place else { return Ok(record) };
        let (_, mut rest) = framing::open(record)
            .ok_or("the record names no schema: it does not begin with a zero byte and a number")?;
        let cut = "the record ends within the indices of its message";
        let count = number(&mut rest).ok_or(cut)?;
        let named = match count {
            0 => vec![0],
            1..=64 => (0..count).map(|_| number(&mut rest)).collect::<Option<_>>().ok_or(cut)?,
            _ => return Err(format!("the record names its message by `{count}` indices")),
        };
        if named != *place {
            return Err(format!(
                "the record is of the message {named:?} of its writer's file, and `{}` is {place:?}",
                self.message.full_name()
            ));
        }
        Ok(rest)
    }
}

/// Reads a number: seven bits in a byte, the lowest first; the lowest of all is the sign.
fn number(bytes: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if *first < 0x80 {
            let half = i64::try_from(value >> 1).ok()?;
            return Some(if value & 1 == 1 { -half - 1 } else { half });
        }
    }
    None
}
