//! Writing to the online store, one write at a time.
//!
//! While a write is under way, what comes is absorbed: rows are packed, window rows brought up to date in memory. When the
//! write has landed, all that was absorbed meanwhile is the next one. So a record that comes alone is written at once, and
//! the slower the store is for what comes, the more rows one write holds, of which those of one key are written once.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use headwater_core::online::OnlineRow;
use headwater_core::{Error, OnlineStore, Result, SplitId};
use rustc_hash::FxHashMap;

use super::computed;
use super::lane::Piece;
use super::retry::{Pauses, retry};
use super::sink::{Ended, Sink};
use super::status::Board;
use super::windows::{Calls, Changed, WindowLane};

/// Packed rows of one split on their way to the store: of each key the newest.
#[derive(Debug, Default)]
pub(super) struct Packed {
    rows: FxHashMap<Bytes, OnlineRow>,
    bytes: usize,
}

impl Packed {
    fn add(&mut self, rows: Vec<OnlineRow>) {
        let bytes =
            |row: &OnlineRow| size_of::<(Bytes, OnlineRow)>() + row.key.len() + row.version.len() + row.value.len();
        for row in rows {
            match self.rows.entry(row.key.clone()) {
                Entry::Occupied(mut known) => {
                    if known.get().version <= row.version {
                        self.bytes = (self.bytes + bytes(&row)).saturating_sub(bytes(known.get()));
                        known.insert(row);
                    }
                }
                Entry::Vacant(free) => {
                    self.bytes += bytes(&row);
                    free.insert(row);
                }
            }
        }
    }
}

/// What one write holds of one lane.
struct Write {
    lane: usize,
    table: String,
    packed: Vec<(SplitId, Vec<OnlineRow>)>,
    /// Of a windowed view, for each of its epochs.
    changed: Vec<Changed>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Written {
    lane: usize,
    /// The splits whose rows were written, with how many of them lost to others; none of a windowed view.
    splits: Vec<(SplitId, u64)>,
    /// The epochs that were written, with the number of the write.
    epochs: Vec<(String, u64)>,
    retries: u64,
}

impl Sink {
    /// Prepares what was accepted for the next write: packs rows, and brings window rows up to date.
    pub(super) async fn absorb(&mut self) -> Result<()> {
        let calls = Calls::patient(&self.project.online, self.pauses(), &self.board);
        for lane in &mut self.lanes {
            let mut pending = Vec::new();
            for (split, state) in &mut lane.splits {
                if !state.pending.is_empty() {
                    pending.push((split.clone(), std::mem::take(&mut state.pending)));
                }
            }
            if pending.is_empty() {
                continue;
            }
            let pieces = pending.iter().flat_map(|(_, pieces)| pieces);
            self.absorbed += pieces.map(|piece| piece.rows.num_rows()).sum::<usize>();
            if let Some(windows) = &mut lane.windows {
                let joined = pending.into_iter().filter_map(|(split, pieces)| match Piece::join(&pieces) {
                    Ok(piece) => piece.map(|piece| Ok((split, piece))),
                    Err(error) => Some(Err(error)),
                });
                let retries = windows.take(&calls, &joined.collect::<Result<Vec<_>>>()?).await?;
                if let Some((_, state)) = lane.splits.iter_mut().next() {
                    state.counts.retries += retries;
                }
                continue;
            }
            let (encoder, mut packed) = (Arc::clone(&lane.encoder), std::mem::take(&mut lane.packed));
            let bytes = pending.iter().flat_map(|(_, pieces)| pieces).map(Piece::bytes).sum();
            lane.packed = computed(bytes, move || {
                for (split, pieces) in pending {
                    if let Some(piece) = Piece::join(&pieces)? {
                        let rows = encoder.encode(&piece.into_view_rows(&split))?;
                        packed.entry(split).or_default().add(rows);
                    }
                }
                Ok(packed)
            })
            .await?;
        }
        Ok(())
    }

    /// Whether more may be accepted before what is under way has landed.
    pub(super) fn has_room(&self) -> bool {
        if self.is_publishing() && self.logs_are_full() {
            return false;
        }
        // Dead letters go with the next cut, which waits for what is under way.
        if self.dead_letters_are_large() && (self.is_writing() || !self.syncing.is_empty()) {
            return false;
        }
        if !self.is_writing() {
            return true;
        }
        let packed = self.lanes.iter().flat_map(|lane| lane.packed.values()).map(|packed| packed.bytes).sum::<usize>();
        let windows_are_full =
            self.lanes.iter().filter_map(|lane| lane.windows.as_ref()).any(WindowLane::must_be_written);
        // However few their keys are: what is read far ahead of the store is read again after a crash.
        self.absorbed < self.tuning.micro_batch_rows && packed < self.tuning.packed_bytes && !windows_are_full
    }

