//! Window rows of one split in memory.

use std::hash::{Hash, Hasher};

use bytes::Bytes;
use hashbrown::HashTable;
use headwater_core::Position;
use rustc_hash::FxHasher;

use crate::windows::State;

/// What a row takes beside its state: key, position, the tables' own.
const OVERHEAD: usize = 192;

/// One window row.
#[derive(Debug)]
pub(super) struct Slot {
    /// The row's key.
    pub(super) key: Bytes,
    pub(super) state: State,
    /// The store may hold an older row that this one is to go on from.
    pub(super) unknown: bool,
    /// It is newer than what the store holds.
    pub(super) dirty: bool,
    /// What it was complete up to when the present rows came.
    pub(super) before: Position,
    /// The last of the present rows that it took.
    pub(super) last: Option<usize>,
    /// The turn in which it was asked for last.
    used: u64,
    bytes: usize,
}

/// Rows by key, with their size.
#[derive(Debug, Default)]
pub(super) struct Cache {
    slots: Vec<Slot>,
    places: HashTable<usize>,
    bytes: usize,
    turn: u64,
    hand: usize,
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Cache {
    /// Begins the work on further rows.
    pub(super) fn turn(&mut self) {
        self.turn += 1;
    }

    /// The place of a key's row, a new one where it is not there, and whether it is asked for first in this turn. Places
    /// hold until [`Cache::shrink`].
    pub(super) fn place(&mut self, key: &[u8], unknown: bool) -> (usize, bool) {
        let of_key = hash(key);
        let turn = self.turn;
        if let Some(place) = self.places.find(of_key, |place| self.slots.get(*place).is_some_and(|s| s.key == key)) {
            let place = *place;
            let mut first = false;
            if let Some(slot) = self.slots.get_mut(place)
                && slot.used != turn
            {
                slot.used = turn;
                slot.before = slot.state.position().clone();
                slot.last = None;
                first = true;
            }
            return (place, first);
        }
        let place = self.slots.len();
        let bytes = OVERHEAD + key.len();
        self.bytes += bytes;
        self.slots.push(Slot {
            key: Bytes::copy_from_slice(key),
            state: State::new(),
            unknown,
            dirty: false,
            before: Position::START,
            last: None,
            used: turn,
            bytes,
        });
        let slots = &self.slots;
        self.places.insert_unique(of_key, place, |place| slots.get(*place).map_or(0, |slot| hash(&slot.key)));
        (place, true)
    }

    pub(super) fn slot(&mut self, place: usize) -> Option<&mut Slot> {
        self.slots.get_mut(place)
    }

    pub(super) fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// Measures a row again.
    pub(super) fn measure(&mut self, place: usize) {
        if let Some(slot) = self.slots.get_mut(place) {
            let bytes = OVERHEAD + slot.key.len() + slot.state.bytes();
            self.bytes = (self.bytes + bytes).saturating_sub(slot.bytes);
            slot.bytes = bytes;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets go of rows that the store has too until no more than `budget` is taken: first of those that were not asked
    /// for in this turn.
    pub(super) fn shrink(&mut self, budget: usize) {
        if self.bytes <= budget {
            return;
        }
        // Some room, so that not every turn has to look.
        let goal = budget / 8 * 7;
        for sparing in [true, false] {
            let mut looks = self.slots.len();
            while self.bytes > goal && looks > 0 {
                looks -= 1;
                if self.hand >= self.slots.len() {
                    self.hand = 0;
                }
                match self.slots.get(self.hand) {
                    Some(slot) if !(slot.dirty || slot.unknown || sparing && slot.used == self.turn) => {
                        self.remove(self.hand);
                    }
                    _ => self.hand += 1,
                }
            }
        }
    }

    fn remove(&mut self, place: usize) {
        let last = self.slots.len() - 1;
        let key_hash = |slot: Option<&Slot>| slot.map_or(0, |slot| hash(&slot.key));
        let gone = key_hash(self.slots.get(place));
        if let Ok(entry) = self.places.find_entry(gone, |other| *other == place) {
            entry.remove();
        }
        if place != last
            && let Some(moved) = self.places.find_mut(key_hash(self.slots.get(last)), |other| *other == last)
        {
            *moved = place;
        }
        self.bytes = self.bytes.saturating_sub(self.slots.swap_remove(place).bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_again_and_shrinking_keeps_what_is_dirty() {
        let mut cache = Cache::default();
        cache.turn();
        for key in 0..100_u32 {
            let (place, first) = cache.place(&key.to_be_bytes(), false);
            assert!(first);
            cache.measure(place);
            cache.slot(place).unwrap().dirty = key % 10 == 0;
        }
        assert!(!cache.place(&5_u32.to_be_bytes(), false).1, "the second time in one turn");
        let full = cache.bytes();
        cache.turn();
        let (place, first) = cache.place(&7_u32.to_be_bytes(), false);
        assert!(first);
        assert_eq!(cache.slot(place).unwrap().key.as_ref(), 7_u32.to_be_bytes());
        cache.shrink(full / 2);
        assert!(cache.bytes() <= full / 2);
        for key in (0..100_u32).step_by(10).chain([7]) {
            let slots = cache.slots.len();
            let (place, _) = cache.place(&key.to_be_bytes(), false);
            assert_eq!(cache.slots.len(), slots, "{key} is gone");
            assert_eq!(cache.slot(place).unwrap().key.as_ref(), key.to_be_bytes());
        }
        cache.shrink(0);
        assert_eq!(cache.slots.len(), 10);
        assert_eq!(cache.places.len(), 10);
    }
}
