//! Avro records into columns.
//!
//! A record is read with its writer's schema and resolved to the reader's, the `schema` of the definition, as Avro's
//! specification has it: fields by name and alias, added ones by their default, numbers promoted. Where the stream has a
//! registry, a record names its writer's schema; otherwise the reader's schema is the writer's too.
//!
//! Records of one writer are decoded together. The decoder is of no use after an error, for it keeps half of a record:
//! then the records before the one at fault are decoded again without it.

mod schema;
#[cfg(test)]
mod tests;
mod writers;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BinaryArray, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use headwater_core::stream::SchemaRegistry;
use headwater_core::{Error, Result};

use self::writers::Known;
pub(super) use self::writers::Writers;
use super::framing;
use crate::cast::Failure;

/// The columns that records bring, and for each what its schema says beside its type.
///
/// # Errors
/// `Invalid` for a schema that is none, or none of a record.
pub(crate) fn describe(text: &str) -> Result<(SchemaRef, Vec<String>)> {
    let wrong = |reason: String| Error::invalid(format!("`record_format.schema`: {reason}"));
    let text = schema::whole(text, &[]).map_err(wrong)?;
    let decoder = Writer::new(text.clone(), &text).and_then(|writer| writer.decoder()).map_err(wrong)?;
    let fields = decoder.schema();
    let fields =
        fields.fields().iter().map(|field| Field::new(field.name(), schema::plain_type(field.data_type()), true));
    let fields = fields.collect::<Vec<_>>();
    let notes = schema::notes(&text, &fields);
    Ok((Arc::new(Schema::new(fields)), notes))
}

/// Decodes Avro records.
#[derive(Debug)]
pub(super) struct AvroDecoder {
    reader: String,
    origin: Origin,
}

/// Where writers' schemas come from.
#[derive(Debug)]
enum Origin {
    /// Records name them.
    Registry(Arc<dyn SchemaRegistry>, Mutex<Known>),
    /// It is the reader's. Records may begin with this header, that of a single object.
    Reader(Arc<Writer>, [u8; 10]),
}

/// Records without what stands before them, with their places in the batch.
type Bodies<'r> = Vec<(usize, &'r [u8])>;

/// Rows with the columns of the reader's schema, and the record that each came from.
#[derive(Debug)]
pub(super) struct AvroRows {
    pub(super) rows: RecordBatch,
    pub(super) records: Vec<usize>,
}

impl AvroDecoder {
    /// A decoder for records in the reader's schema `text`.
    ///
    /// # Errors
    /// `Invalid` for a schema that is none.
    pub(super) fn new(text: &str, registry: Option<Arc<dyn SchemaRegistry>>) -> Result<Self> {
        let wrong = |reason: String| Error::invalid(format!("`record_format.schema`: {reason}"));
        let reader = schema::whole(text, &[]).map_err(wrong)?;
        let origin = match registry {
            Some(registry) => Origin::Registry(registry, Mutex::default()),
            None => {
                let fingerprint = AvroSchema::new(text.to_owned()).fingerprint(FingerprintAlgorithm::Rabin);
                let Fingerprint::Rabin(fingerprint) = fingerprint.map_err(|error| wrong(error.to_string()))? else {
                    return Err(Error::unexpected("a Rabin fingerprint is none"));
                };
                let mut header = [0xc3, 0x01, 0, 0, 0, 0, 0, 0, 0, 0];
                for (to, from) in header.iter_mut().skip(2).zip(fingerprint.to_le_bytes()) {
                    *to = from;
                }
                Origin::Reader(Arc::new(Writer::new(reader.clone(), &reader).map_err(wrong)?), header)
            }
        };
        Ok(Self { reader, origin })
    }

    /// The writers' schemas of a batch, if they are all at hand.
    pub(super) fn writers(&self, records: &BinaryArray) -> Option<Writers> {
        match &self.origin {
            Origin::Reader(..) => Some(Writers::default()),
            Origin::Registry(_, known) => {
                known.lock().unwrap_or_else(PoisonError::into_inner).of(&writers::named(records))
            }
        }
    }

    /// Asks the registry for the writers' schemas of a batch that are not at hand.
    ///
    /// # Errors
    /// The registry's. A schema that it does not know, or that cannot be read with the reader's, is no error.
    pub(super) async fn ask(&self, records: &BinaryArray) -> Result<Writers> {
        let Origin::Registry(registry, known) = &self.origin else { return Ok(Writers::default()) };
        let named = writers::named(records);
        let missing = known.lock().unwrap_or_else(PoisonError::into_inner).missing(&named);
        let found = writers::ask(registry.as_ref(), missing, &self.reader).await?;
        Ok(known.lock().unwrap_or_else(PoisonError::into_inner).learn(&named, found))
    }