    /// Whether a write is under way.
    pub(super) fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// Begins to write what was absorbed, unless a write is under way. Everything that was accepted is absorbed, so that
    /// a cut that is due can be taken here.
    pub(super) async fn write(&mut self) -> Result<()> {
        if self.is_writing() {
            return Ok(());
        }
        if self.cut_is_due && self.cut.is_none() && self.syncing_cut.is_none() {
            // No checkpoint speaks of records whose dead letters are not published: the cut is saved after they are.
            self.start_burying()?;
            self.cut = Some(self.checkpoints());
            self.cut_is_due = false;
        }
        let mut writes = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let changed = match &mut lane.windows {
                Some(windows) => windows.changed().await?,
                None => Vec::new(),
            };
            let packed = std::mem::take(&mut lane.packed).into_iter();
            let packed = packed.map(|(split, packed)| (split, packed.rows.into_values().collect()));
            let packed = packed.collect::<Vec<_>>();
            if !(packed.is_empty() && changed.is_empty()) {
                writes.push(Write { lane: index, table: lane.table.clone(), packed, changed });
            }
        }
        self.absorbed = 0;
        if !writes.is_empty() {
            self.unsynced = true;
            let (online, pauses, board) = (Arc::clone(&self.project.online), self.pauses(), self.board.clone());
            self.writing.spawn(async move {
                let mut written = Vec::with_capacity(writes.len());
                for one in writes {
                    written.push(one.run(&online, pauses, &board).await?);
                }
                Ok(written)
            });
        }
        Ok(())
    }

    /// Waits until the write that is under way has landed.
    async fn landed(&mut self) -> Result<()> {
        match self.writing.join_next().await {
            Some(written) => self.note_written(written),
            None => Ok(()),
        }
    }

    /// Notes that a write has landed.
    pub(super) fn note_written(&mut self, written: Ended<Vec<Written>>) -> Result<()> {
        let written = written.map_err(|panic| Error::unexpected("a write died").with_source(panic))??;
        for Written { lane, splits, epochs, retries } in written {
            let Some(lane) = self.lanes.get_mut(lane) else { continue };
            if let Some(windows) = &mut lane.windows {
                windows.landed(&epochs);
                if let Some((_, state)) = lane.splits.iter_mut().next() {
                    state.counts.retries += retries;
                }
            }
            for (split, stale) in splits {
                if let Some(state) = lane.splits.get_mut(&split) {
                    state.counts.retries += retries;
                    state.counts.stale += stale;
                }
            }
        }
        Ok(())
    }

    /// Writes what was accepted; readable when this returns.
    ///
    /// # Errors
    /// The store's, permanent ones.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.absorb().await?;
        self.landed().await?;
        self.write().await?;
        self.landed().await
    }
}

impl Write {
    async fn run(self, online: &Arc<dyn OnlineStore>, pauses: Pauses, board: &Board) -> Result<Written> {
        let Self { lane, table, packed, changed } = self;
        let mut written = Written { lane, splits: Vec::new(), epochs: Vec::new(), retries: 0 };
        let calls = Calls::patient(online, pauses, board);
        for changed in changed {
            written.epochs.push((changed.epoch.clone(), changed.number));
            written.retries += changed.put(&calls).await?;
        }
        if packed.is_empty() {
            return Ok(written);
        }
        let mut rows = Vec::with_capacity(packed.iter().map(|(_, own)| own.len()).sum());
        let mut ends = Vec::with_capacity(packed.len());
        for (split, mut own) in packed {
            rows.append(&mut own);
            ends.push((split, rows.len()));
        }
        let (put, retries) = retry("online store", pauses, board, || online.put(&table, rows.clone())).await?;
        written.retries += retries;
        let mut splits = ends.iter().map(|(split, _)| (split.clone(), 0)).collect::<Vec<_>>();
        match splits.as_mut_slice() {
            _ if put.stale == 0 => {}
            [(_, stale)] => *stale = put.stale,
            _ => {
                splits = retry("online store", pauses, board, || stale(online.as_ref(), &table, &rows, &ends)).await?.0
            }
        }
        written.splits = splits;
        Ok(written)
    }
}

/// How many of each split's rows lost to others: those whose version is not the stored one, and lower. The rows of a split
/// end where `ends` says.
async fn stale(
    online: &dyn OnlineStore,
    table: &str,
    rows: &[OnlineRow],
    ends: &[(SplitId, usize)],
) -> Result<Vec<(SplitId, u64)>> {
    let mut out = Vec::new();
    let mut begin = 0;
    for (split, end) in ends {
        let own = rows.get(begin..*end).unwrap_or_default();
        begin = *end;
        let keys = own.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
        let stored = online.get(table, &keys).await?;
        let lost = own
            .iter()
            .zip(&stored)
            .filter(|(row, stored)| stored.as_ref().is_some_and(|old| old.version > row.version));
        out.push((split.clone(), lost.count() as u64));
    }
    Ok(out)
}
