//! `last`, `last_n`, `last_distinct_n`: the newest values by the order of their rows.

use headwater_core::Result;

use super::codec::{Input, damaged, push_delimited, push_length};

/// The newest values of a tile, oldest first, at most `limit` of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Newest {
    entries: Vec<Entry>,
}

/// A value with its row's version.
#[derive(Debug, Clone, Default, PartialEq)]
struct Entry {
    /// The version's bytes, then the value's: one allocation, kept when the entry is replaced.
    bytes: Vec<u8>,
    /// How many of them are the version.
    order: usize,
}

impl Entry {
    fn order(&self) -> &[u8] {
        self.bytes.get(..self.order).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.bytes.get(self.order..).unwrap_or_default()
    }

    fn set(&mut self, order: &[u8], value: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(order);
        self.bytes.extend_from_slice(value);
        self.order = order.len();
    }
}

impl Newest {
    /// Takes in a value. With `distinct` equal values count once, where they are newest. Two values of one version, which
    /// no two rows have, count once.
    pub(super) fn update(&mut self, limit: usize, distinct: bool, order: &[u8], value: &[u8]) {
        let full = self.entries.len() >= limit;
        if full && self.entries.first().is_some_and(|oldest| order <= oldest.order()) {
            return;
        }
        // The entry that makes room: the same value, the oldest of a full list, or a new one at the end.
        let same = if distinct { self.entries.iter().position(|entry| entry.value() == value) } else { None };
        if same.and_then(|at| self.entries.get(at)).is_some_and(|entry| order <= entry.order()) {
            return;
        }
        let place = self.entries.partition_point(|entry| entry.order() < order);
        if self.entries.get(place).is_some_and(|entry| entry.order() == order) {
            return;
        }
        let room = match same {
            Some(at) => at,
            None if full => 0,
            None => {
                let mut entry = Entry::default();
                entry.set(order, value);
                self.entries.insert(place, entry);
                return;
            }
        };
        // What makes room is older than the new value, so it lies before its place, and those between move up.
        if let Some(moved) = self.entries.get_mut(room..place)
            && !moved.is_empty()
        {
            moved.rotate_left(1);
            if let Some(entry) = moved.last_mut() {
                entry.set(order, value);
            }
        }
    }

    pub(super) fn merge(&mut self, limit: usize, distinct: bool, other: &Self) {
        // The newest first: those that do not matter are then turned away at once.
        for entry in other.entries.iter().rev() {
            self.update(limit, distinct, entry.order(), entry.value());
        }
    }

    /// The newest `n` values, oldest first.
    pub(super) fn values(&self, n: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        self.entries.iter().skip(self.entries.len().saturating_sub(n)).map(Entry::value)
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.entries.iter().map(|e| e.bytes.capacity()).sum::<usize>()
    }

    pub(super) fn encode(&self, orders: &mut Orders, out: &mut Vec<u8>) {
        push_length(out, self.entries.len());
        for entry in &self.entries {
            orders.push(entry.order(), out);
            push_delimited(out, entry.value());
        }
    }

    pub(super) fn decode(limit: usize, orders: &mut Orders, input: &mut Input<'_>) -> Result<Self> {
        let count = input.length()?;
        if count > limit {
            return Err(damaged());
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            let mut entry = Entry::default();
            let order = orders.take(input)?;
            let value = input.delimited()?;
            entry.bytes.reserve_exact(order.len() + value.len());
            entry.set(order, value);
            if entries.last().is_some_and(|last| last.order() >= entry.order()) {
                return Err(damaged());
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}

/// Versions of one state row, each written as what differs from the one before it: rows of an entity share the upper
/// bytes of their times, their split, and most of their positions.
///
/// A version is its length, then alternately how many bytes are as before and how many are new, with the new ones, until
/// its length is reached.
#[derive(Debug, Default)]
pub(super) struct Orders {
    previous: Vec<u8>,
    next: Vec<u8>,
}

impl Orders {
    /// Fewer equal bytes than this cost no less to point at than to repeat.
    const RUN: usize = 3;

    fn push(&mut self, order: &[u8], out: &mut Vec<u8>) {
        push_length(out, order.len());
        let equal_from =
            |at: usize| order.iter().skip(at).zip(self.previous.iter().skip(at)).take_while(|(a, b)| a == b);
        let mut at = 0;
        while at < order.len() {
            let equal = equal_from(at).count();
            push_length(out, equal);
            at += equal;
            let mut new = at;
            while new < order.len() && equal_from(new).take(Self::RUN).count() < Self::RUN {
                new += 1;
            }
            push_delimited(out, order.get(at..new).unwrap_or_default());
            at = new;
        }
        self.previous.clear();
        self.previous.extend_from_slice(order);
    }

    fn take(&mut self, input: &mut Input<'_>) -> Result<&[u8]> {
        // Not `length`: a long version may be short where it is as the one before. It cannot outgrow that one and the
        // bytes there are.
        let length = usize::try_from(input.number()?).map_err(|_| damaged())?;
        if length > self.previous.len().saturating_add(input.0.len()) {
            return Err(damaged());
        }
        self.next.clear();
        while self.next.len() < length {
            let equal = usize::try_from(input.number()?).map_err(|_| damaged())?;
            let from = self.next.len();
            let to = from.checked_add(equal).ok_or_else(damaged)?;
            self.next.extend_from_slice(self.previous.get(from..to).ok_or_else(damaged)?);
            self.next.extend_from_slice(input.delimited()?);
        }
        if self.next.len() != length {
            return Err(damaged());
        }
        std::mem::swap(&mut self.previous, &mut self.next);
        Ok(&self.previous)
    }
}
