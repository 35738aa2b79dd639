//! From rows of a view to window rows of an epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use futures::future::try_join_all;
use headwater_core::online::OnlineRow;
use headwater_core::version::encode_version;
use headwater_core::{Error, Micros, Position, Result, SplitId};

use super::Calls;
use super::cache::Cache;
use crate::ingest::blocking;
use crate::rows::KeyColumns;
use crate::view::{View, ViewRows};
use crate::windows::epoch::{Epoch, is_window_row, push_split, table, written_row};
use crate::windows::{Layout, State};

/// Fewer rows are not worth a hop to another thread.
const INLINE_ROWS: usize = 64;
/// Rows of one call of the store.
const PUT_ROWS: usize = 16_384;

/// Writes an epoch's window rows.
///
/// A row is a pure function of (epoch, split, entity, position): an event at or below the row's position changes
/// nothing, so what is delivered again counts once, and of two writers the one that got further stays.
#[derive(Debug)]
pub(crate) struct Writer {
    view: Arc<View>,
    pub(super) epoch: Epoch,
    layout: Arc<Layout>,
    table: String,
    /// The most that all rows in memory take between two flushes.
    budget: usize,
    /// For each split, and `None` for the batch rows.
    caches: BTreeMap<Option<SplitId>, Cache>,
    /// Up to where splits were taken since the last write, whatever became of their rows.
    taken: BTreeMap<SplitId, Position>,
    /// Nothing lies in the table that is not in the cache.
    fresh: bool,
    /// How many writes there were.
    writes: u64,
}

/// Rows to be written.
#[derive(Debug)]
pub(in crate::ingest) struct Changed {
    /// The epoch.
    pub(in crate::ingest) epoch: String,
    /// Which of the epoch's writes this is.
    pub(in crate::ingest) number: u64,
    table: String,
    rows: Vec<OnlineRow>,
}

impl Changed {
    /// Has what says how far splits are written come behind all of that, and not before: what is brought up is not served
    /// yet, and must not seem to have what it lacks. Gives back how many rows say so.
    fn put_marks_last(&mut self) -> usize {
        let marks = self.rows.partition_point(|row| !is_window_row(row));
        self.rows.rotate_left(marks);
        marks
    }

    /// Writes them; readable when this returns. Gives back how often it had to be tried again.
    pub(in crate::ingest) async fn put(self, calls: &Calls) -> Result<u64> {
        let mut retries = 0;
        let mut rows = self.rows.into_iter().peekable();
        while rows.peek().is_some() {
            retries += calls.put(&self.table, rows.by_ref().take(PUT_ROWS).collect()).await?;
        }
        Ok(retries)
    }
}

/// What a step on another thread needs and gives back.
struct Step {
    rows: Arc<ViewRows>,
    cache: Cache,
    /// For each row its place in the cache; `None` where it does not count.
    places: Vec<Option<usize>>,
    /// The places whose rows are to be looked up.
    unknown: Vec<usize>,
    /// The places that are asked for.
    asked: Vec<usize>,
}

