//! Packed rows back into columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, ListArray,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::Field as ArrowField;
use headwater_core::definitions::ValueType;
use headwater_core::{Error, ErrorKind, Micros, Result};

use super::{FORMAT_VERSION, TOMBSTONE, name_hash, tag};
use crate::view::View;

/// Reads the features that are asked for out of packed rows.
#[derive(Debug, Clone)]
pub(crate) struct RowDecoder {
    /// What is asked for, in order of the view: name hash, tag, type, place in the answer.
    asked: Vec<(u32, u8, ValueType)>,
    /// The view's features in order, as rows usually have them: name hash → place in the answer.
    layout: Vec<(u32, Option<usize>)>,
    /// Whether a value of another type than asked is damage, or merely of another generation.
    strict: bool,
}

/// Columns that grow by one packed row at a time.
#[derive(Debug)]
pub(crate) struct FeatureColumns<'a> {
    decoder: &'a RowDecoder,
    builders: Vec<Builder>,
    found: Vec<bool>,
}

impl RowDecoder {
    /// A decoder for these features, given by their index in [`View::features`], in the order wanted.
    ///
    /// `strict` says that the rows are of the view's own generation: a value of another type is then damage. Otherwise
    /// it reads as null.
    pub(crate) fn new(view: &View, features: &[usize], strict: bool) -> Self {
        let asked: Vec<_> = features
            .iter()
            .filter_map(|index| view.features.get(*index))
            .map(|feature| (name_hash(&feature.name), tag::of(&feature.dtype), feature.dtype.clone()))
            .collect();
        let layout = view
            .features
            .iter()
            .map(|feature| {
                let hash = name_hash(&feature.name);
                (hash, asked.iter().position(|(asked, ..)| *asked == hash))
            })
            .collect();
        Self { asked, layout, strict }
    }

    /// Empty columns.
    pub(crate) fn columns(&self, capacity: usize) -> FeatureColumns<'_> {
        FeatureColumns {
            decoder: self,
            builders: self.asked.iter().map(|(_, _, value_type)| Builder::new(value_type, capacity)).collect(),
            found: vec![false; self.asked.len()],
        }
    }

    /// Whether a packed row says that its entity is gone: then it is as if there were no row.
    pub(crate) fn is_tombstone(value: &[u8]) -> bool {
        value.first() == Some(&TOMBSTONE)
    }

    /// The event time of a packed row.
    ///
    /// # Errors
    /// As [`FeatureColumns::append`].
    pub(crate) fn event_time(value: &[u8]) -> Result<Micros> {
        Reader(value).header()
    }

    fn place(&self, index: usize, hash: u32) -> Option<usize> {
        match self.layout.get(index) {
            Some((expected, place)) if *expected == hash => *place,
            _ => self.layout.iter().find(|(other, _)| *other == hash).and_then(|(_, place)| *place),
        }
    }
}

impl FeatureColumns<'_> {
    /// Appends the features of a packed row. Those that it lacks are null.
    ///
    /// # Errors
    /// `FormatVersion` for a row of an unknown version, `Corrupt` for a damaged one. The columns are then of no use.
    pub(crate) fn append(&mut self, value: &[u8]) -> Result<()> {
        let mut reader = Reader(value);
        reader.header()?;
        self.found.fill(false);
        let mut index = 0;
        while !reader.0.is_empty() {
            let hash = u32::from_le_bytes(reader.array()?);
            let tag = reader.byte()?;
            match self.decoder.place(index, hash) {
                Some(place) => {
                    let builder = self.builders.get_mut(place).ok_or_else(damaged)?;
                    let asked = self.decoder.asked.get(place).map(|(_, tag, _)| *tag);
                    if self.found.get(place).copied().unwrap_or(true) {
                        return Err(damaged());
                    }
                    if tag == tag::NULL {
                        builder.append_null();
                    } else if Some(tag) == asked {
                        builder.append(&mut reader)?;
                    } else if self.decoder.strict {
                        return Err(damaged());
                    } else {
                        reader.skip(tag)?;
                        builder.append_null();
                    }
                    if let Some(found) = self.found.get_mut(place) {
                        *found = true;
                    }
                }
                None => reader.skip(tag)?,
            }
            index += 1;
        }
        for (builder, found) in self.builders.iter_mut().zip(&self.found) {
            if !found {
                builder.append_null();
            }
        }
        Ok(())
    }

    /// Appends a null to every column.
    pub(crate) fn append_null(&mut self) {
        self.builders.iter_mut().for_each(Builder::append_null);
    }

    /// The columns.
    pub(crate) fn finish(self) -> Vec<ArrayRef> {
        self.builders.into_iter().map(Builder::finish).collect()
    }
}

fn damaged() -> Error {
    Error::corrupt("a packed online row is damaged")
}

