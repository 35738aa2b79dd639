//! How far a view's batch source has been materialised.

use bytes::Bytes;
use headwater_core::online::OnlineRow;
use headwater_core::{Error, ErrorKind, Micros, OnlineStore, Result};

use super::{FORMAT_VERSION, materialized_table};

fn key(view: &str, generation: &str) -> Bytes {
    Bytes::from([view.as_bytes(), &[0], generation.as_bytes()].concat())
}

/// Remembers that the view's batch rows up to `end` are in its table. The greatest end of all is what is remembered.
///
/// # Errors
/// The store's.
pub(crate) async fn write_materialized(
    online: &dyn OnlineStore,
    project: &str,
    view: &str,
    generation: &str,
    end: Micros,
) -> Result<()> {
    let row = OnlineRow {
        key: key(view, generation),
        version: Bytes::copy_from_slice(&(end ^ i64::MIN).to_be_bytes()),
        value: Bytes::from_static(&[FORMAT_VERSION]),
        expiry: None,
    };
    online.put(&materialized_table(project), vec![row]).await.map(drop)
}

/// The greatest end that was materialised; `None` where nothing was.
///
/// # Errors
/// The store's; `FormatVersion` and `Corrupt` for a row that cannot be read.
pub(crate) async fn read_materialized(
    online: &dyn OnlineStore,
    project: &str,
    view: &str,
    generation: &str,
) -> Result<Option<Micros>> {
    let table = materialized_table(project);
    let rows = online.get(&table, &[key(view, generation)]).await?;
    let Some(row) = rows.into_iter().flatten().next() else { return Ok(None) };
    match row.value.first() {
        Some(&FORMAT_VERSION) => {}
        other => {
            return Err(Error::new(
                ErrorKind::FormatVersion,
                format!(
                    "a row of table `{table}` has format version `{}`; this release knows `{FORMAT_VERSION}`",
                    other.copied().unwrap_or_default()
                ),
            ));
        }
    }
    let end = <[u8; 8]>::try_from(row.version.as_ref())
        .map_err(|_| Error::corrupt(format!("a row of table `{table}` is damaged")))?;
    Ok(Some(i64::from_be_bytes(end) ^ i64::MIN))
}
