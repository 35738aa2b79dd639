//! The suite for [`BatchSource`].

mod scans;

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use headwater_core::plugin::{OpenContext, SourceContext};
use headwater_core::time::ManualClock;
use headwater_core::{BatchSource, Error, Result};

use crate::clause::suite;
use crate::rows::time_of;
use crate::{Clause, Verdict, context};

/// How to make a batch source.
///
/// The suite's rows have the columns `id` (int64), `name` (utf8), `event_timestamp` (`timestamp[us, UTC]`) and `value`
/// (float64, sometimes null). A format without these types may give others that cast to them.
#[async_trait]
pub trait BatchFixture: Send + Sync + 'static {
    /// What outlives a source: a folder. Dropping it removes it.
    type Table: Send + Sync + 'static;

    /// Fresh storage with these rows, each piece a split (a file) of its own, in this order. Without pieces: a place
    /// where nothing is.
    ///
    /// # Errors
    /// `Unsupported` for what the storage cannot hold, such as more than one piece.
    async fn create(&self, pieces: &[RecordBatch]) -> Result<Self::Table>;

    /// Adds one more split behind the others.
    ///
    /// # Errors
    /// `Unsupported` (as this default) where the table cannot grow.
    async fn add(&self, table: &Self::Table, piece: &RecordBatch) -> Result<()> {
        let _ = (table, piece);
        Err(Error::unsupported("the table cannot grow"))
    }

    /// Opens the table. Called again and again, also while an earlier source is still open.
    async fn open(&self, table: &Self::Table, context: &OpenContext) -> Result<Arc<dyn BatchSource>>;

    /// Whether statistics of the storage leave out fragments that hold nothing wanted.
    fn prunes(&self) -> bool {
        false
    }
}

/// The clauses of [`BatchSource`]'s contract.
pub fn suite(fixture: impl BatchFixture) -> Vec<Clause> {
    suite! { fixture;
        "batch::nothing-there-is-not-found" scans::nothing_there,
            "where nothing is there yet, and so no schema: the engine takes such a source as having no rows.";
        "batch::nothing-there-has-no-pieces" scans::no_pieces,
            "A path that does not exist has no pieces.";
        "batch::schema-has-the-columns" scans::schema,
            "The columns.";
        "batch::identity-is-stable" scans::identity,
            "What tells this table from another: a path, a table's name.";
        "batch::fragments-cover-each-row-once" scans::each_row_once,
            "every row that is wanted lies in exactly one of them;";
        "batch::pruning-loses-nothing" scans::pruning,
            "every row that is wanted lies in exactly one of them;";
        "batch::statistics-leave-pieces-out" scans::leaves_out,
            "pieces that statistics show to hold none should be left out.";
        "batch::statistics-are-true" scans::statistics,
            "The smallest and greatest time in it, where the request named a time column and statistics know.";
        "batch::fragments-in-order" scans::in_order,
            "in order of split and position.";
        "batch::columns-in-the-order-asked-for" scans::columns,
            "The rows, with the columns asked for in the order asked for.";
        "batch::unknown-columns-are-invalid" scans::unknown_columns,
            "`Invalid` for columns that do not exist.";
        "batch::values-come-as-stored" scans::values,
            "Rows of a fragment, in the fragment's order.";
        "batch::positions-ascend" scans::positions_ascend,
            "the rows' positions ascend,";
        "batch::positions-are-stable" scans::positions_stable,
            "a row has the same split and position in every scan as long as its file is unchanged,";
        "batch::fragments-read-in-any-order-and-at-once" scans::any_order,
            "Fragments may be read in any order and at once.";
        "batch::dropped-stream-stops-reading" scans::dropped,
            "Dropping the stream stops reading.";
    }
}

/// A table with a source opened on it.
pub(crate) struct Opened<F: BatchFixture> {
    fixture: Arc<F>,
    table: F::Table,
    source: Arc<dyn BatchSource>,
}

impl<F: BatchFixture> Opened<F> {
    async fn with(fixture: Arc<F>, pieces: &[RecordBatch]) -> Verdict<Self> {
        let table = crate::clause::applicable(fixture.create(pieces).await)?;
        let source = fixture.open(&table, &a_context()).await?;
        Ok(Self { fixture, table, source })
    }

    async fn another(&self) -> Verdict<Arc<dyn BatchSource>> {
        Ok(self.fixture.open(&self.table, &a_context()).await?)
    }
}

fn a_context() -> OpenContext {
    let source = SourceContext { timestamp_field: "event_timestamp".into(), ..SourceContext::default() };
    OpenContext { source: Some(source), ..context(Arc::new(ManualClock::new(time_of(0)))) }
}
