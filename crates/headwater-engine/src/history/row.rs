//! A view's row as the walk sees it: 32 bytes.

use headwater_core::{Error, Micros, Result};

/// Where a row stands among all rows of its view: the number of its fragment, then its number in the fragment.
///
/// Fragments are numbered in order of origin, split and position, and their rows ascend by position and ordinal. So the
/// order of these integers is the order of versions where event and created time are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowId(u64);

/// Bits for the number in the fragment: a terarow. It leaves 24 for the fragments: 16 million.
const ROW_BITS: u32 = 40;
const MAX_ROW: u64 = (1 << ROW_BITS) - 1;
/// The last number stays free, so that no row is [`RowId::NONE`].
const MAX_FRAGMENTS: u64 = (1 << (64 - ROW_BITS)) - 1;

impl RowId {
    /// No row.
    pub(super) const NONE: Self = Self(u64::MAX);

    /// The first row of a fragment.
    pub(super) fn first_of(fragment: usize) -> Result<Self> {
        match u64::try_from(fragment) {
            Ok(number) if number < MAX_FRAGMENTS => Ok(Self(number << ROW_BITS)),
            _ => Err(Error::unsupported(format!("a history of more than {MAX_FRAGMENTS} fragments"))),
        }
    }

    /// The row `by` rows further in the same fragment.
    pub(super) fn plus(self, by: usize) -> Result<Self> {
        match u64::try_from(by) {
            Ok(by) if by <= MAX_ROW - (self.0 & MAX_ROW) => Ok(Self(self.0 + by)),
            _ => Err(Error::unsupported(format!("a fragment of more than {MAX_ROW} rows"))),
        }
    }

    /// As [`RowId::plus`], for rows of a batch whose last one is known to be in range.
    pub(super) fn plus_unchecked(self, by: usize) -> Self {
        Self(self.0 + by as u64)
    }

    /// The same row of the fragment that is `by` fragments further.
    pub(super) fn moved(self, by: usize) -> Result<Self> {
        Ok(Self(Self::first_of(self.fragment().saturating_add(by))?.0 + self.row()))
    }

    /// The integer that it is, for columns of it.
    pub(super) fn to_u64(self) -> u64 {
        self.0
    }

    /// The number of the fragment.
    pub(super) fn fragment(self) -> usize {
        usize::try_from(self.0 >> ROW_BITS).unwrap_or(usize::MAX)
    }

    /// The number in the fragment, from 0.
    pub(super) fn row(self) -> u64 {
        self.0 & MAX_ROW
    }
}

/// Stands for a created time that is null or absent: before every time.
pub(super) const NO_CREATED: Micros = Micros::MIN;

/// A row of a view whose key is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Its event time.
    pub(super) time: Micros,
    /// Its created time, or [`NO_CREATED`].
    pub(super) created: Micros,
    /// Where it stands.
    pub(super) id: RowId,
    /// Its key's number at its worker.
    pub(super) key: u32,
}

impl Row {
    /// The bytes of a row in a run.
    pub(super) const BYTES: usize = 28;
    /// The bytes of a row in memory.
    pub(super) const SIZE: usize = size_of::<Self>();

    /// The moment from which the row answers: its event time or, where it also has to be made by then, the later of
    /// event and created time.
    #[inline]
    pub(super) fn visible(&self, by_created: bool) -> Micros {
        if by_created { self.time.max(self.created) } else { self.time }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.key.to_le_bytes());
    }

    pub(super) fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
        let time = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let [a, b, c, d, e, f, g, h, rest @ ..] = rest;
        let created = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let [a, b, c, d, e, f, g, h, rest @ ..] = rest;
        let id = RowId(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        Self { time, created, id, key: u32::from_le_bytes(rest) }
    }
}
