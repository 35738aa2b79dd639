//! The shards of a stream and what has become of each.

use std::collections::{BTreeMap, BTreeSet};

use headwater_core::stream::Progress;
use headwater_core::{Micros, Result};

use crate::client::Listed;
use crate::kpl::HashKeys;
use crate::position::Place;
use crate::starts::{First, Starts};

/// What has become of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not handed out yet.
    Waiting,
    /// Being read.
    Reading,
    /// Its end was reported and is not committed yet.
    Ended,
    /// Its end is committed.
    Done,
}

#[derive(Debug)]
struct Shard {
    parents: Vec<String>,
    closed: bool,
    /// In the last listing.
    listed: bool,
    state: State,
    /// Where to begin.
    place: Place,
    /// It has a checkpoint.
    begun: bool,
    /// Nothing in it is to be read: its end is reported as soon as it is handed out.
    over: bool,
    hash_keys: Option<HashKeys>,
}

/// The shards of a stream.
#[derive(Debug, Default)]
pub(crate) struct Shards(BTreeMap<String, Shard>);

impl Shards {
    /// Whether the shard is there, as far as anybody knows.
    pub(crate) fn knows(&self, shard: &str) -> bool {
        self.0.contains_key(shard)
    }

    /// The shards of a listing that are not known yet.
    pub(crate) fn unknown<'a>(&self, listing: &'a [Listed]) -> Vec<&'a Listed> {
        listing.iter().filter(|listed| !self.0.contains_key(&listed.shard)).collect()
    }

    /// Takes a listing, and for the shards in it that are new how far they were read before. What was not read begins
    /// as `starts` say, or at its beginning.
    ///
    /// What is not to be read at all is over: it is handed out to have its end committed, which who waits for the ends of
    /// all closed shards would miss. So is what has no checkpoint, where a descendant has one: a child is only read once
    /// its parents are finished.
    ///
    /// # Errors
    /// `Data` for a checkpoint of another source.
    pub(crate) fn list(
        &mut self,
        listing: &[Listed],
        progress: &BTreeMap<String, Progress>,
        starts: &Starts,
        now: Micros,
    ) -> Result<()> {
        let listed = listing.iter().map(|listed| listed.shard.as_str()).collect::<BTreeSet<_>>();
        for (name, shard) in &mut self.0 {
            shard.listed = listed.contains(name.as_str());
        }
        // What retention has removed and nobody reads is gone.
        self.0.retain(|_, shard| shard.listed || matches!(shard.state, State::Reading | State::Ended));
        let over_before = ancestors(listing, progress);
        for found in listing {
            if let Some(known) = self.0.get_mut(&found.shard) {
                known.closed = found.closed;
                continue;
            }
            let (state, place, over) = match (progress.get(&found.shard), starts.of(&found.shard)) {
                (Some(Progress::End), _) => (State::Done, Place::Start, true),
                (Some(Progress::Through(position)), _) => {
                    (State::Waiting, Place::of(position)?, found.is_done(position))
                }
                (None, First::Skipped) => (State::Waiting, found.behind_all(now), true),
                (None, _) if over_before.contains(found.shard.as_str()) => {
                    (State::Waiting, found.behind_all(now), true)
                }
                (None, First::Begins(place)) => (State::Waiting, place.clone(), false),
            };
            let (parents, closed, begun) = (found.parents.clone(), found.closed, progress.contains_key(&found.shard));
            let hash_keys = found.hash_keys.clone();
            let shard = Shard { parents, closed, listed: true, state, place, begun, over, hash_keys };
            self.0.insert(found.shard.clone(), shard);
        }
        Ok(())
    }

    /// The shards that may be handed out: nobody reads them, and all their parents are finished or gone. What is over has no
    /// records that could come too early, and waits for nobody.
    pub(crate) fn ready(&self) -> Vec<String> {
        let is_done = |parent: &String| self.0.get(parent).is_none_or(|parent| parent.state == State::Done);
        let waiting = self.0.iter().filter(|(_, shard)| shard.state == State::Waiting);
        let ready = waiting.filter(|(_, shard)| shard.over || shard.parents.iter().all(is_done));
        ready.map(|(name, _)| name.clone()).collect()
    }

    /// The parents of a shard that are gone. None where something of the shard was read before, or nothing will be: then
    /// its parents have been looked at, or do not matter.
    pub(crate) fn gone_parents(&self, shard: &str) -> Vec<String> {
        let parents = self.0.get(shard).filter(|shard| !shard.begun && !shard.over).map(|shard| &shard.parents);
        parents.into_iter().flatten().filter(|parent| !self.0.contains_key(*parent)).cloned().collect()
    }

    /// The shard is being read now; gives where it begins.
    pub(crate) fn read(&mut self, shard: &str) -> Option<Place> {
        let shard = self.0.get_mut(shard)?;
        shard.state = State::Reading;
        Some(shard.place.clone())
    }

    /// The hash keys that the shard takes, where they are known.
    pub(crate) fn hash_keys(&self, shard: &str) -> Option<HashKeys> {
        self.0.get(shard).and_then(|shard| shard.hash_keys.clone())
    }

    /// Whether nothing in the shard is to be read.
    pub(crate) fn is_over(&self, shard: &str) -> bool {
        self.0.get(shard).is_some_and(|shard| shard.over)
    }

    /// The shard's end was reported.
    pub(crate) fn ended(&mut self, shard: &str) {
        if let Some(shard) = self.0.get_mut(shard) {
            shard.state = State::Ended;
            shard.closed = true;
        }
    }

    /// The shard's end is committed. Whether it is a shard whose end was reported.
    pub(crate) fn finished(&mut self, shard: &str) -> bool {
        match self.0.get_mut(shard) {
            Some(shard) if shard.state == State::Ended => {
                shard.state = State::Done;
                true
            }
            _ => false,
        }
    }

    /// What this worker has in hand.
    pub(crate) fn held(&self) -> Vec<String> {
        let held = self.0.iter().filter(|(_, shard)| matches!(shard.state, State::Reading | State::Ended));
        held.map(|(name, _)| name.clone()).collect()
    }

    /// Whether the shard was read to its end and none of its children is known.
    pub(crate) fn lacks_children(&self, shard: &str) -> bool {
        !self.0.values().any(|other| other.parents.iter().any(|parent| parent == shard))
    }
}

