//! Sequence numbers and sub-sequence numbers as positions.
//!
//! A position is one of these, and the order of the bytes is the order of the records:
//!
//! | bytes | everything is done |
//! | --- | --- |
//! | none | before the first record |
//! | `00`, time | that arrived before this time (microseconds, 8 bytes big-endian) |
//! | `00`, time, time | as above, and nothing else had arrived by the second time |
//! | length, number | up to and including the record with this sequence number (big-endian, without leading zeros) |
//! | length, number, sub-sequence | up to and including this record of an aggregate (4 bytes big-endian) |
//! | length, number, `ffffffff` | up to and including all records of the aggregate |
//! | length, number, `ffffffff`, time | as above, and whatever else had arrived by this time |
//! | `ff` | that there was: the shard is gone |
//!
//! A sequence number has up to 129 decimal digits: it fits no integer type, and its text does not sort by value.

use std::fmt;

use bytes::Bytes;
use headwater_core::{Error, Micros, Position, Result};

/// The sub-sequence number that says "all of the aggregate".
const WHOLE: u32 = u32::MAX;
/// More than the length of any sequence number.
const GONE: u8 = u8::MAX;
/// Nine decimal digits at a time fit 32 bits.
const CHUNK: u64 = 1_000_000_000;

/// A sequence number: a byte with the length, and the number big-endian without leading zeros. Ordered by value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sequence(Vec<u8>);

impl Sequence {
    /// Reads the decimal text; `None` where it is none, zero (which no record has), or has more than 600 digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > 600 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // Little-endian limbs of 32 bits.
        let mut limbs: Vec<u32> = Vec::with_capacity(8);
        let head = text.len() % 9;
        let (first, rest) = text.split_at(head);
        let chunks = std::iter::once(first).filter(|first| !first.is_empty());
        let chunks = chunks.chain((0..rest.len()).step_by(9).filter_map(|at| rest.get(at..at + 9)));
        for chunk in chunks {
            let mut carry: u64 = chunk.parse().ok()?;
            for limb in &mut limbs {
                let value = u64::from(*limb) * CHUNK + carry;
                *limb = low(value);
                carry = value >> 32;
            }
            if carry > 0 {
                limbs.push(low(carry));
            }
        }
        let mut bytes = vec![0];
        bytes.extend(limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).skip_while(|byte| *byte == 0));
        let length = u8::try_from(bytes.len() - 1).ok().filter(|length| *length > 0)?;
        if let Some(first) = bytes.first_mut() {
            *first = length;
        }
        Some(Self(bytes))
    }
}

/// The lower 32 bits.
#[allow(clippy::cast_possible_truncation)] // That is what it is for.
fn low(value: u64) -> u32 {
    value as u32
}

impl fmt::Display for Sequence {
    /// The decimal text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs: Vec<u32> = self
            .0
            .get(1..)
            .unwrap_or_default()
            .rchunks(4)
            .map(|chunk| chunk.iter().fold(0, |limb, byte| (limb << 8) | u32::from(*byte)))
            .collect();
        let mut chunks = Vec::new();
        while limbs.iter().any(|limb| *limb > 0) {
            let mut rest = 0;
            for limb in limbs.iter_mut().rev() {
                let value = (rest << 32) | u64::from(*limb);
                *limb = low(value / CHUNK);
                rest = value % CHUNK;
            }
            chunks.push(rest);
        }
        let mut chunks = chunks.into_iter().rev();
        write!(f, "{}", chunks.next().unwrap_or_default())?;
        chunks.try_for_each(|chunk| write!(f, "{chunk:09}"))
    }
}

/// Up to where records of a shard are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// None is.
    Start,
    /// Those that arrived before a time. At `seen`, where that is known, nothing else was in the shard.
    Time {
        /// The time; zero where none are.
        from: Micros,
        /// When the end of the shard was last seen.
        seen: Option<Micros>,
    },
    /// Those up to this one.
    Record(Sequence, Within),
    /// All that there were, whether they were read or not: the shard is gone.
    Gone,
}

/// How much of a record is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    /// All of a record that is no aggregate.
    Plain,
    /// An aggregate's records up to this one.
    Sub(u32),
    /// All of it. At `seen`, where that is known, nothing else was in the shard.
    Whole {
        /// When the end of the shard was last seen.
        seen: Option<Micros>,
    },
}

