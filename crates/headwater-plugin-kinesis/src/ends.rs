//! When the ends of shards were last seen: noted when a reader leaves, so that shards to which nothing comes lose no
//! position while it is away. What is said while it runs costs a position each time, and is said seldom.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_core::Result;
use headwater_core::stream::{Progress, ReaderContext};

use crate::notes;
use crate::position::Place;

/// The name of the note.
const NOTE: &str = "shard-ends";

/// The places of shards at whose end somebody was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ends(BTreeMap<String, Place>);

impl Ends {
    /// What the last reader has noted that left.
    pub(crate) async fn load(context: &ReaderContext) -> Result<Self> {
        context.checkpoints.noted(NOTE).await?.map_or_else(|| Ok(Self::default()), |note| Self::read(&note))
    }

    /// Notes those of the shards that are `known`.
    pub(crate) async fn note(mut self, known: impl Fn(&str) -> bool, context: &ReaderContext) -> Result<()> {
        self.0.retain(|shard, _| known(shard));
        if self.0.is_empty() {
            return Ok(());
        }
        context.checkpoints.note(&[(NOTE.to_owned(), self.write())]).await
    }

    /// The end of a shard is here now.
    pub(crate) fn seen(&mut self, shard: &str, place: &Place) {
        match self.0.get_mut(shard) {
            Some(known) => known.clone_from(place),
            None => drop(self.0.insert(shard.to_owned(), place.clone())),
        }
    }

    /// How far a shard was read, with when its end was last seen there.
    ///
    /// # Errors
    /// `Data` for a position of another source.
    pub(crate) fn of(&self, shard: &str, progress: Progress) -> Result<Progress> {
        Ok(match (progress, self.0.get(shard)) {
            (Progress::Through(position), Some(end)) => {
                Progress::Through(Place::of(&position)?.or_later(end).position())
            }
            (progress, _) => progress,
        })
    }

    fn write(&self) -> Bytes {
        notes::write(self.0.iter().map(|(shard, place)| (shard, place.position().to_string())))
    }

    fn read(note: &[u8]) -> Result<Self> {
        notes::read(note, "ended", notes::place).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_back() {
        let mut ends = Ends::default();
        ends.seen("shardId-000000000000", &Place::Start.at_end(7));
        ends.seen("shardId-000000000001", &Place::since(5).at_end(7));
        ends.seen("shardId-000000000001", &Place::since(5).at_end(8));
        assert_eq!(Ends::read(&ends.write()).unwrap(), ends);
        for wrong in [&b"shardId-000000000000"[..], b"a xyz", b"\xff 00"] {
            assert!(Ends::read(wrong).is_err());
        }
    }
}
