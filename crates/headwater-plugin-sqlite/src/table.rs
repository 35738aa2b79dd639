//! The statements on one table of rows.

use bytes::Bytes;
use headwater_core::Micros;
use headwater_core::online::{OnlineRow, Put};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

/// What sets tables of rows apart from everything else in the file.
const PREFIX: &str = "rows/";

/// One table of rows, by its quoted name in the database.
///
/// SQLite compares ASCII letters in table names without regard to case, so capitals are written as `%XX`, like `%`
/// itself and control characters. The rest stays readable: `rows/driver_ranking/driver_stats/3f9c`.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    name: String,
    quoted: String,
}

impl Table {
    pub(crate) fn new(name: &str) -> Self {
        let mut encoded = PREFIX.to_owned();
        for c in name.chars() {
            if c.is_ascii_uppercase() || c.is_ascii_control() || c == '%' {
                encoded.push_str(&format!("%{:02X}", u32::from(c)));
            } else {
                encoded.push(c);
            }
        }
        let quoted = format!("\"{}\"", encoded.replace('"', "\"\""));
        Self { name: encoded, quoted }
    }

    /// The tables of rows there are, under the names that they were given.
    pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        let mut names: Vec<String> =
            names.iter().filter_map(|name| name.strip_prefix(PREFIX)).map(decode_name).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(crate) fn create(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut statement = transaction.prepare_cached(&format!(
            "CREATE TABLE IF NOT EXISTS {} (
                 key BLOB PRIMARY KEY NOT NULL, version BLOB NOT NULL, value BLOB NOT NULL, expiry INTEGER
             ) STRICT, WITHOUT ROWID",
            self.quoted
        ))?;
        statement.execute([])?;
        Ok(())
    }

    pub(crate) fn drop(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", self.quoted))
    }

    pub(crate) fn exists(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let mut statement =
            connection.prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?;
        statement.exists([&self.name])
    }

    /// Runs a read; `None` where the table is not there.
    pub(crate) fn if_there<T>(
        &self,
        connection: &Connection,
        read: impl Fn() -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        loop {
            match read() {
                Ok(rows) => return Ok(Some(rows)),
                // Looking only after a failure keeps the look-up out of every successful read.
                Err(_) if !self.exists(connection)? => return Ok(None),
                // Another process has made it since.
                Err(error) if error.to_string().starts_with("no such table") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the rows that are not older than what is stored. The table is there.
    pub(crate) fn upsert(&self, transaction: &Transaction<'_>, rows: &[OnlineRow]) -> rusqlite::Result<Put> {
        let mut upsert = transaction.prepare_cached(&format!(
            "INSERT INTO {} (key, version, value, expiry) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE
             SET version = excluded.version, value = excluded.value, expiry = excluded.expiry
             WHERE excluded.version >= version",
            self.quoted
        ))?;
        // Neighbouring keys lie on the same page; the sort is stable, so rows of one key keep the caller's order.
        let mut order: Vec<&OnlineRow> = rows.iter().collect();
        order.sort_by(|a, b| a.key.cmp(&b.key));

        let mut put = Put::default();
        for same_key in order.chunk_by(|a, b| a.key == b.key) {
            let row = match same_key {
                [row] => *row,
                // One write for the row that stays; the count is that of writing them one by one.
                [first, ..] => {
                    let stored = self.version(transaction, &first.key)?;
                    let Some((row, written)) = newest(stored.as_deref(), same_key) else {
                        put.stale += count(same_key.len());
                        continue;
                    };
                    put.written += written - 1;
                    put.stale += count(same_key.len()) - written;
                    row
                }
                [] => continue,
            };
            let changed = upsert.execute(params![&row.key[..], &row.version[..], &row.value[..], row.expiry])?;
            if changed > 0 { put.written += 1 } else { put.stale += 1 }
        }
        Ok(put)
    }

    fn version(&self, connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut select = connection.prepare_cached(&format!("SELECT version FROM {} WHERE key = ?1", self.quoted))?;
        select.query_row([key], |row| row.get(0)).optional()
    }

    pub(crate) fn get(&self, connection: &Connection, keys: &[Bytes]) -> rusqlite::Result<Vec<Option<OnlineRow>>> {
        let mut select =
            connection.prepare_cached(&format!("SELECT version, value, expiry FROM {} WHERE key = ?1", self.quoted))?;
        keys.iter()
            .map(|key| {
                let read = |row: &Row<'_>| read_row(key.clone(), row, 0);
                select.query_row([&key[..]], read).optional()
            })
            .collect()
    }

    pub(crate) fn get_prefix(&self, connection: &Connection, prefix: &[u8]) -> rusqlite::Result<Vec<OnlineRow>> {
        let columns = "key, version, value, expiry";
        let read = |row: &Row<'_>| read_row(blob(row, 0)?, row, 1);
        match successor(prefix) {
            Some(end) => connection
                .prepare_cached(&format!(
                    "SELECT {columns} FROM {} WHERE key >= ?1 AND key < ?2 ORDER BY key",
                    self.quoted
                ))?
                .query_map([prefix, &end[..]], read)?
                .collect(),
            None => connection
                .prepare_cached(&format!("SELECT {columns} FROM {} WHERE key >= ?1 ORDER BY key", self.quoted))?
                .query_map([prefix], read)?
                .collect(),
        }
    }

    pub(crate) fn delete(&self, transaction: &Transaction<'_>, keys: &[Bytes]) -> rusqlite::Result<()> {
        let mut delete = transaction.prepare_cached(&format!("DELETE FROM {} WHERE key = ?1", self.quoted))?;
        for key in keys {
            delete.execute([&key[..]])?;
        }
        Ok(())
    }

    /// Deletes what has expired by `now` among the next `limit` rows after the key `after`. Gives the last key it looked
    /// at, `None` at the table's end.
    pub(crate) fn reclaim(
        &self,
        transaction: &Transaction<'_>,
        after: &[u8],
        now: Micros,
        limit: u32,
    ) -> rusqlite::Result<Option<Vec<u8>>> {
        let last: Option<Vec<u8>> = transaction
            .prepare_cached(&format!("SELECT key FROM {} WHERE key > ?1 ORDER BY key LIMIT 1 OFFSET ?2", self.quoted))?
            .query_row(params![after, limit.saturating_sub(1)], |row| row.get(0))
            .optional()?;
        // Past the end there is no last key, and every key is less than nothing.
        let mut delete = transaction.prepare_cached(&format!(
            "DELETE FROM {} WHERE key > ?1 AND (?2 IS NULL OR key <= ?2) AND expiry <= ?3",
            self.quoted
        ))?;
        delete.execute(params![after, last, now])?;
        Ok(last)
    }
}

/// The row that stays of those that were given for one key, and how many of them replaced one another on the way;
/// `None` where the stored row stays.
fn newest<'a>(stored: Option<&[u8]>, rows: &[&'a OnlineRow]) -> Option<(&'a OnlineRow, u64)> {
    let mut version = stored;
    let mut kept = None;
    let mut written = 0;
    for &row in rows {
        if version.is_none_or(|version| row.version >= version) {
            version = Some(&row.version);
            kept = Some(row);
            written += 1;
        }
    }
    kept.map(|row| (row, written))
}