/// The ancestors of shards that were begun. Each is looked at once, however many ways lead to it.
fn ancestors<'a>(listing: &'a [Listed], progress: &BTreeMap<String, Progress>) -> BTreeSet<&'a str> {
    let parents = listing.iter().map(|listed| (listed.shard.as_str(), &listed.parents)).collect::<BTreeMap<_, _>>();
    let mut waiting = parents.keys().copied().filter(|shard| progress.contains_key(*shard)).collect::<Vec<_>>();
    let mut found = BTreeSet::new();
    while let Some(shard) = waiting.pop() {
        for parent in parents.get(shard).copied().into_iter().flatten() {
            if found.insert(parent.as_str()) {
                waiting.push(parent);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use headwater_core::Position;

    use super::*;
    use crate::position::{Sequence, Within};

    const NOW: Micros = 1_700_000_000_000_000;

    fn listed(shard: &str, parents: &[&str], closed: bool) -> Listed {
        let parents = parents.iter().map(|parent| (*parent).into()).collect();
        Listed { shard: shard.into(), parents, closed, end: closed.then(end), hash_keys: None }
    }

    /// Where every shard ends that is closed.
    fn end() -> Sequence {
        Sequence::parse("99").unwrap()
    }

    fn behind_all() -> Place {
        Place::Record(end(), Within::Whole { seen: Some(NOW) })
    }

    /// `a` was split into `b` and `c`, which were merged to `d`.
    fn diamond() -> [Listed; 4] {
        [listed("a", &[], true), listed("b", &["a"], true), listed("c", &["a"], true), listed("d", &["b", "c"], false)]
    }

    fn shards(progress: &[(&str, Progress)], starts: &Starts) -> Shards {
        let mut shards = Shards::default();
        let progress = progress.iter().map(|(shard, progress)| ((*shard).into(), progress.clone())).collect();
        shards.list(&diamond(), &progress, starts, NOW).unwrap();
        shards
    }

    fn finish(shards: &mut Shards, shard: &str) {
        shards.read(shard).unwrap();
        shards.ended(shard);
        assert!(shards.finished(shard));
    }

    #[test]
    fn a_child_waits_for_the_ends_of_all_its_parents() {
        let mut shards = shards(&[], &Starts::default());
        assert_eq!(shards.ready(), ["a"]);
        shards.read("a");
        assert_eq!(shards.ready(), [""; 0]);
        shards.ended("a");
        assert_eq!(shards.ready(), [""; 0], "the end is reported and not committed");
        assert!(shards.finished("a"));
        assert_eq!(shards.ready(), ["b", "c"]);
        finish(&mut shards, "b");
        assert_eq!(shards.ready(), ["c"]);
        finish(&mut shards, "c");
        assert_eq!(shards.ready(), ["d"]);
        assert!(!shards.finished("d"), "nobody has read it");
    }

    #[test]
    fn checkpoints_say_what_is_over_and_where_to_go_on() {
        let through = |position: Position| Progress::Through(position);
        let place = Place::since(7);
        let mut shards = shards(&[("a", Progress::End), ("b", through(place.position()))], &Starts::default());
        assert_eq!(shards.ready(), ["b", "c"]);
        assert_eq!(shards.read("b"), Some(place));
        assert_eq!(shards.read("c"), Some(Place::Start));
    }

    /// Hands out what is over, whose ends are committed then.
    fn finish_over(shards: &mut Shards, over: &[&str]) {
        assert_eq!(shards.ready(), over);
        for shard in over {
            assert!(shards.is_over(shard), "{shard}");
            assert_eq!(shards.read(shard), Some(behind_all()), "{shard}");
            shards.ended(shard);
        }
        assert_eq!(shards.ready(), [""; 0], "the ends are reported and not committed");
        assert!(over.iter().all(|shard| shards.finished(shard)));
    }

    #[test]
    fn parents_of_what_was_begun_are_over() {
        let mut shards = shards(&[("d", Progress::Through(Position::START))], &Starts::default());
        finish_over(&mut shards, &["a", "b", "c"]);
        assert_eq!(shards.ready(), ["d"]);
        assert!(!shards.is_over("d"));
    }

    #[test]
    fn what_is_done_up_to_its_end_is_over_and_what_was_read_in_part_is_not() {
        let place = |number: &str, within| Place::Record(Sequence::parse(number).unwrap(), within);
        for (place, over) in [
            (behind_all(), true),
            (place("99", Within::Whole { seen: None }), true),
            (place("99", Within::Sub(7)), false),
            (place("98", Within::Whole { seen: Some(NOW) }), false),
            (Place::since(NOW), false),
        ] {
            // What the first start left out and somebody else has read in part is read on.
            for starts in [Starts::default(), Starts::of_shards([("a", First::Skipped)])] {
                let mut shards = shards(&[("a", Progress::Through(place.position()))], &starts);
                assert_eq!((shards.is_over("a"), shards.ready()), (over, vec!["a".to_owned()]), "{place:?}");
                assert_eq!(shards.read("a"), Some(place.clone()));
            }
        }
    }

    #[test]
    fn many_generations_of_splits_and_merges_are_looked_at_once() {
        // Forty times a shard was split and its halves were merged: 2^40 ways lead from the first to the last.
        let mut listing = vec![listed("0", &[], true)];
        for generation in 0..40 {
            let (parent, left, right) = (generation.to_string(), format!("{generation}l"), format!("{generation}r"));
            listing.push(listed(&left, &[&parent], true));
            listing.push(listed(&right, &[&parent], true));
            listing.push(listed(&(generation + 1).to_string(), &[&left, &right], true));
        }
        let begun = BTreeMap::from([("40".to_owned(), Progress::Through(Position::START))]);
        assert_eq!(ancestors(&listing, &begun).len(), listing.len() - 1);
        assert!(ancestors(&listing, &BTreeMap::new()).is_empty());
        let mut shards = Shards::default();
        shards.list(&listing, &BTreeMap::new(), &Starts::default(), NOW).unwrap();
        assert_eq!(shards.ready(), ["0"]);
    }

    #[test]
    fn shards_that_are_their_own_ancestors_are_no_trouble() {
        let listing = [listed("a", &["b"], true), listed("b", &["a"], true), listed("c", &["b"], false)];
        let mut shards = Shards::default();
        shards.list(&listing, &BTreeMap::new(), &Starts::default(), NOW).unwrap();
        assert_eq!(shards.ready(), [""; 0]);
        let begun = BTreeMap::from([("c".to_owned(), Progress::Through(Position::START))]);
        assert_eq!(ancestors(&listing, &begun), BTreeSet::from(["a", "b"]));
    }

    #[test]
    fn the_first_start_says_where_to_begin_and_what_to_leave_out() {
        let at = |time| First::Begins(Place::since(time));
        let latest =
            Starts::of_shards([("a", First::Skipped), ("b", First::Skipped), ("c", First::Skipped), ("d", at(5))]);
        let mut shards = shards(&[], &latest);
        finish_over(&mut shards, &["a", "b", "c"]);
        assert_eq!(shards.ready(), ["d"]);
        assert_eq!(shards.read("d"), Some(Place::since(5)));
        let mut at = super::tests::shards(&[], &Starts::of_shards([("a", at(5)), ("b", at(5))]));
        assert_eq!(at.ready(), ["a"]);
        finish(&mut at, "a");
        assert_eq!(at.read("b"), Some(Place::since(5)));
        assert_eq!(at.read("c"), Some(Place::Start));
    }

    #[test]
    fn parents_that_retention_has_removed_hold_nothing_up() {
        let mut shards = Shards::default();
        let [_, b, c, d] = diamond();
        shards.list(&[b, c, d.clone()], &BTreeMap::new(), &Starts::default(), NOW).unwrap();
        assert_eq!(shards.ready(), ["b", "c"]);
        assert_eq!(shards.gone_parents("b"), ["a"]);
        // `b` is being read while it leaves the listing; `c` was never begun.
        shards.read("b");
        shards.list(std::slice::from_ref(&d), &BTreeMap::new(), &Starts::default(), NOW).unwrap();
        assert_eq!(shards.ready(), [""; 0]);
        shards.ended("b");
        assert!(shards.finished("b"));
        assert_eq!(shards.ready(), ["d"]);
        assert_eq!(shards.gone_parents("d"), ["c"]);
    }

    #[test]
    fn gone_parents_matter_wherever_a_shard_begins_until_it_is_begun() {
        let [.., d] = diamond();
        for place in [Place::Start, Place::since(7)] {
            let mut shards = Shards::default();
            let starts = Starts::of_shards([("d", First::Begins(place.clone()))]);
            shards.list(std::slice::from_ref(&d), &BTreeMap::new(), &starts, NOW).unwrap();
            assert_eq!(shards.gone_parents("d"), ["b", "c"]);
            let mut shards = Shards::default();
            let begun = BTreeMap::from([("d".to_owned(), Progress::Through(place.position()))]);
            shards.list(std::slice::from_ref(&d), &begun, &starts, NOW).unwrap();
            assert_eq!(shards.gone_parents("d"), [""; 0]);
        }
    }
}
