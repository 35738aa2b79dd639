#![doc = include_str!("../README.md")]

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use headwater_core::transform::PlannedTransform;
use headwater_core::{Error, Plugin, Result, Transform};

mod error;
mod functions;
mod parse;
mod plan;
mod resolve;
mod run;
#[cfg(test)]
mod tests;

/// The plugin, for [`Registry::with`](headwater_core::Registry::with) and the facade.
pub static PLUGIN: Plugin = Plugin::new("sql", env!("CARGO_PKG_VERSION")).with_transform(open);

headwater_core::register!(PLUGIN);

fn open(text: &str) -> Result<Arc<dyn Transform>> {
    Ok(Arc::new(SqlTransform::parse(text)?))
}

/// A transform written as one `SELECT`.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, Float64Array, RecordBatch};
/// use headwater_core::Transform;
/// use headwater_plugin_sql::SqlTransform;
///
/// let rates: ArrayRef = Arc::new(Float64Array::from(vec![0.25, -1.0]));
/// let batch = RecordBatch::try_from_iter([("conv_rate", rates)])?;
///
/// let transform = SqlTransform::parse("SELECT conv_rate * 100.0 AS conv_percentage FROM stats WHERE conv_rate >= 0")?;
/// let transformed = transform.plan(&batch.schema())?.apply(&batch)?;
///
/// assert_eq!(transformed.rows.num_rows(), 1);
/// assert_eq!(transformed.rows.schema().field(0).name(), "conv_percentage");
/// # Ok::<(), headwater_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SqlTransform(parse::Select);

impl SqlTransform {
    /// Reads the text and refuses what no input could make right.
    ///
    /// # Errors
    /// `Invalid`: a syntax error with its line and column, or a clause that is not row-wise.
    pub fn parse(text: &str) -> Result<Self> {
        parse::select(text).map(Self).map_err(named)
    }
}

impl Transform for SqlTransform {
    fn plan(&self, input: &SchemaRef) -> Result<Arc<dyn PlannedTransform>> {
        Ok(Arc::new(parse::with_stack(|| plan::plan(&self.0, input)).map_err(named)?))
    }
}

fn named(error: Error) -> Error {
    error.with_plugin(PLUGIN.name)
}
