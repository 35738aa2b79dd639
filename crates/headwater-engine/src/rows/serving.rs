//! Which generation of each view answers reads.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_core::online::OnlineRow;
use headwater_core::{Error, ErrorKind, Micros, OnlineStore, Result};

use super::{FORMAT_VERSION, serving_table};

/// The generation of a view that reads go to. A new generation is built beside it and takes over when it has caught up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serving {
    /// The view.
    pub(crate) view: String,
    /// The generation.
    pub(crate) generation: String,
    /// When that generation was applied: of two the later one stays, whoever writes last.
    pub(crate) applied: Micros,
}

impl Serving {
    /// Makes this generation the one that serves, unless a later one does. Durable after `sync`.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn write(&self, online: &dyn OnlineStore, project: &str) -> Result<()> {
        let mut value = vec![FORMAT_VERSION];
        value.extend_from_slice(self.generation.as_bytes());
        let row = OnlineRow {
            key: Bytes::copy_from_slice(self.view.as_bytes()),
            version: Bytes::copy_from_slice(&(self.applied ^ i64::MIN).to_be_bytes()),
            value: Bytes::from(value),
            expiry: None,
        };
        online.put(&serving_table(project), vec![row]).await.map(drop)
    }

    /// The serving generation of every view that has one.
    ///
    /// # Errors
    /// The store's; `FormatVersion` and `Corrupt` for rows that cannot be read.
    pub(crate) async fn read(online: &dyn OnlineStore, project: &str) -> Result<BTreeMap<String, Self>> {
        let damaged = || Error::corrupt(format!("a row of table `{}` is damaged", serving_table(project)));
        let rows = online.get_prefixes(&serving_table(project), &[Bytes::new()]).await?;
        let mut out = BTreeMap::new();
        for row in rows.into_iter().flatten() {
            let view = String::from_utf8(row.key.to_vec()).map_err(|_| damaged())?;
            let generation = match row.value.split_first() {
                Some((&FORMAT_VERSION, generation)) => String::from_utf8(generation.to_vec()).map_err(|_| damaged())?,
                Some((other, _)) => {
                    return Err(Error::new(
                        ErrorKind::FormatVersion,
                        format!(
                            "a row of table `{}` has format version `{other}`; this release knows `{FORMAT_VERSION}`",
                            serving_table(project)
                        ),
                    ));
                }
                None => return Err(damaged()),
            };
            let applied = <[u8; 8]>::try_from(row.version.as_ref()).map_err(|_| damaged())?;
            let applied = i64::from_be_bytes(applied) ^ i64::MIN;
            out.insert(view.clone(), Self { view, generation, applied });
        }
        Ok(out)
    }
}