impl Place {
    /// Behind what arrived before this time.
    pub(crate) fn since(from: Micros) -> Self {
        Self::Time { from, seen: None }
    }

    /// When nothing else was in the shard, where that is known.
    pub(crate) fn seen(&self) -> Option<Micros> {
        match self {
            Self::Time { seen, .. } | Self::Record(_, Within::Whole { seen }) => *seen,
            Self::Start | Self::Record(..) | Self::Gone => None,
        }
    }

    /// This place at the end of the shard, as of `now`: a greater one, whatever the clock says, unless the shard is gone.
    pub(crate) fn at_end(&self, now: Micros) -> Self {
        let seen = Some(self.seen().map_or(now, |seen| now.max(seen.saturating_add(1))));
        match self {
            Self::Start => Self::Time { from: 0, seen },
            Self::Time { from, .. } => Self::Time { from: *from, seen },
            Self::Record(sequence, _) => Self::Record(sequence.clone(), Within::Whole { seen }),
            Self::Gone => Self::Gone,
        }
    }

    /// The other place, where it says the same and has seen the end later; else this one.
    pub(crate) fn or_later(self, other: &Self) -> Self {
        let same = match (&self, other) {
            (Self::Start, Self::Time { from, .. }) => *from == 0,
            (Self::Time { from, .. }, Self::Time { from: other, .. }) => from == other,
            (Self::Record(_, Within::Sub(_)), _) => false,
            (Self::Record(sequence, _), Self::Record(other, Within::Whole { .. })) => sequence == other,
            _ => false,
        };
        if same && other.seen() > self.seen() { other.clone() } else { self }
    }

    /// As bytes.
    pub(crate) fn position(&self) -> Position {
        match self {
            Self::Start => Position::START,
            Self::Time { from, seen } => {
                let mut bytes = vec![0];
                bytes.extend([from].into_iter().chain(seen).flat_map(|time| time.max(&0).to_be_bytes()));
                Position::new(bytes)
            }
            Self::Record(sequence, within) => {
                let mut bytes = sequence.0.clone();
                match within {
                    Within::Plain => {}
                    Within::Sub(sub) => bytes.extend((*sub).to_be_bytes()),
                    Within::Whole { seen } => {
                        bytes.extend(WHOLE.to_be_bytes());
                        bytes.extend(seen.iter().flat_map(|seen| seen.max(&0).to_be_bytes()));
                    }
                }
                Position::new(Bytes::from(bytes))
            }
            Self::Gone => Position::new(vec![GONE]),
        }
    }

