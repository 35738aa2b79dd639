//! Features out of state rows.

use arrow::array::ArrayRef;
use headwater_core::{Error, Micros, Result};

use super::codec::damaged;
use super::distinct::Distinct;
use super::layout::{Finalize, Group, Layout, Span};
use super::numbers::{Number, Numbers};
use super::part::{Part, PartKind};
use super::state::{State, Tiles};
use crate::rows::{Builder, Reader};

/// The feature columns of a windowed view, which grow by one row for each state that is [pushed](Finisher::push).
#[derive(Debug)]
pub(crate) struct Finisher {
    builders: Vec<Builder>,
    bytes: usize,
    overflows: u64,
    /// The first value that could not be read; a state that was decoded from damaged bytes can hold one.
    error: Option<Error>,
    gathered: Gathered,
}

/// What the tiles of one window come to; kept for its allocations.
#[derive(Debug, Default)]
struct Gathered {
    words: Vec<u64>,
    parts: Vec<Part>,
}

/// One result.
enum Outcome<'a> {
    Null,
    Int(i128),
    Float(f64),
    Bytes(&'a [u8]),
    List(Vec<&'a [u8]>),
}

impl Finisher {
    pub(super) fn new(layout: &Layout, capacity: usize) -> Self {
        Self {
            builders: layout.types.iter().map(|dtype| Builder::new(dtype, capacity)).collect(),
            bytes: 0,
            overflows: 0,
            error: None,
            gathered: Gathered::default(),
        }
    }

    /// Appends the features of an entity as they are at `t`, from all its rows, [merged](State::merge).
    ///
    /// The caller guarantees that no event in `state` is newer than `t`.
    pub(crate) fn push(&mut self, layout: &Layout, state: &State, t: Micros) {
        let none = Tiles::default();
        for span in &layout.spans {
            let Some(group) = layout.groups.get(span.group) else { continue };
            let tiles = state.tiles(span.group).unwrap_or(&none);
            let first = span.window.map_or(0, |window| window.start(t).div_euclid(window.hop));
            let from = tiles.numbers.partition_point(|number| *number < first);
            self.gathered.gather(span, group, tiles, from);
            for feature in &span.features {
                let Some(builder) = self.builders.get_mut(feature.feature) else { continue };
                let outcome = self.gathered.outcome(feature.finalize, group, tiles, from);
                self.bytes += outcome.bytes();
                match append(builder, outcome) {
                    Ok(fits) => self.overflows += u64::from(!fits),
                    Err(error) => self.error = self.error.take().or(Some(error)),
                }
            }
        }
    }

    /// What the results so far take, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many results so far were beyond their feature's type and are null for it.
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows
    }

    /// The columns, in order of the features, with one row for each push.
    ///
    /// # Errors
    /// `Corrupt` where a state held a value that is none.
    pub(crate) fn finish(self) -> Result<Vec<ArrayRef>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.builders.into_iter().map(Builder::finish).collect()),
        }
    }
}

impl Gathered {
    /// Merges what the window's features need of the tiles from `from` on.
    fn gather(&mut self, span: &Span, group: &Group, tiles: &Tiles, from: usize) {
        self.words.clear();
        self.words.resize(group.words, 0);
        for numbers in span.blocks.iter().filter_map(|at| group.blocks.get(*at)?.numbers.as_ref()) {
            for words in tiles.words.chunks_exact(group.words).skip(from) {
                numbers.merge(&mut self.words, words);
            }
        }
        self.parts.clear();
        for (at, kind) in group.parts.iter().enumerate() {
            let mut part = kind.empty();
            // Sketches of distinct values are merged where they are estimated from.
            if span.parts.contains(&at) && *kind != PartKind::Distinct {
                // The newest tile first: of the others' newest values most are then turned away at once.
                for tile in (from..tiles.numbers.len()).rev() {
                    if let Some(other) = tiles.parts.get(tile * group.parts.len() + at) {
                        kind.merge(&mut part, other);
                    }
                }
            }
            self.parts.push(part);
        }
    }

    fn outcome<'a>(&'a self, finalize: Finalize, group: &'a Group, tiles: &'a Tiles, from: usize) -> Outcome<'a> {
        let numbers = |at: usize| group.blocks.get(at).and_then(|block| block.numbers.as_ref());
        let float = |at: usize, result: fn(&Numbers, &[u64]) -> Option<f64>| {
            numbers(at).and_then(|numbers| result(numbers, &self.words)).map(Outcome::Float)
        };
        let extreme = |at: usize, result: fn(&Numbers, &[u64]) -> Option<Number>| {
            numbers(at).and_then(|numbers| result(numbers, &self.words)).map(Outcome::from)
        };
        let newest = |at: usize, n: usize| match self.parts.get(at) {
            Some(Part::Newest(newest)) => Some(newest.values(n)),
            _ => None,
        };
        let outcome = match finalize {
            Finalize::Count(at) => numbers(at).map(|numbers| Outcome::Int(numbers.count(&self.words).into())),
            Finalize::Sum(at) => match numbers(at) {
                Some(numbers) if !numbers.float => numbers.int_sum(&self.words).map(Outcome::Int),
                _ => float(at, Numbers::float_sum),
            },
            Finalize::Mean(at) => float(at, Numbers::mean),
            Finalize::Stddev(at) => float(at, Numbers::stddev),
            Finalize::Low(at) => extreme(at, Numbers::low),
            Finalize::High(at) => extreme(at, Numbers::high),
            Finalize::Extreme(at) => match self.parts.get(at) {
                Some(Part::Extreme(best)) => best.as_deref().map(Outcome::Bytes),
                _ => None,
            },
            Finalize::Last(at, number) => {
                newest(at, 1).and_then(|mut values| values.next()).map(|value| match number {
                    None => Outcome::Bytes(value),
                    Some(float) => word(value).map_or(Outcome::Null, |word| {
                        if float {
                            Outcome::Float(f64::from_bits(word))
                        } else {
                            Outcome::Int(word.cast_signed().into())
                        }
                    }),
                })
            }
            Finalize::LastN(at, n) => {
                newest(at, n).filter(|values| values.len() > 0).map(|values| Outcome::List(values.collect()))
            }
            Finalize::Distinct(at) => {
                let parts = tiles.parts.iter().skip(at).step_by(group.parts.len()).skip(from);
                let distinct = parts.filter_map(|part| match part {
                    Part::Distinct(distinct) => Some(distinct),
                    _ => None,
                });
                Distinct::finalize(distinct).map(|count| Outcome::Int(count.into()))
            }
            Finalize::Percentile(at, share) => match self.parts.get(at) {
                Some(Part::Percentile(percentile)) => percentile.finalize(share).map(Outcome::Float),
                _ => None,
            },
        };
        outcome.unwrap_or(Outcome::Null)
    }
}