/// The rest of a packed row.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn header(&mut self) -> Result<Micros> {
        match self.byte()? {
            FORMAT_VERSION | TOMBSTONE => Ok(i64::from_le_bytes(self.array()?)),
            other => Err(Error::new(
                ErrorKind::FormatVersion,
                format!("an online row has format version `{other}`; this release knows `{FORMAT_VERSION}`"),
            )),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count).ok_or_else(damaged)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| damaged())
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn length(&mut self) -> Result<usize> {
        let mut length: u64 = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            length |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(length).map_err(|_| damaged());
            }
        }
        Err(damaged())
    }

    fn delimited(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    /// Steps over a value.
    fn skip(&mut self, tag: u8) -> Result<()> {
        match tag {
            tag::NULL => {}
            1 | 2 | tag::LIST.. => {
                self.delimited()?;
            }
            3 | 5 => {
                self.take(4)?;
            }
            4 | 6 | 8 => {
                self.take(8)?;
            }
            7 => {
                self.byte()?;
            }
            _ => return Err(damaged()),
        }
        Ok(())
    }
}

/// One column that grows.
#[derive(Debug)]
pub(crate) enum Builder {
    Bytes(BinaryBuilder),
    Text(StringBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
    List { element: ValueType, offsets: Vec<i32>, valid: Vec<bool>, length: i32, inner: Box<Builder> },
}

impl Builder {
    pub(crate) fn new(value_type: &ValueType, capacity: usize) -> Self {
        match value_type {
            ValueType::Bytes => Self::Bytes(BinaryBuilder::with_capacity(capacity, capacity * 16)),
            ValueType::String => Self::Text(StringBuilder::with_capacity(capacity, capacity * 16)),
            ValueType::Int32 => Self::Int32(Int32Builder::with_capacity(capacity)),
            ValueType::Int64 => Self::Int64(Int64Builder::with_capacity(capacity)),
            ValueType::Float32 => Self::Float32(Float32Builder::with_capacity(capacity)),
            ValueType::Float64 => Self::Float64(Float64Builder::with_capacity(capacity)),
            ValueType::Bool => Self::Bool(BooleanBuilder::with_capacity(capacity)),
            ValueType::UnixTimestamp => {
                Self::Time(TimestampMicrosecondBuilder::with_capacity(capacity).with_timezone("UTC"))
            }
            ValueType::Array(element) => Self::List {
                element: element.as_ref().clone(),
                offsets: vec![0],
                valid: Vec::with_capacity(capacity),
                length: 0,
                inner: Box::new(Self::new(element, capacity)),
            },
        }
    }

    pub(crate) fn append_null(&mut self) {
        match self {
            Self::Bytes(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Bool(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::List { offsets, valid, length, .. } => {
                offsets.push(*length);
                valid.push(false);
            }
        }
    }

    /// Appends a value as [`Values::push_value`](super::encode::Values::push_value) packs it.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are none.
    pub(crate) fn append(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        match self {
            Self::Bytes(builder) => builder.append_value(reader.delimited()?),
            Self::Text(builder) => {
                builder.append_value(std::str::from_utf8(reader.delimited()?).map_err(|_| damaged())?);
            }
            Self::Int32(builder) => builder.append_value(i32::from_le_bytes(reader.array()?)),
            Self::Int64(builder) => builder.append_value(i64::from_le_bytes(reader.array()?)),
            Self::Float32(builder) => builder.append_value(f32::from_le_bytes(reader.array()?)),
            Self::Float64(builder) => builder.append_value(f64::from_le_bytes(reader.array()?)),
            Self::Bool(builder) => builder.append_value(reader.byte()? != 0),
            Self::Time(builder) => builder.append_value(i64::from_le_bytes(reader.array()?)),
            Self::List { offsets, valid, length, inner, .. } => {
                let mut list = Reader(reader.delimited()?);
                let count = list.length()?;
                // Without nulls every element takes at least a byte: a damaged count cannot make us run on.
                let nulls = match list.byte()? {
                    0 => None,
                    1 => Some(list.take(count.div_ceil(8))?),
                    _ => return Err(damaged()),
                };
                for element in 0..count {
                    let null = nulls
                        .and_then(|bytes| bytes.get(element / 8))
                        .is_some_and(|byte| byte >> (element % 8) & 1 == 1);
                    if null {
                        inner.append_null();
                    } else {
                        inner.append(&mut list)?;
                    }
                }
                if !list.0.is_empty() {
                    return Err(damaged());
                }
                *length = i32::try_from(count).ok().and_then(|count| length.checked_add(count)).ok_or_else(damaged)?;
                offsets.push(*length);
                valid.push(true);
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self {
            Self::Bytes(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Int32(mut builder) => Arc::new(builder.finish()),
            Self::Int64(mut builder) => Arc::new(builder.finish()),
            Self::Float32(mut builder) => Arc::new(builder.finish()),
            Self::Float64(mut builder) => Arc::new(builder.finish()),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Time(mut builder) => Arc::new(builder.finish()),
            Self::List { element, offsets, valid, inner, .. } => {
                let field = Arc::new(ArrowField::new("item", element.to_arrow(), true));
                let nulls = NullBuffer::from(valid);
                // `append` has kept offsets, validity and elements in step.
                Arc::new(ListArray::new(field, OffsetBuffer::new(offsets.into()), inner.finish(), Some(nulls)))
            }
        }
    }
}
