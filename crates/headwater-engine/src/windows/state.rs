//! The window row of an entity: its tiles.

use bytes::Bytes;
use headwater_core::{Error, ErrorKind, Micros, Position, Result};

use super::bound::{Bound, Scratch, bytes, equal_bytes, number};
use super::codec::{Input, damaged, push_delimited, push_number, push_signed};
use super::layout::{Block, Group, Layout};
use super::newest::Orders;
use super::numbers::Number;
use super::part::{Part, PartKind, extreme};

/// The first byte of an encoded row.
const FORMAT_VERSION: u8 = 1;

/// One window row: what one split (or all) says of one entity.
///
/// It is a function of the set of rows it was updated with, in whatever order they came. A row whose event time is before
/// everything that a window can reach from the newest one changes that window no more.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    newest: Option<Micros>,
    position: Position,
    /// In order of the layout's groups; empty before the first update.
    groups: Vec<Tiles>,
}

/// The tiles of one group, by number.
///
/// `words` and `parts` hold as many per tile as the group says, one tile after another: indexing by tile does not fail.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tiles {
    pub(super) numbers: Vec<i64>,
    pub(super) words: Vec<u64>,
    pub(super) parts: Vec<Part>,
}

impl State {
    /// A row of no events, at [`Position::START`].
    pub(crate) fn new() -> Self {
        Self { newest: None, position: Position::START, groups: Vec::new() }
    }

    /// Takes in one row of a view.
    ///
    /// `time` is its event time and `order` its version's bytes ([`RowVersion`](headwater_core::RowVersion)), of which
    /// no two rows have the same; it may be empty where the layout does not [need](Layout::needs_order) it. The caller
    /// takes in each row once and keeps the [position](State::set_position).
    pub(crate) fn update(&mut self, layout: &Layout, rows: &Bound<'_>, row: usize, time: Micros, order: &[u8]) {
        self.lay_out(layout);
        let advanced = self.newest.is_none_or(|newest| time > newest);
        let newest = self.newest.map_or(time, |newest| newest.max(time));
        self.newest = Some(newest);
        for (group, tiles) in layout.groups.iter().zip(&mut self.groups) {
            let tile = group.tile(time);
            let first = group.first_tile(newest);
            if advanced {
                tiles.drop_before(group, first);
            }
            if tile >= first {
                let at = tiles.open(group, tile);
                tiles.update(group, at, rows, row, order);
            }
        }
    }

    /// Takes in all that another row of the same layout holds: another split's of the same entity, of events that are not
    /// in this one. The position stays, as positions of two splits do not compare.
    pub(crate) fn merge(&mut self, layout: &Layout, other: &Self) {
        let Some(newest) = self.newest.max(other.newest) else { return };
        self.lay_out(layout);
        self.newest = Some(newest);
        for ((group, tiles), others) in layout.groups.iter().zip(&mut self.groups).zip(&other.groups) {
            let first = group.first_tile(newest);
            tiles.drop_before(group, first);
            for (from, number) in others.numbers.iter().enumerate().filter(|(_, number)| **number >= first) {
                let at = tiles.open(group, *number);
                tiles.merge(group, at, others, from);
            }
        }
    }

    fn lay_out(&mut self, layout: &Layout) {
        if self.groups.is_empty() {
            self.groups.resize_with(layout.groups.len(), Tiles::default);
        }
    }

    /// The newest event time; `None` of no events.
    pub(crate) fn newest(&self) -> Option<Micros> {
        self.newest
    }

    /// Up to and including which record of its split it is complete.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Says up to and including which record it is complete.
    pub(crate) fn set_position(&mut self, position: Position) {
        self.position = position;
    }

    /// The tiles of a group; `None` before the first update.
    pub(super) fn tiles(&self, group: usize) -> Option<&Tiles> {
        self.groups.get(group)
    }

