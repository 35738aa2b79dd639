//! The table of a windowed view's answers: computed in the order of keys, read in the order of entity rows.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use headwater_core::batch::{Fragment, Positions, ScanBatch, ScanRequest, ScanStream};
use headwater_core::{BatchSource, Error, Result, SplitId};

use super::runs::{Place, Scratch};
use crate::history::plan::on_a_thread;

/// Some answers.
#[derive(Debug)]
pub(super) enum Piece {
    /// In memory.
    Here(RecordBatch),
    /// In a temporary file.
    Spilled {
        /// The file.
        file: Arc<Mutex<Scratch>>,
        /// Where in it.
        place: Place,
    },
}

impl Piece {
    /// How many there are.
    pub(super) fn rows(&self) -> u64 {
        match self {
            Self::Here(rows) => rows.num_rows() as u64,
            Self::Spilled { place, .. } => place.rows as u64,
        }
    }

    fn load(&self) -> Result<RecordBatch> {
        match self {
            Self::Here(rows) => Ok(rows.clone()),
            Self::Spilled { file, place } => file.lock().unwrap_or_else(PoisonError::into_inner).read(place),
        }
    }
}

/// Pieces with the same columns, as a table of which each piece is a fragment.
#[derive(Debug)]
pub(super) struct Results {
    name: String,
    schema: SchemaRef,
    pieces: Vec<Arc<Piece>>,
}

impl Results {
    pub(super) fn new(name: String, schema: SchemaRef, pieces: Vec<Piece>) -> Self {
        Self { name, schema, pieces: pieces.into_iter().map(Arc::new).collect() }
    }
}

#[async_trait]
impl BatchSource for Results {
    fn identity(&self) -> String {
        self.name.clone()
    }

    async fn schema(&self) -> Result<SchemaRef> {
        Ok(Arc::clone(&self.schema))
    }

    async fn fragments(&self, _: &ScanRequest) -> Result<Vec<Fragment>> {
        let fragments = self.pieces.iter().zip(0u64..).map(|(piece, number)| Fragment {
            split: SplitId::from(self.name.as_str()),
            rows: Some(piece.rows()),
            time: None,
            token: Bytes::copy_from_slice(&number.to_be_bytes()),
        });
        Ok(fragments.collect())
    }

    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream> {
        let number = fragment.token.as_ref().try_into().ok().map(u64::from_be_bytes);
        let piece = number.and_then(|number| self.pieces.get(usize::try_from(number).ok()?));
        let piece = piece.ok_or_else(|| Error::unexpected(format!("`{}` has no {fragment:?}", self.name)))?;
        let columns = request.columns.iter().flatten().map(|column| Ok(self.schema.index_of(column)?));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let piece = Arc::clone(piece);
        let rows = on_a_thread(move || Ok(piece.load()?.project(&columns)?)).await?;
        Ok(futures::stream::iter([Ok(ScanBatch { rows, positions: Positions::Consecutive(0) })]).boxed())
    }
}
