//! Rows of a view's log, in order of split and position.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType, UInt32Type};
use futures::TryStreamExt;
use headwater_core::batch::{BatchSource, Fragment, Positions, ScanBatch, ScanRequest, ScanStream, TimeRange};
use headwater_core::{Error, ErrorKind, Micros, Position, Result, SplitId};

use crate::cast::cast_batch;
use crate::ingest::lane::Piece;
use crate::project::Project;
use crate::rows::LOG_ORDINAL;
use crate::view::{View, ViewRows};

/// Which of a split's rows are wanted: those behind the first position, up to and including the second.
pub(super) type Ranges = BTreeMap<SplitId, (Position, Position)>;

/// The rows of a log from an event time on, in ranges of its splits.
pub(super) struct LogRows {
    view: Arc<View>,
    source: Arc<dyn BatchSource>,
    request: ScanRequest,
    from: Option<Micros>,
    ranges: Ranges,
    fragments: Vec<Fragment>,
    reading: Option<ScanStream>,
    /// The rows of the last record that was seen: more of them may follow.
    held: Option<(SplitId, Piece)>,
    /// Fragments that are read.
    pub(super) done: usize,
    /// Rows read.
    pub(super) read: u64,
}

impl LogRows {
    /// The rows of these ranges whose event time is `from` or later.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn open(
        project: &Project,
        view: &Arc<View>,
        from: Option<Micros>,
        ranges: Ranges,
    ) -> Result<Self> {
        let source = project.offline.log(&view.log());
        let schema = match source.schema().await {
            Ok(schema) => Some(schema),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (mut request, mut fragments) = (ScanRequest::default(), Vec::new());
        if let Some(schema) = schema {
            let wanted = view.schema();
            let names = wanted.fields().iter().map(|field| field.name().as_str()).chain([LOG_ORDINAL]);
            let there = names.filter(|name| schema.field_with_name(name).is_ok());
            request.columns = Some(there.map(str::to_owned).collect());
            request.time = Some(TimeRange { column: view.event_time.clone(), from, to: None });
            fragments = source.fragments(&request).await?;
            fragments.retain(|fragment| ranges.contains_key(&fragment.split));
        }
        Ok(Self {
            view: Arc::clone(view),
            source,
            request,
            from,
            ranges,
            fragments,
            reading: None,
            held: None,
            done: 0,
            read: 0,
        })
    }

    /// How many fragments there are.
    pub(super) fn total(&self) -> usize {
        self.fragments.len()
    }

    /// The next rows, all of one split; never some of the rows of a record without the others. `None` when all is read.
    ///
    /// # Errors
    /// The store's; `Corrupt` where the log holds what it cannot.
    pub(super) async fn next(&mut self) -> Result<Option<(SplitId, ViewRows)>> {
        loop {
            let Some(fragment) = self.fragments.get(self.done).cloned() else {
                return Ok(self.held.take().map(|(split, piece)| (split.clone(), piece.into_view_rows(&split))));
            };
            if let Some((split, piece)) = self.held.take_if(|(split, _)| *split != fragment.split) {
                return Ok(Some((split.clone(), piece.into_view_rows(&split))));
            }
            let mut reading = match self.reading.take() {
                Some(reading) => reading,
                None => self.source.read(&fragment, &self.request).await?,
            };
            let Some(batch) = reading.try_next().await? else {
                self.done += 1;
                continue;
            };
            self.reading = Some(reading);
            self.read += batch.rows.num_rows() as u64;
            let piece = self.wanted(&fragment.split, batch)?;
            let pieces = self.held.take().map(|(_, held)| held).into_iter().chain(piece).collect::<Vec<_>>();
            let Some(piece) = Piece::join(&pieces)? else { continue };
            let (ready, held) = piece.before_last_record();
            self.held = Some((fragment.split.clone(), held));
            if ready.rows.num_rows() > 0 {
                return Ok(Some((fragment.split.clone(), ready.into_view_rows(&fragment.split))));
            }
        }
    }

    /// The rows of a batch that are wanted, in the view's columns.
    fn wanted(&self, split: &SplitId, batch: ScanBatch) -> Result<Option<Piece>> {
        let damaged = || Error::corrupt(format!("the log of view `{}` is damaged", self.view.name));
        let Positions::Each(positions) = batch.positions else { return Err(damaged()) };
        let Some((after, through)) = self.ranges.get(split) else { return Ok(None) };
        let times = batch.rows.column_by_name(&self.view.event_time).ok_or_else(damaged)?;
        let times = times.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(damaged)?;
        let wanted: BooleanArray = positions
            .iter()
            .zip(times)
            .map(|(position, time)| {
                let inside = position.is_some_and(|p| after.as_bytes() < p && p <= through.as_bytes());
                Some(inside && time.is_some_and(|time| self.from.is_none_or(|from| time >= from)))
            })
            .collect();
        if wanted.true_count() == 0 {
            return Ok(None);
        }
        let rows = filter_record_batch(&batch.rows, &wanted)?;
        let positions = filter(&positions, &wanted)?.as_binary::<i32>().clone();
        let ordinals = rows.column_by_name(LOG_ORDINAL).and_then(|column| column.as_primitive_opt::<UInt32Type>());
        let ordinals: Option<UInt32Array> =
            ordinals.map(|column| column.iter().map(|o| Some(o.unwrap_or(0))).collect());
        let schema = self.view.schema();
        let mut fields = Vec::with_capacity(schema.fields().len());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            // Rows that were logged before a column was added hold null there.
            let column = rows
                .column_by_name(field.name())
                .map_or_else(|| new_null_array(field.data_type(), rows.num_rows()), Arc::clone);
            fields.push(Field::new(field.name(), column.data_type().clone(), true));
            columns.push(column);
        }
        let (columns, failures) =
            cast_batch(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?, &schema, None)?;
        if let Some(failure) = failures.first() {
            return Err(damaged().with_context("reason", &failure.reason));
        }
        Ok(Some(Piece { rows: RecordBatch::try_new(schema, columns)?, positions, ordinals }))
    }
}

impl Piece {
    /// The rows of all records but the last, and those of the last.
    fn before_last_record(self) -> (Self, Self) {
        let count = self.positions.len();
        let Some(last) = count.checked_sub(1).map(|last| self.positions.value(last)) else {
            return (self.clone(), self);
        };
        let from = (0..count).rev().take_while(|row| self.positions.value(*row) == last).last().unwrap_or(count);
        (self.slice(0, from), self.slice(from, count - from))
    }

    fn slice(&self, from: usize, count: usize) -> Self {
        Self {
            rows: self.rows.slice(from, count),
            positions: self.positions.slice(from, count),
            ordinals: self.ordinals.as_ref().map(|ordinals| ordinals.slice(from, count)),
        }
    }
}
