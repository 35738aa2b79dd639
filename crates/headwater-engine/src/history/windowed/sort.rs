//! The rows of a worker, sorted by key and by the time from which they count.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type};
use headwater_core::{Error, Micros, Result};

use super::runs::{Place, Scratch};
use crate::history::memory::Budget;

/// Where there are so many runs, the shorter half of them is merged into one, so that few batches are in memory.
const MOST_RUNS: usize = 64;
/// The most and the fewest rows of a batch that comes out.
const BATCH_ROWS: (usize, usize) = (8192, 64);
/// Fewer rows than this are not worth a run of their own, unless the limit is tiny.
const FEWEST_SPILLED: u64 = 256;
/// What a row is taken to need beside its bytes: its place in the order, and its copy in a batch that comes out.
const ORDER_BYTES: u64 = 16;

/// The columns before the values: key number at the worker, time from which the row counts, event time, created time,
/// and where the row stands.
const ROW_COLUMNS: usize = 5;

/// The columns of rows that are sorted: what orders them, then `values`.
pub(super) fn row_schema(values: &[(String, DataType)]) -> SchemaRef {
    let own = [
        ("key", DataType::UInt32),
        ("counts", DataType::Int64),
        ("time", DataType::Int64),
        ("created", DataType::Int64),
        ("id", DataType::UInt64),
    ];
    let own = own.into_iter().map(|(name, of)| Field::new(name, of, false));
    let values = values.iter().map(|(name, of)| Field::new(name, of.clone(), true));
    Arc::new(Schema::new(own.chain(values).collect::<Vec<_>>()))
}

/// What orders a row among all rows: its key, the time from which it counts, where it stands.
type Rank = (u32, Micros, u64);

/// The columns of a batch with [`row_schema`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) keys: &'a [u32],
    pub(super) counts: &'a [Micros],
    pub(super) times: &'a [Micros],
    pub(super) created: &'a [Micros],
    pub(super) ids: &'a [u64],
}

impl<'a> Rows<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Result<Self> {
        match batch.columns() {
            [keys, counts, times, created, ids, ..] => Ok(Self {
                keys: keys.as_primitive::<UInt32Type>().values(),
                counts: counts.as_primitive::<Int64Type>().values(),
                times: times.as_primitive::<Int64Type>().values(),
                created: created.as_primitive::<Int64Type>().values(),
                ids: ids.as_primitive::<UInt64Type>().values(),
            }),
            _ => Err(Error::unexpected("rows of a windowed join lack columns")),
        }
    }

    fn rank(&self, row: usize) -> Rank {
        (self.keys[row], self.counts[row], self.ids[row])
    }
}

/// The values of a batch with [`row_schema`].
pub(super) fn values(batch: &RecordBatch) -> Result<RecordBatch> {
    Ok(batch.project(&(ROW_COLUMNS..batch.num_columns()).collect::<Vec<_>>())?)
}

/// Takes rows in any order.
#[derive(Debug)]
pub(super) struct Sorter {
    /// How many keys the worker has.
    keys: usize,
    batches: Vec<RecordBatch>,
    rows: usize,
    cost: u64,
    budget: Arc<Budget>,
    scratch: Scratch,
    runs: Vec<Vec<Place>>,
}

impl Sorter {
    /// No rows, of a worker with `keys` keys.
    pub(super) fn new(keys: usize, budget: Arc<Budget>, folder: Option<PathBuf>) -> Self {
        Self { keys, batches: Vec::new(), rows: 0, cost: 0, budget, scratch: Scratch::new(folder), runs: Vec::new() }
    }