impl Outcome<'_> {
    /// What it takes in a column, roughly: text and lists as long as they are, anything else a word.
    fn bytes(&self) -> usize {
        let of = |value: &&[u8]| value.len() + size_of::<u64>();
        match self {
            Self::Null | Self::Int(_) | Self::Float(_) => size_of::<u64>(),
            Self::Bytes(value) => of(value),
            Self::List(values) => size_of::<u64>() + values.iter().map(of).sum::<usize>(),
        }
    }
}

impl From<Number> for Outcome<'_> {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(value) => Self::Int(value.into()),
            Number::Float(value) => Self::Float(value),
        }
    }
}

/// Appends a result. False says that it is beyond the feature's type, and null for it.
fn append(builder: &mut Builder, outcome: Outcome<'_>) -> Result<bool> {
    match outcome {
        Outcome::Null => {
            builder.append_null();
            Ok(true)
        }
        Outcome::Int(value) => append_int(builder, value),
        Outcome::Float(value) => append_float(builder, value),
        Outcome::Bytes(value) => append_bytes(builder, value).map(|()| true),
        Outcome::List(values) => match builder {
            Builder::List { offsets, valid, length, inner, .. } => {
                let count = i32::try_from(values.len()).map_err(|_| damaged())?;
                for value in values {
                    append_bytes(inner, value)?;
                }
                *length = length.checked_add(count).ok_or_else(|| {
                    Error::invalid("a column of lists has more than 2^31 elements; ask for fewer rows at once")
                })?;
                offsets.push(*length);
                valid.push(true);
                Ok(true)
            }
            _ => Err(unfit()),
        },
    }
}

fn append_int(builder: &mut Builder, value: i128) -> Result<bool> {
    let narrow = i64::try_from(value).ok();
    Ok(match builder {
        Builder::Int32(builder) => {
            let value = i32::try_from(value).ok();
            builder.append_option(value);
            value.is_some()
        }
        Builder::Int64(builder) => {
            builder.append_option(narrow);
            narrow.is_some()
        }
        Builder::Time(builder) => {
            builder.append_option(narrow);
            narrow.is_some()
        }
        // Every integer of 128 bits is within the range of both floats.
        Builder::Float32(builder) => {
            builder.append_value(value as f32);
            true
        }
        Builder::Float64(builder) => {
            builder.append_value(value as f64);
            true
        }
        Builder::Bool(builder) => {
            builder.append_value(value != 0);
            true
        }
        _ => return Err(unfit()),
    })
}

#[allow(clippy::cast_possible_truncation)] // Rounding to float32 is what was declared; what overflows is null.
fn append_float(builder: &mut Builder, value: f64) -> Result<bool> {
    match builder {
        Builder::Float64(builder) => builder.append_value(value),
        Builder::Float32(builder) => {
            let narrow = value as f32;
            if narrow.is_infinite() && value.is_finite() {
                builder.append_null();
                return Ok(false);
            }
            builder.append_value(narrow);
        }
        _ => return Err(unfit()),
    }
    Ok(true)
}

/// Appends a value of the builder's own type, as [`bytes`](super::bound::bytes) gave it.
fn append_bytes(builder: &mut Builder, value: &[u8]) -> Result<()> {
    match builder {
        Builder::Bytes(builder) => builder.append_value(value),
        Builder::Text(builder) => builder.append_value(std::str::from_utf8(value).map_err(|_| damaged())?),
        Builder::List { .. } => {
            let mut reader = Reader(value);
            builder.append(&mut reader)?;
            if !reader.0.is_empty() {
                return Err(damaged());
            }
        }
        Builder::Float32(_) | Builder::Float64(_) => {
            append_float(builder, f64::from_bits(word(value).ok_or_else(damaged)?))?;
        }
        Builder::Int32(_) | Builder::Int64(_) | Builder::Bool(_) | Builder::Time(_) => {
            append_int(builder, word(value).ok_or_else(damaged)?.cast_signed().into())?;
        }
    }
    Ok(())
}

fn word(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

fn unfit() -> Error {
    Error::unexpected("a window function's result is not of its feature's type")
}
