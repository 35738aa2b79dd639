//! Window rows of one split in memory.

use std::collections::VecDeque;
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
    /// It is newer than what was last given away to be written.
    changed: bool,
    /// The last write that it was given away with.
    write: u64,
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
    /// What rows take that the store does not have: nothing of it can be let go of.
    pinned: usize,
    landed: u64,
    /// The places that have changed since they were last given away. A write costs what has changed, however many rows
    /// there are.
    changed: Vec<usize>,
    /// The places that were given away with each write that has not landed.
    given: VecDeque<(u64, Vec<usize>)>,
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
            changed: false,
            write: 0,
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

    /// Looks at a row that this turn's rows were brought into, if there were any: measures it, and counts it as changed.
    pub(super) fn settle(&mut self, place: usize) {
        if let Some(slot) = self.slots.get_mut(place) {
            let bytes = OVERHEAD + slot.key.len() + slot.state.bytes();
            self.bytes = (self.bytes + bytes).saturating_sub(slot.bytes);
            if slot.changed || slot.write > self.landed {
                self.pinned = (self.pinned + bytes).saturating_sub(slot.bytes);
            } else if slot.last.is_some() {
                self.pinned += bytes;
            }
            slot.bytes = bytes;
            if slot.last.is_some() && !slot.changed {
                slot.changed = true;
                self.changed.push(place);
            }
        }
    }

    /// How many rows have changed since they were last given away.
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Gives away the rows that have changed, to be written with the write of this number.
    pub(super) fn take_changed(&mut self, number: u64, mut give: impl FnMut(&Slot)) {
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return;
        }
        for place in &changed {
            let Some(slot) = self.slots.get_mut(*place) else { continue };
            slot.changed = false;
            slot.write = number;
            give(slot);
        }
        self.given.push_back((number, changed));
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What rows take that the store does not have.
    pub(super) fn pinned(&self) -> usize {
        self.pinned
    }

    /// The store has what was given away up to this write.
    pub(super) fn landed(&mut self, number: u64) {
        self.landed = number;
        while let Some((write, places)) = self.given.pop_front_if(|(write, _)| *write <= number) {
            let landed = places.into_iter().filter_map(|place| self.slots.get(place));
            // Not those that have changed again, nor those that a later write holds.
            let landed = landed.filter(|slot| !slot.changed && slot.write == write);
            self.pinned = self.pinned.saturating_sub(landed.map(|slot| slot.bytes).sum());
        }
    }

    /// Lets go of rows that the store has too until no more than `budget` is taken: first of those that were not asked
    /// for in this turn.
    pub(super) fn shrink(&mut self, budget: usize) {
        if self.bytes <= budget || self.bytes == self.pinned {
            return;
        }
        let before = self.slots.len();
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
                    Some(slot)
                        if !(slot.changed
                            || slot.write > self.landed
                            || slot.unknown
                            || sparing && slot.used == self.turn) =>
                    {
                        self.remove(self.hand);
                    }
                    _ => self.hand += 1,
                }
            }
        }
        if self.slots.len() < before {
            self.find_places_again();
        }
    }

    /// Places have moved.
    fn find_places_again(&mut self) {
        self.changed.clear();
        self.given.iter_mut().for_each(|(_, places)| places.clear());
        for (place, slot) in self.slots.iter().enumerate() {
            if slot.changed {
                self.changed.push(place);
            } else if let Some((_, places)) = self.given.iter_mut().find(|(write, _)| *write == slot.write) {
                places.push(place);
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
    fn places_are_found_again_and_shrinking_keeps_what_the_store_lacks() {
        let mut cache = Cache::default();
        cache.turn();
        for key in 0..100_u32 {
            let (place, first) = cache.place(&key.to_be_bytes(), false);
            assert!(first);
            cache.slot(place).unwrap().last = (key % 10 == 0).then_some(0);
            cache.settle(place);
        }
        assert_eq!(cache.changed(), 10);
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
        assert_eq!(cache.pinned(), cache.bytes());
        assert_eq!((cache.slots.len(), cache.places.len()), (10, 10));
        let mut given = 0;
        cache.take_changed(1, |_| given += 1);
        assert_eq!((given, cache.changed()), (10, 0));
        cache.shrink(0);
        assert_eq!(cache.slots.len(), 10, "their write is under way");
        // One changes meanwhile, and is given away again.
        let change = |cache: &mut Cache, key: u32| {
            cache.turn();
            let (place, _) = cache.place(&key.to_be_bytes(), false);
            cache.slot(place).unwrap().last = Some(0);
            cache.settle(place);
            cache.slots[place].bytes
        };
        let mut pinned = change(&mut cache, 30);
        cache.take_changed(2, |slot| assert_eq!(slot.key.as_ref(), 30_u32.to_be_bytes()));
        cache.landed(1);
        assert_eq!(cache.pinned(), pinned, "it is in a later write");
        // So does another, and the rest is let go of.
        pinned += change(&mut cache, 40);
        assert_eq!((cache.pinned(), cache.changed()), (pinned, 1));
        cache.shrink(0);
        assert_eq!((cache.slots.len(), cache.pinned()), (2, pinned));
        cache.landed(2);
        assert_eq!(
            cache.pinned(),
            cache.slots.iter().filter(|slot| slot.changed).map(|slot| slot.bytes).sum::<usize>()
        );
        cache.take_changed(3, |slot| assert_eq!(slot.key.as_ref(), 40_u32.to_be_bytes()));
        cache.landed(3);
        assert_eq!(cache.pinned(), 0);
        cache.shrink(0);
        assert_eq!((cache.slots.len(), cache.places.len(), cache.bytes()), (0, 0, 0));
    }
}
