//! JSON records into columns.
//!
//! Each record stands alone: one that is no JSON object, or has a value that does not go into its column without loss,
//! fails with its reason and costs the others nothing. Unknown keys are skipped, missing ones are null, of repeated ones
//! the last counts.

use std::borrow::Cow;
use std::fmt;

use arrow::array::{Array, BinaryArray};
use arrow::datatypes::{Fields, TimeUnit};
use headwater_core::Result;
use rustc_hash::FxHashMap;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::cells::{Cell, ColumnBuilder, Columns};
use super::framing;

/// Decodes records to these columns.
#[derive(Debug, Clone)]
pub(super) struct JsonDecoder {
    fields: Fields,
    places: FxHashMap<String, usize>,
    unit: Option<TimeUnit>,
    framed: bool,
}

impl JsonDecoder {
    /// A decoder for objects with these keys. `unit` is what numeric times count. Where records are `framed`, what
    /// stands before the object is stepped over.
    ///
    /// # Errors
    /// `Unsupported` for a type that JSON is not read to.
    pub(super) fn new(fields: Fields, unit: Option<TimeUnit>, framed: bool) -> Result<Self> {
        ColumnBuilder::new(&fields, unit, 0)?;
        let places = fields.iter().enumerate().map(|(place, field)| (field.name().clone(), place)).collect();
        Ok(Self { fields, places, unit, framed })
    }

    /// Decodes all records. Null ones become rows of nulls, and are the caller's to drop.
    ///
    /// # Errors
    /// Those of Arrow where columns outgrow it.
    pub(super) fn decode(&self, records: &BinaryArray) -> Result<Columns> {
        let mut builder = ColumnBuilder::new(&self.fields, self.unit, records.len())?;
        let mut cells: Vec<Cell<'_>> = Vec::with_capacity(self.fields.len());
        for record in records {
            let Some(record) = record else {
                builder.skip(None);
                continue;
            };
            cells.clear();
            cells.resize_with(self.fields.len(), || Cell::Null);
            // JSON begins with no zero byte: what is not framed is read as it is.
            let body = if self.framed { framing::open(record).map_or(record, |(_, body)| body) } else { record };
            match self.parse(body, &mut cells) {
                Ok(()) => builder.append(&cells),
                Err(reason) => builder.skip(Some(reason)),
            }
        }
        builder.finish()
    }

    fn parse<'a>(&self, record: &'a [u8], cells: &mut [Cell<'a>]) -> Result<(), String> {
        let mut deserializer = serde_json::Deserializer::from_slice(record);
        RecordSeed { decoder: self, cells }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end())
            .map_err(|error| format!("not a JSON object: {error}"))
    }
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