impl Writer {
    /// A writer of an epoch of this view. `fresh` says that nobody has written to it.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub(crate) fn new(project: &str, view: &Arc<View>, epoch: &Epoch, budget: usize, fresh: bool) -> Result<Self> {
        Ok(Self {
            layout: Arc::new(Layout::new(&epoch.windows)?),
            table: table(project, &view.name, epoch),
            view: Arc::clone(view),
            epoch: epoch.clone(),
            budget,
            caches: BTreeMap::new(),
            taken: BTreeMap::new(),
            fresh,
            writes: 0,
        })
    }

    /// Takes rows: of splits of the stream in order of their positions, or (`None`) such as count towards the batch row,
    /// each of them once. What is of one split comes in one piece; splits are worked on side by side. Nothing is written
    /// by it.
    ///
    /// # Errors
    /// The store's; `Corrupt` and `FormatVersion` for rows that cannot be read. The rows in memory are lost then.
    pub(crate) async fn take(&mut self, calls: &Calls, pieces: Vec<(ViewRows, Option<&SplitId>)>) -> Result<u64> {
        let pieces = pieces.into_iter().filter(|(rows, _)| rows.rows.num_rows() > 0);
        let pieces = pieces.map(|(rows, into)| {
            let into = into.cloned();
            let cache = self.caches.remove(&into).unwrap_or_default();
            (rows, into, cache)
        });
        let pieces = pieces.collect::<Vec<_>>();
        let through = pieces.iter().filter_map(|(rows, into, _)| {
            let last = rows.positions.len().checked_sub(1)?;
            Some((into.clone()?, Position::new(rows.positions.value(last).to_vec())))
        });
        let through = through.collect::<Vec<_>>();
        // Where this fails, nobody knows how far they are.
        through.iter().for_each(|(split, _)| drop(self.taken.remove(split)));
        let taken = try_join_all(pieces.into_iter().map(|(rows, into, cache)| self.bring_in(calls, rows, into, cache)));
        let mut retries = 0;
        for (into, cache, again) in taken.await? {
            self.caches.insert(into, cache);
            retries += again;
        }
        self.taken.extend(through);
        self.shrink();
        Ok(retries)
    }

    /// Brings rows of one split into its rows in memory.
    async fn bring_in(
        &self,
        calls: &Calls,
        rows: ViewRows,
        into: Option<SplitId>,
        cache: Cache,
    ) -> Result<(Option<SplitId>, Cache, u64)> {
        let (view, layout, log_from) = (Arc::clone(&self.view), Arc::clone(&self.layout), self.epoch.log_from);
        let small = rows.rows.num_rows() <= INLINE_ROWS;
        let step = Step { rows: Arc::new(rows), cache, places: Vec::new(), unknown: Vec::new(), asked: Vec::new() };
        let (split, fresh) = (into.clone(), self.fresh);
        let place = move || step.place(&view, split.as_ref(), log_from, fresh);
        let mut step = if small { place()? } else { blocking(place).await? };

        let mut retries = 0;
        if !step.unknown.is_empty() {
            let keys = step.unknown.iter().map(|place| step.cache.slot(*place).map(|slot| slot.key.clone()));
            let keys = keys.map(Option::unwrap_or_default).collect::<Vec<_>>();
            let (found, again) = calls.get(&self.table, &keys).await?;
            retries += again;
            let layout = Arc::clone(&self.layout);
            let load = move || {
                for (place, row) in std::mem::take(&mut step.unknown).into_iter().zip(found) {
                    let Some(slot) = step.cache.slot(place) else { continue };
                    if let Some(row) = row {
                        slot.state = State::decode(&layout, &row.value)?;
                        slot.before = slot.state.position().clone();
                    }
                    slot.unknown = false;
                }
                Ok(step)
            };
            step = if small { load()? } else { blocking(load).await? };
        }
        let view = Arc::clone(&self.view);
        let guarded = into.is_some();
        let update = move || step.update(&view, &layout, guarded);
        let cache = if small { update()? } else { blocking(update).await? };
        Ok((into, cache, retries))
    }

    /// Whether more lies in memory than should.
    pub(crate) fn is_full(&self) -> bool {
        self.caches.values().map(Cache::bytes).sum::<usize>() > self.budget
    }

    /// Whether rows that the store does not have take all that may lie in memory.
    pub(super) fn must_be_written(&self) -> bool {
        self.caches.values().map(Cache::pinned).sum::<usize>() > self.budget
    }

    /// What has changed since the last call, to be written: until [`Writer::landed`] is told so, the rows stay in memory.
    ///
    /// # Errors
    /// None of the rows' own.
    pub(super) async fn changed(&mut self) -> Result<Option<Changed>> {
        let count = self.caches.values().map(Cache::changed).sum::<usize>();
        if count == 0 && self.taken.is_empty() {
            return Ok(None);
        }
        self.writes += 1;
        let (layout, number) = (Arc::clone(&self.layout), self.writes);
        let (mut caches, taken) = (std::mem::take(&mut self.caches), std::mem::take(&mut self.taken));
        let encode = move || {
            let mut rows = Vec::with_capacity(count + taken.len());
            rows.extend(taken.iter().map(|(split, through)| written_row(split, through)));
            for cache in caches.values_mut() {
                cache.take_changed(number, |slot| {
                    rows.push(OnlineRow {
                        key: slot.key.clone(),
                        version: Bytes::copy_from_slice(slot.state.position().as_bytes()),
                        value: slot.state.encode(&layout),
                        expiry: expiry(&layout, &slot.state),
                    });
                });
            }
            // Neighbours in the store go with one call, and what says how far they are with the first.
            rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            Ok((caches, rows))
        };
        let (caches, rows) = if count <= INLINE_ROWS { encode()? } else { blocking(encode).await? };
        self.caches = caches;
        Ok(Some(Changed { epoch: self.epoch.id.clone(), number, table: self.table.clone(), rows }))
    }

    /// What [`Writer::changed`] gave under this number, and all before, is in the store.
    pub(super) fn landed(&mut self, number: u64) {
        self.caches.values_mut().for_each(|cache| cache.landed(number));
        self.shrink();
    }

    /// Lets go of rows that the store has too, where more lies in memory than should.
    fn shrink(&mut self) {
        if self.is_full() {
            let share = self.budget / self.caches.len().max(1);
            self.caches.values_mut().for_each(|cache| cache.shrink(share));
            self.fresh = false;
        }
    }

    /// Writes what has changed; readable when this returns.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn flush(&mut self, calls: &Calls) -> Result<u64> {
        let Some(mut changed) = self.changed().await? else { return Ok(0) };
        let (marks, number) = (changed.put_marks_last(), changed.number);
        let rows = changed.rows.len() - marks;
        changed.put(calls).await?;
        self.landed(number);
        Ok(rows as u64)
    }

    /// Changes how much may lie in memory.
    pub(super) fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// Forgets rows of splits that somebody else may write from now on.
    pub(crate) fn forget(&mut self, splits: &[SplitId]) {
        self.fresh = false;
        self.caches.retain(|split, _| split.as_ref().is_none_or(|split| !splits.contains(split)));
        self.taken.retain(|split, _| !splits.contains(split));
    }
}