    /// Decodes all records that can be. Null ones are left out.
    ///
    /// # Errors
    /// Those of Arrow where columns outgrow it.
    pub(super) fn decode(&self, records: &BinaryArray, writers: &Writers) -> Result<(Vec<AvroRows>, Vec<Failure>)> {
        let mut failures = Vec::new();
        let mut groups: Vec<(Arc<Writer>, Bodies<'_>)> = Vec::new();
        for (row, record) in records.iter().enumerate() {
            let Some(record) = record else { continue };
            let (writer, body) = match &self.origin {
                Origin::Reader(writer, header) => (Ok(writer), record.strip_prefix(header).unwrap_or(record)),
                Origin::Registry(..) => match framing::open(record) {
                    Some((id, body)) => (writers.get(id), body),
                    None => {
                        (Err("the record names no schema: it does not begin with a zero byte and a number"), record)
                    }
                },
            };
            match writer {
                // There are few writers, and mostly one.
                Ok(writer) => match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, writer)) {
                    Some((_, bodies)) => bodies.push((row, body)),
                    None => groups.push((Arc::clone(writer), vec![(row, body)])),
                },
                Err(reason) => failures.push(Failure { row, reason: reason.to_owned() }),
            }
        }
        let mut pieces = Vec::with_capacity(groups.len());
        for (writer, bodies) in &groups {
            writer.decode(bodies, &mut pieces, &mut failures)?;
        }
        failures.sort_by_key(|failure| failure.row);
        Ok((pieces, failures))
    }
}

/// A writer's schema, resolved to the reader's.
#[derive(Debug)]
struct Writer {
    schema: AvroSchema,
    reader: AvroSchema,
    /// Decoders that are not in use. Making one takes as long as decoding hundreds of records.
    idle: Mutex<Vec<Decoder>>,
}

impl Writer {
    /// Checks that the schemas fit each other.
    fn new(schema: String, reader: &str) -> Result<Self, String> {
        let reader = AvroSchema::new(schema::reader_for(reader, &schema)?);
        let writer = Self { schema: AvroSchema::new(schema), reader, idle: Mutex::default() };
        let first = writer.decoder()?;
        writer.idle().push(first);
        Ok(writer)
    }

    fn decoder(&self) -> Result<Decoder, String> {
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        store.set(Fingerprint::Id(NAME), self.schema.clone()).map_err(|error| error.to_string())?;
        ReaderBuilder::new()
            // More than a batch has: nothing is flushed before we say so.
            .with_batch_size(usize::MAX)
            .with_writer_schema_store(store)
            .with_reader_schema(self.reader.clone())
            .build_decoder()
            .map_err(|error| error.to_string())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Decoder>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decodes these records, given with their places in the batch.
    fn decode(&self, bodies: &[(usize, &[u8])], pieces: &mut Vec<AvroRows>, failures: &mut Vec<Failure>) -> Result<()> {
        // The next range is the last.
        let mut ranges = vec![bodies];
        while let Some(bodies) = ranges.pop() {
            if bodies.is_empty() {
                continue;
            }
            let idle = self.idle().pop();
            let mut decoder = match idle {
                Some(decoder) => decoder,
                None => self.decoder().map_err(Error::unexpected)?,
            };
            let fault =
                bodies.iter().enumerate().find_map(|(at, (_, body))| Some((at, feed(&mut decoder, body).err()?)));
            let fault = match fault {
                Some((at, reason)) => (Some(at), reason),
                None => match decoder.flush() {
                    Ok(Some(rows)) => {
                        self.idle().push(decoder);
                        pieces.push(AvroRows { rows, records: bodies.iter().map(|(row, _)| *row).collect() });
                        continue;
                    }
                    Ok(None) => return Err(Error::unexpected("records were decoded to no rows")),
                    // Text is only looked at now.
                    Err(error) => (None, error.to_string()),
                },
            };
            match (fault, bodies) {
                ((Some(at), reason), _) => {
                    let (before, from) = bodies.split_at(at);
                    failures.extend(from.first().map(|(row, _)| Failure { row: *row, reason }));
                    ranges.push(from.get(1..).unwrap_or_default());
                    ranges.push(before);
                }
                ((None, reason), [(row, _)]) => failures.push(Failure { row: *row, reason }),
                ((None, _), _) => {
                    let (left, right) = bodies.split_at(bodies.len() / 2);
                    ranges.push(right);
                    ranges.push(left);
                }
            }
        }
        Ok(())
    }
}

/// What stands before every record on its way to a decoder, which knows one writer's schema by this name.
const NAME: u32 = u32::MAX;
const HEADER: [u8; 5] = [0, 0xff, 0xff, 0xff, 0xff];

/// Decodes one record. After an error the decoder is of no use.
fn feed(decoder: &mut Decoder, body: &[u8]) -> Result<(), String> {
    let left = decoder.capacity();
    decoder.decode(&HEADER).map_err(|error| error.to_string())?;
    let outcome = decoder.decode(body);
    match (left - decoder.capacity(), outcome) {
        (1, Ok(read)) if read == body.len() => Ok(()),
        (0, Err(error)) => Err(format!("the record is not of its writer's schema: {error}")),
        (0, Ok(_)) => Err("the record is not of its writer's schema: it ends too early".into()),
        _ => Err("the record is not of its writer's schema: it goes on behind its end".into()),
    }
}