    /// What a position says.
    ///
    /// # Errors
    /// `Data` for a position of another source.
    pub(crate) fn of(position: &Position) -> Result<Self> {
        Self::read(position.as_bytes()).ok_or_else(|| {
            Error::data(format!(
                "`{position}` is no position of a Kinesis shard: a sequence number and what follows it"
            ))
            .with_plugin("kinesis")
        })
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let Some((&length, rest)) = bytes.split_first() else { return Some(Self::Start) };
        if length == 0 {
            let (from, seen) = rest.split_at_checked(8)?;
            let time = |bytes: &[u8]| Some(i64::from_be_bytes(bytes.try_into().ok()?));
            let seen = if seen.is_empty() { None } else { Some(time(seen)?) };
            return Some(Self::Time { from: time(from)?, seen });
        }
        if bytes == [GONE] {
            return Some(Self::Gone);
        }
        let (number, within) = rest.split_at_checked(usize::from(length))?;
        if number.first() == Some(&0) {
            return None;
        }
        let within = match within.split_at_checked(4) {
            None if within.is_empty() => Within::Plain,
            None => return None,
            Some((sub, seen)) => match (u32::from_be_bytes(sub.try_into().ok()?), seen) {
                (WHOLE, []) => Within::Whole { seen: None },
                (WHOLE, seen) => Within::Whole { seen: Some(i64::from_be_bytes(seen.try_into().ok()?)) },
                (sub, []) => Within::Sub(sub),
                _ => return None,
            },
        };
        let mut sequence = vec![length];
        sequence.extend(number);
        Some(Self::Record(Sequence(sequence), within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(text: &str) -> Sequence {
        Sequence::parse(text).unwrap()
    }

    #[test]
    fn sequence_numbers_keep_their_value_and_order() {
        let numbers = [
            "1",
            "9",
            "10",
            "255",
            "256",
            "4294967295",
            "4294967296",
            "999999999",
            "1000000000",
            "49590338271490256608559692538361571095921575989136588898",
            "49590338271490256608559692538361571095921575989136588899",
            "49690338271490256608559692538361571095921575989136588898",
            "340282366920938463463374607431768211456",
        ];
        let mut sorted = numbers.map(|text| (sequence(text), text));
        sorted.sort();
        for (parsed, text) in &sorted {
            assert_eq!(parsed.to_string(), *text);
        }
        let by_value = |a: &&str, b: &&str| (a.len(), *a).cmp(&(b.len(), *b));
        assert!(sorted.is_sorted_by(|(_, a), (_, b)| by_value(a, b).is_lt()));
        assert_eq!(sequence("000123").to_string(), "123");
        let longest = "9".repeat(129);
        assert_eq!(sequence(&longest).to_string(), longest);
        for wrong in ["", "0", "-1", "1e3", "12 "] {
            assert_eq!(Sequence::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn positions_sort_as_their_records_and_read_back() {
        let first = sequence("49590338271490256608559692538361571095921575989136588898");
        let second = sequence("49590338271490256608559692538361571095921575989136588899");
        let places = [
            Place::Start,
            Place::Time { from: 0, seen: Some(1_800_000_000_000_000) },
            Place::since(1_700_000_000_000_000),
            Place::Time { from: 1_700_000_000_000_000, seen: Some(1) },
            Place::Time { from: 1_700_000_000_000_000, seen: Some(2) },
            Place::since(1_700_000_000_000_001),
            Place::Record(first.clone(), Within::Plain),
            Place::Record(first.clone(), Within::Sub(0)),
            Place::Record(first.clone(), Within::Sub(300)),
            Place::Record(first.clone(), Within::Whole { seen: None }),
            Place::Record(first.clone(), Within::Whole { seen: Some(1) }),
            Place::Record(first, Within::Whole { seen: Some(2) }),
            Place::Record(second, Within::Plain),
            Place::Record(sequence(&"9".repeat(600)), Within::Whole { seen: Some(1) }),
            Place::Gone,
        ];
        let positions = places.clone().map(|place| place.position());
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
        for (place, position) in places.iter().zip(&positions) {
            assert_eq!(Place::of(position).unwrap(), *place);
        }
        for wrong in [&[0, 1][..], &[0; 16], &[5, 1], &[1, 0], &[1, 7, 1], &[1, 7, 0, 0, 0, 1, 9]] {
            let error = Place::of(&Position::new(wrong.to_vec())).unwrap_err();
            assert!(error.to_string().contains("is no position of a Kinesis shard"), "{error}");
        }
    }

    #[test]
    fn a_later_look_at_the_same_end_counts_and_no_other() {
        let record = |number, within| Place::Record(sequence(number), within);
        let (seen, unseen) = (Within::Whole { seen: Some(9) }, Within::Whole { seen: None });
        for (place, later) in [
            (Place::Start, Place::Start.at_end(9)),
            (Place::Start.at_end(8), Place::Start.at_end(9)),
            (Place::since(5), Place::since(5).at_end(9)),
            (record("7", Within::Plain), record("7", seen)),
            (record("7", unseen), record("7", seen)),
        ] {
            assert_eq!(place.clone().or_later(&later), later);
            assert_eq!(later.clone().or_later(&place), later);
        }
        for (place, other) in [
            (Place::Start, Place::since(5).at_end(9)),
            (Place::since(5), Place::since(6).at_end(9)),
            // What came before that end was not read.
            (Place::since(5), record("7", seen)),
            (record("7", Within::Plain), record("8", seen)),
            (record("7", Within::Sub(3)), record("7", seen)),
        ] {
            assert_eq!(place.clone().or_later(&other), place);
        }
    }

    #[test]
    fn a_place_at_the_end_is_greater_whatever_the_clock_says() {
        let record = sequence("7");
        let places = [
            Place::Start,
            Place::since(5),
            Place::Record(record.clone(), Within::Plain),
            Place::Record(record, Within::Sub(3)),
        ];
        for place in places {
            let end = place.at_end(100);
            assert_eq!(end.seen(), Some(100));
            // Later, at the same moment, and when the clock was set back.
            for (now, seen) in [(200, 200), (100, 101), (50, 101)] {
                let later = end.at_end(now);
                assert!(place.position() < end.position() && end.position() < later.position(), "{place:?}");
                assert_eq!(later.seen(), Some(seen), "{place:?}");
            }
        }
    }
}