/// From when on no window of any read can reach the row: twice the longest window after its newest event.
fn expiry(layout: &Layout, state: &State) -> Option<Micros> {
    let reach = layout.longest()?.saturating_mul(2);
    Some(state.newest()?.saturating_add(reach))
}

impl Step {
    /// Finds the place of each row that counts.
    fn place(mut self, view: &View, split: Option<&SplitId>, log_from: Option<Micros>, fresh: bool) -> Result<Self> {
        let batch = &self.rows.rows;
        let keys = KeyColumns::new(&view.keys, batch)?;
        let times = times(view, batch)?;
        let from = log_from.filter(|_| split.is_some()).unwrap_or(Micros::MIN);
        self.cache.turn();
        self.places.reserve(batch.num_rows());
        let mut key = Vec::new();
        for time in times.values().iter().enumerate() {
            let (row, time) = time;
            if *time < from {
                self.places.push(None);
                continue;
            }
            key.clear();
            keys.encode(row, &mut key);
            push_split(&mut key, split);
            let (place, first) = self.cache.place(&key, !fresh);
            if first {
                self.asked.push(place);
                if self.cache.slot(place).is_some_and(|slot| slot.unknown) {
                    self.unknown.push(place);
                }
            }
            self.places.push(Some(place));
        }
        Ok(self)
    }

    /// Brings the rows in. `guarded`: those at or below a window row's position are in it.
    fn update(mut self, view: &View, layout: &Layout, guarded: bool) -> Result<Cache> {
        let rows = &self.rows;
        let bound = layout.bind(&rows.rows)?;
        let times = times(view, &rows.rows)?;
        let created = view.created.as_ref().and_then(|name| rows.rows.column_by_name(name));
        let created = created.map(|column| column.as_primitive::<TimestampMicrosecondType>());
        let mut order = Vec::new();
        for (row, place) in self.places.iter().enumerate() {
            let Some(slot) = place.and_then(|place| self.cache.slot(place)) else { continue };
            let position = rows.positions.value(row);
            if guarded && position <= slot.before.as_bytes() {
                continue;
            }
            if layout.needs_order() {
                order.clear();
                let created = created.filter(|column| column.is_valid(row)).map(|column| column.value(row));
                let ordinal = rows.ordinals.as_ref().map_or(0, |ordinals| ordinals.value(row));
                let split = rows.split.as_bytes();
                encode_version(&mut order, times.value(row), created, rows.origin, split, position, ordinal);
            }
            slot.state.update(layout, &bound, row, times.value(row), &order);
            slot.last = Some(row);
        }
        for place in &self.asked {
            if let Some(slot) = self.cache.slot(*place)
                && let Some(last) = slot.last.filter(|_| guarded)
            {
                slot.state.set_position(Position::new(rows.positions.value(last).to_vec()));
            }
            self.cache.settle(*place);
        }
        Ok(self.cache)
    }
}

fn times<'a>(view: &View, rows: &'a arrow::array::RecordBatch) -> Result<&'a arrow::array::TimestampMicrosecondArray> {
    rows.column_by_name(&view.event_time)
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .ok_or_else(|| Error::unexpected("a view's rows have its event time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_brought_up_says_how_far_it_is_when_it_is_there() {
        let row = |key: &'static [u8]| OnlineRow {
            key: Bytes::from_static(key),
            version: Bytes::new(),
            value: Bytes::new(),
            expiry: None,
        };
        let marks = ["a", "b"].map(|split| written_row(&split.into(), &Position::from_u64(7)));
        let mut rows = [row(b"\x01key b"), row(b"\x01key a")].into_iter().chain(marks).collect::<Vec<_>>();
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut changed = Changed { epoch: String::new(), number: 1, table: String::new(), rows };
        let of_marks = |changed: &Changed| changed.rows.iter().map(|row| !is_window_row(row)).collect::<Vec<_>>();
        assert_eq!(of_marks(&changed), [true, true, false, false], "of an epoch that serves");
        assert_eq!(changed.put_marks_last(), 2);
        assert_eq!(of_marks(&changed), [false, false, true, true]);
    }
}
