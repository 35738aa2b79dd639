//! The labels of the tutorial: whom we know something of, and when.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use headwater::Result;
use headwater::history::EntityRows;

/// Driver, event timestamp, and the label itself. The last row lies before the stream began: history answers it.
pub(crate) fn labels() -> Result<EntityRows> {
    let rows = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from(vec![1001, 1002, 1003, 1001])) as _),
        (
            "event_timestamp",
            Arc::new(StringArray::from(vec![
                "2021-04-12T10:59:42Z",
                "2021-04-12T08:12:10Z",
                "2021-04-12T16:40:26Z",
                "2021-04-01T00:00:00Z",
            ])) as _,
        ),
        ("label_driver_reported_satisfaction", Arc::new(Int64Array::from(vec![1, 5, 3, 4])) as _),
    ])?;
    EntityRows::new(rows.schema(), vec![rows])
}