    /// How much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.position.as_bytes().len()
            + self.groups.capacity() * size_of::<Tiles>()
            + self.groups.iter().map(Tiles::bytes).sum::<usize>()
    }

    /// The row as bytes, of this layout alone.
    ///
    /// Layout: a format version; position; newest event time; for each group the number of tiles, and for each tile the
    /// distance of its number from the one before, then its figures and parts, block by block.
    pub(crate) fn encode(&self, layout: &Layout) -> Bytes {
        let tiles: usize = self.groups.iter().map(|tiles| tiles.words.len() + tiles.numbers.len()).sum();
        let mut out = Vec::with_capacity(32 + 9 * tiles);
        let mut orders = Orders::default();
        out.push(FORMAT_VERSION);
        push_delimited(&mut out, self.position.as_bytes());
        match self.newest {
            None => out.push(0),
            Some(newest) => {
                out.push(1);
                push_signed(&mut out, newest);
                for (group, tiles) in layout.groups.iter().zip(&self.groups) {
                    tiles.encode(group, &mut orders, &mut out);
                }
            }
        }
        Bytes::from(out)
    }

    /// Reads what [`State::encode`] wrote with this layout.
    ///
    /// # Errors
    /// `FormatVersion` for a row of an unknown version, `Corrupt` for a damaged one.
    pub(crate) fn decode(layout: &Layout, bytes: &[u8]) -> Result<Self> {
        let mut input = Input(bytes);
        let version = input.byte()?;
        if version != FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::FormatVersion,
                format!("a window row has format version `{version}`; this release knows `{FORMAT_VERSION}`"),
            ));
        }
        let mut state = Self::new();
        let position = input.delimited()?;
        if !position.is_empty() {
            state.position = Position::new(Bytes::copy_from_slice(position));
        }
        match input.byte()? {
            0 => {}
            1 => {
                state.newest = Some(input.signed()?);
                let mut orders = Orders::default();
                let groups = layout.groups.iter();
                state.groups =
                    groups.map(|group| Tiles::decode(group, &mut orders, &mut input)).collect::<Result<_>>()?;
            }
            _ => return Err(damaged()),
        }
        if input.0.is_empty() { Ok(state) } else { Err(damaged()) }
    }
}

impl Tiles {
    /// Where the tile of this number is, or would be.
    fn find(&self, number: i64) -> Result<usize, usize> {
        match self.numbers.last() {
            // Events mostly come in order.
            Some(last) if *last == number => Ok(self.numbers.len() - 1),
            Some(last) if *last < number => Err(self.numbers.len()),
            _ => self.numbers.binary_search(&number),
        }
    }

    /// Where the tile of this number is; an empty one where there was none.
    fn open(&mut self, group: &Group, number: i64) -> usize {
        match self.find(number) {
            Ok(at) => at,
            Err(at) => {
                self.numbers.insert(at, number);
                self.words.splice(at * group.words..at * group.words, std::iter::repeat_n(0, group.words));
                let part = at * group.parts.len();
                self.parts.splice(part..part, group.parts.iter().map(|kind| kind.empty()));
                at
            }
        }
    }

    /// Drops the tiles that no window reaches any more.
    fn drop_before(&mut self, group: &Group, first: i64) {
        if self.numbers.first().is_none_or(|number| *number >= first) {
            return;
        }
        let gone = self.numbers.partition_point(|number| *number < first);
        self.numbers.drain(..gone);
        self.words.drain(..gone * group.words);
        self.parts.drain(..gone * group.parts.len());
    }