    /// Takes rows, and writes what is in memory to disk where that is too much.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let cost = batch.get_array_memory_size() as u64 + batch.num_rows() as u64 * ORDER_BYTES;
        self.rows += batch.num_rows();
        self.cost += cost;
        self.batches.push(batch);
        // Where this worker has little, the memory is in use elsewhere: the worker that has it will find out.
        let fewest = (self.budget.limit() / 1024).clamp(1, FEWEST_SPILLED);
        if self.budget.take(cost) && self.rows as u64 >= fewest { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        if self.runs.len() >= MOST_RUNS {
            self.merge_shorter_half()?;
        }
        let most = self.batch_rows();
        let mut source = Source::Memory(self.take_memory(most)?);
        let mut run = Vec::new();
        while let Some(batch) = source.load(&mut self.scratch)? {
            run.push(self.scratch.write(&batch)?);
        }
        self.runs.push(run);
        self.budget.give_back(std::mem::take(&mut self.cost));
        Ok(())
    }

    /// Merging always the shorter runs writes a row once for each time that the data doubles, roughly.
    fn merge_shorter_half(&mut self) -> Result<()> {
        let rows = |run: &Vec<Place>| run.iter().map(|place| place.rows).sum::<usize>();
        self.runs.sort_by_key(|run| Reverse(rows(run)));
        let shorter = self.runs.split_off(self.runs.len() / 2);
        let sources = shorter.into_iter().map(Source::run).collect();
        let scratch = std::mem::replace(&mut self.scratch, Scratch::new(None));
        let mut merge = Sorted::new(sources, scratch, self.batch_rows())?;
        let mut run = Vec::new();
        while let Some(batch) = merge.next()? {
            run.push(merge.scratch.write(&batch)?);
        }
        self.scratch = merge.scratch;
        self.runs.push(run);
        Ok(())
    }

    /// The rows of a batch that comes out: as many as let a batch of each run be in memory.
    fn batch_rows(&self) -> usize {
        let width = self.cost / (self.rows as u64).max(1) + 1;
        let rows = self.budget.limit() / 8 / (MOST_RUNS as u64 * width);
        usize::try_from(rows).unwrap_or(usize::MAX).clamp(BATCH_ROWS.1, BATCH_ROWS.0)
    }

    fn take_memory(&mut self, batch_rows: usize) -> Result<Memory> {
        self.rows = 0;
        let batches = std::mem::take(&mut self.batches);
        let order = order(&batches, self.keys)?;
        Ok(Memory { batches, order, at: 0, batch_rows })
    }

    /// All rows in order.
    pub(super) fn finish(mut self) -> Result<Sorted> {
        let batch_rows = self.batch_rows();
        let mut sources: Vec<Source> = std::mem::take(&mut self.runs).into_iter().map(Source::run).collect();
        sources.push(Source::Memory(self.take_memory(batch_rows)?));
        let scratch = std::mem::replace(&mut self.scratch, Scratch::new(None));
        let mut sorted = Sorted::new(sources, scratch, batch_rows)?;
        // Its memory goes back with the rows.
        sorted.held = Some(self);
        Ok(sorted)
    }
}

impl Drop for Sorter {
    fn drop(&mut self) {
        self.budget.give_back(self.cost);
    }
}

/// The order of the rows of `batches`, as (batch, row): dealt out by key, then each key's sorted where they are not in
/// order already, as those of a log mostly are.
fn order(batches: &[RecordBatch], keys: usize) -> Result<Vec<(u32, u32)>> {
    let rows: Vec<Rows<'_>> = batches.iter().map(Rows::of).collect::<Result<_>>()?;
    let mut ends = vec![0usize; keys];
    for key in rows.iter().flat_map(|rows| rows.keys) {
        ends[*key as usize] += 1;
    }
    let mut total = 0;
    for end in &mut ends {
        let start = total;
        total += *end;
        *end = start;
    }
    let mut order = vec![(0u32, 0u32); total];
    for (rows, batch) in rows.iter().zip(0u32..) {
        for (key, row) in rows.keys.iter().zip(0u32..) {
            let end = &mut ends[*key as usize];
            order[*end] = (batch, row);
            *end += 1;
        }
    }
    let rank = |(batch, row): &(u32, u32)| {
        let (rows, row) = (&rows[*batch as usize], *row as usize);
        (rows.counts[row], rows.ids[row])
    };
    let mut start = 0;
    for end in ends {
        let of_key = &mut order[start..end];
        if !of_key.is_sorted_by_key(rank) {
            of_key.sort_unstable_by_key(rank);
        }
        start = end;
    }
    Ok(order)
}