fn read_row(key: Bytes, row: &Row<'_>, first: usize) -> rusqlite::Result<OnlineRow> {
    Ok(OnlineRow { key, version: blob(row, first)?, value: blob(row, first + 1)?, expiry: row.get(first + 2)? })
}

fn blob(row: &Row<'_>, index: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(index)?.as_blob().map_err(rusqlite::Error::from)?))
}

/// The least key that is greater than every key with this prefix; `None` where there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

fn decode_name(encoded: &str) -> String {
    let mut name = String::with_capacity(encoded.len());
    let mut parts = encoded.split('%');
    name.push_str(parts.next().unwrap_or_default());
    for part in parts {
        match part.split_at_checked(2).map(|(digits, rest)| (u8::from_str_radix(digits, 16), rest)) {
            Some((Ok(byte), rest)) if byte.is_ascii() => {
                name.push(char::from(byte));
                name.push_str(rest);
            }
            // Not one of ours: shown as it stands.
            _ => {
                name.push('%');
                name.push_str(part);
            }
        }
    }
    name
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_reversible_and_distinct_whatever_their_case() {
        let names = ["p/view/1", "p/View/1", "p/vIew/1", "a%b", "a\"b", "a\0b", "naïve/ß", "%41", "A", ""];
        let mut tables: Vec<String> = names.iter().map(|name| Table::new(name).name.to_lowercase()).collect();
        for name in names {
            assert_eq!(decode_name(Table::new(name).name.strip_prefix(PREFIX).unwrap()), name);
        }
        tables.sort();
        tables.dedup();
        assert_eq!(tables.len(), names.len());
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(successor(&[0xff]), None);
        assert_eq!(successor(b""), None);
    }

    #[test]
    fn a_table_that_comes_while_it_is_looked_for_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Connection::open(folder.path().join("online.db")).unwrap();
        let (reader, mut writer) = (open(), std::cell::RefCell::new(open()));
        let table = Table::new("a");
        let reads = std::cell::Cell::new(0);
        let rows = table.if_there(&reader, || {
            let rows = table.get(&reader, &[Bytes::from_static(b"key")]);
            reads.set(reads.get() + 1);
            if reads.get() == 1 {
                let mut writer = writer.borrow_mut();
                let transaction = writer.transaction()?;
                table.create(&transaction)?;
                transaction.commit()?;
            }
            rows
        });
        assert_eq!((rows.unwrap(), reads.get()), (Some(vec![None]), 2));
        writer.get_mut().execute("DROP TABLE \"rows/a\"", []).unwrap();
        assert_eq!(table.if_there(&reader, || table.get(&reader, &[Bytes::from_static(b"key")])).unwrap(), None);
    }
}