    fn update(&mut self, group: &Group, at: usize, rows: &Bound<'_>, row: usize, order: &[u8]) {
        let words = &mut self.words[at * group.words..][..group.words];
        let parts = &mut self.parts[at * group.parts.len()..][..group.parts.len()];
        for block in &group.blocks {
            let Some(column) = block.column else {
                if let Some(numbers) = &block.numbers {
                    numbers.increment(words);
                }
                continue;
            };
            let Some(values) = rows.column(column, row) else { continue };
            let number = number(values, row);
            if let Some(numbers) = &block.numbers {
                match number {
                    Some(number) => numbers.update(words, number),
                    None => numbers.increment(words),
                }
            }
            let mut scratch = Scratch::default();
            for (kind, part) in block.parts(group).zip(parts.iter_mut().skip(block.first_part)) {
                match (kind, part) {
                    (PartKind::Extreme { greatest }, Part::Extreme(best)) => {
                        extreme(best, *greatest, bytes(values, row, &mut scratch));
                    }
                    (PartKind::Newest { limit, distinct: false }, Part::Newest(newest)) => {
                        newest.update(*limit, false, order, bytes(values, row, &mut scratch));
                    }
                    (PartKind::Newest { limit, distinct: true }, Part::Newest(newest)) => {
                        newest.update(*limit, true, order, equal_bytes(values, row, &mut scratch));
                    }
                    (_, Part::Distinct(distinct)) => distinct.update(equal_bytes(values, row, &mut scratch)),
                    (_, Part::Percentile(percentile)) => match number {
                        Some(Number::Int(value)) => percentile.update(value as f64),
                        Some(Number::Float(value)) => percentile.update(value),
                        None => {}
                    },
                    _ => {}
                }
            }
        }
    }

    fn merge(&mut self, group: &Group, at: usize, other: &Self, from: usize) {
        let words = &mut self.words[at * group.words..][..group.words];
        let others = &other.words[from * group.words..][..group.words];
        for numbers in group.blocks.iter().filter_map(|block| block.numbers.as_ref()) {
            numbers.merge(words, others);
        }
        let parts = self.parts.iter_mut().skip(at * group.parts.len());
        let others = other.parts.iter().skip(from * group.parts.len());
        for ((kind, part), others) in group.parts.iter().zip(parts).zip(others) {
            kind.merge(part, others);
        }
    }

    fn bytes(&self) -> usize {
        size_of::<i64>() * self.numbers.capacity()
            + size_of::<u64>() * self.words.capacity()
            + size_of::<Part>() * self.parts.capacity()
            + self.parts.iter().map(Part::bytes).sum::<usize>()
    }

    fn encode(&self, group: &Group, orders: &mut Orders, out: &mut Vec<u8>) {
        push_number(out, u64::try_from(self.numbers.len()).unwrap_or(u64::MAX));
        let mut previous = 0_i64;
        for (at, number) in self.numbers.iter().enumerate() {
            // Wrapping: between the first two tiles of all time lie more than fit.
            push_signed(out, number.wrapping_sub(previous));
            previous = *number;
            let words = &self.words[at * group.words..][..group.words];
            for numbers in group.blocks.iter().filter_map(|block| block.numbers.as_ref()) {
                numbers.encode(words, out);
            }
            for part in self.parts.iter().skip(at * group.parts.len()).take(group.parts.len()) {
                part.encode(orders, out);
            }
        }
    }

    fn decode(group: &Group, orders: &mut Orders, input: &mut Input<'_>) -> Result<Self> {
        let count = input.length()?;
        let mut tiles = Self {
            numbers: Vec::with_capacity(count),
            words: vec![0; count * group.words],
            parts: Vec::with_capacity(count * group.parts.len()),
        };
        for at in 0..count {
            let previous = tiles.numbers.last().copied();
            let number = previous.unwrap_or(0).wrapping_add(input.signed()?);
            if previous.is_some_and(|previous| number <= previous) {
                return Err(damaged());
            }
            tiles.numbers.push(number);
            let words = &mut tiles.words[at * group.words..][..group.words];
            for numbers in group.blocks.iter().filter_map(|block| block.numbers.as_ref()) {
                numbers.decode(words, input)?;
            }
            for kind in &group.parts {
                tiles.parts.push(kind.decode(orders, input)?);
            }
        }
        Ok(tiles)
    }
}

impl Block {
    fn parts<'a>(&self, group: &'a Group) -> impl Iterator<Item = &'a PartKind> {
        group.parts.iter().skip(self.first_part).take(self.part_count)
    }
}