/// Rows in memory, in order.
#[derive(Debug)]
struct Memory {
    batches: Vec<RecordBatch>,
    order: Vec<(u32, u32)>,
    at: usize,
    batch_rows: usize,
}

/// Batches of rows in order.
#[derive(Debug)]
enum Source {
    Memory(Memory),
    Run(std::vec::IntoIter<Place>),
}

impl Source {
    fn run(places: Vec<Place>) -> Self {
        Self::Run(places.into_iter())
    }

    /// The next batch.
    fn load(&mut self, scratch: &mut Scratch) -> Result<Option<RecordBatch>> {
        match self {
            Self::Run(places) => places.next().map(|place| scratch.read(&place)).transpose(),
            Self::Memory(Memory { batches, order, at, batch_rows }) => {
                let next: Vec<(usize, usize)> = order
                    .iter()
                    .skip(*at)
                    .take(*batch_rows)
                    .map(|(batch, row)| (*batch as usize, *row as usize))
                    .collect();
                *at += next.len();
                if next.is_empty() {
                    return Ok(None);
                }
                let batches: Vec<&RecordBatch> = batches.iter().collect();
                Ok(Some(interleave_record_batch(&batches, &next)?))
            }
        }
    }
}

/// All rows in order, batch by batch.
#[derive(Debug)]
pub(super) struct Sorted {
    sources: Vec<Source>,
    scratch: Scratch,
    batch_rows: usize,
    /// The batches that the sources stand in, and of each source which one and the row in it.
    batches: Vec<RecordBatch>,
    heads: Vec<(usize, usize)>,
    /// The rank of each source's next row.
    heap: BinaryHeap<Reverse<(Rank, usize)>>,
    /// Whose memory the rows are counted in.
    held: Option<Sorter>,
}

impl Sorted {
    fn new(sources: Vec<Source>, scratch: Scratch, batch_rows: usize) -> Result<Self> {
        let mut merge = Self {
            heads: vec![(0, 0); sources.len()],
            sources,
            scratch,
            batch_rows,
            batches: Vec::new(),
            heap: BinaryHeap::new(),
            held: None,
        };
        if merge.sources.len() > 1 {
            for source in 0..merge.sources.len() {
                merge.open(source)?;
            }
        }
        Ok(merge)
    }

    /// Puts the next batch of a source, if there is one, in its place.
    fn open(&mut self, source: usize) -> Result<()> {
        if let Some(batch) = self.sources[source].load(&mut self.scratch)? {
            self.heads[source] = (self.batches.len(), 0);
            self.heap.push(Reverse((Rows::of(&batch)?.rank(0), source)));
            self.batches.push(batch);
        }
        Ok(())
    }

    /// The next rows; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        if let [only] = self.sources.as_mut_slice() {
            return only.load(&mut self.scratch);
        }
        let mut picked: Vec<(usize, usize)> = Vec::with_capacity(self.batch_rows);
        while picked.len() < self.batch_rows
            && let Some(Reverse((_, source))) = self.heap.pop()
        {
            let (batch, row) = self.heads[source];
            picked.push((batch, row));
            let rows = &self.batches[batch];
            if row + 1 < rows.num_rows() {
                self.heap.push(Reverse((Rows::of(rows)?.rank(row + 1), source)));
                self.heads[source] = (batch, row + 1);
            } else {
                self.open(source)?;
            }
        }
        if picked.is_empty() {
            return Ok(None);
        }
        let merged = interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &picked)?;
        self.forget();
        Ok(Some(merged))
    }

    /// Drops the batches that no source stands in any more.
    fn forget(&mut self) {
        let mut left: Vec<RecordBatch> = Vec::with_capacity(self.sources.len());
        for Reverse((_, source)) in &self.heap {
            let head = &mut self.heads[*source];
            left.push(self.batches[head.0].clone());
            head.0 = left.len() - 1;
        }
        self.batches = left;
    }
}
