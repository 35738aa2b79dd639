//! The database file: how it is opened, recognised and shared between one writing and several reading connections.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use headwater_core::{ErrorKind, Result};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error;

/// "Headwater online store", in the file's header: so that no other database is taken for one.
const APPLICATION_ID: i32 = 0x4857_4f4e;
/// The version of the tables in the file, in the file's header.
const FORMAT_VERSION: i32 = 1;

/// Reading connections. More would help only where more threads read at once than machines have cores.
const READERS: usize = 8;

/// Pages that the write-ahead log may grow to before it is copied into the database: 64 MiB. SQLite's own 4 MiB would
/// copy most pages of a busy table once for every large transaction.
const CHECKPOINT_PAGES: u32 = 16_384;

const NO_MUTEX: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX;

/// An online store's database. Nothing is opened before it is needed.
pub(crate) struct Database {
    path: PathBuf,
    cache_bytes: u64,
    busy_timeout: Duration,
    writer: Mutex<Option<Connection>>,
    readers: [Mutex<Option<Connection>>; READERS],
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a file turned out to be.
enum Contents {
    /// Nothing has been written to it yet.
    Empty,
    /// An online store of this format version.
    Store,
}

impl Database {
    pub(crate) fn new(path: PathBuf, cache_bytes: u64, busy_timeout: Duration) -> Self {
        Self { path, cache_bytes, busy_timeout, writer: Mutex::new(None), readers: Default::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction of the one connection that writes, and commits it.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut slot = lock(&self.writer);
        let connection = match slot.as_mut() {
            Some(connection) => connection,
            None => slot.insert(self.open_writer()?),
        };
        let outcome = transact(connection, work);
        if outcome.is_err() {
            // Whatever state the connection is in, a new one begins in a known one.
            *slot = None;
        }
        outcome.map_err(|error| error::map(error, &self.path))
    }

    /// Makes every commit so far, of any process, survive a loss of power. Whoever writes meanwhile is not kept waiting:
    /// the write-ahead log is flushed through a handle of its own, and SQLite has no locks on that file which closing it
    /// could release.
    ///
    /// Commits that are no longer in the log were flushed into the database when they were copied there, and that the log
    /// exists was flushed by SQLite when it wrote the log's header.
    pub(crate) fn flush(&self) -> Result<()> {
        // It lies beside the file itself, not beside a link to it.
        let mut log = self.path.canonicalize().map_err(|error| error::flush(error, &self.path))?.into_os_string();
        log.push("-wal");
        // Not only for reading: some systems flush nothing then.
        match File::options().write(true).open(&log) {
            Ok(log) => log.sync_data().map_err(|error| error::flush(error, &self.path)),
            // Whoever closed the database last has copied all of it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error::flush(error, &self.path)),
        }
    }

    /// Runs `work` on a reading connection; `None` where there is no database yet.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<Option<T>> {
        let mut slot = self.reader();
        let connection = match slot.as_ref() {
            Some(connection) => connection,
            None => match self.open_reader()? {
                Some(connection) => slot.insert(connection),
                None => return Ok(None),
            },
        };
        let outcome = work(connection);
        if outcome.is_err() {
            *slot = None;
        }
        outcome.map(Some).map_err(|error| error::map(error, &self.path))
    }

    /// A free reading connection, an open one before one that is still to be opened.
    fn reader(&self) -> MutexGuard<'_, Option<Connection>> {
        let mut unopened = None;
        for reader in &self.readers {
            let slot = match reader.try_lock() {
                Ok(slot) => slot,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            if slot.is_some() {
                return slot;
            }
            unopened = unopened.or(Some(slot));
        }
        // Reads take microseconds: where all are in use, waiting for any of them is as good as a queue.
        unopened.unwrap_or_else(|| lock(&self.readers[0]))
    }

    fn open_writer(&self) -> Result<Connection> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder).map_err(|error| error::io(error, folder))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | NO_MUTEX;
        let mut connection = self.open(flags, self.cache_bytes)?;
        if let Contents::Empty = self.contents(&connection)? {
            self.initialise(&mut connection)?;
            // The file's name must survive a loss of power like the rows that are synced into it.
            for folder in self.path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
                if File::open(folder).and_then(|folder| folder.sync_all()).is_err() {
                    break;
                }
            }
        }
        (|| {
            // A commit is then a write without waiting for the disk; `flush` waits for it.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
        })()
        .map_err(|error| error::map(error, &self.path))?;
        Ok(connection)
    }

    fn open_reader(&self) -> Result<Option<Connection>> {
        if !self.path.exists() {
            return Ok(None);
        }
        // Readers of a write-ahead log take locks in shared memory, so even they open the file for writing.
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | NO_MUTEX, self.cache_bytes / 4)?;
        if let Contents::Empty = self.contents(&connection)? {
            return Ok(None);
        }
        connection.pragma_update(None, "query_only", true).map_err(|error| error::map(error, &self.path))?;
        Ok(Some(connection))
    }

    fn open(&self, flags: OpenFlags, cache_bytes: u64) -> Result<Connection> {
        if self.path.is_dir() {
            let message = "option `path` names a folder; it takes the path of a file";
            return Err(error::wrap(ErrorKind::Invalid, message, &self.path));
        }
        let native = |error| error::map(error, &self.path);
        let connection = Connection::open_with_flags(&self.path, flags).map_err(native)?;
        connection.busy_timeout(self.busy_timeout).map_err(native)?;
        connection.set_prepared_statement_cache_capacity(64);
        // A negative size is one in KiB.
        let kibibytes = i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX).max(64);
        (|| {
            connection.pragma_update(None, "cache_size", -kibibytes)?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.pragma_update(None, "trusted_schema", false)
        })()
        .map_err(native)?;
        Ok(connection)
    }

    /// Recognises the file by its header.
    fn contents(&self, connection: &Connection) -> Result<Contents> {
        // One statement, and so one snapshot: another process may be making the file an online store just now.
        let (application, version, tables) = connection
            .query_row(
                "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
                 FROM pragma_application_id, pragma_user_version",
                [],
                |row| Ok((row.get::<_, i32>(0)?, row.get::<_, i32>(1)?, row.get::<_, i64>(2)?)),
            )
            .map_err(|error| error::map(error, &self.path))?;
        match (application, version) {
            (APPLICATION_ID, FORMAT_VERSION) => Ok(Contents::Store),
            (APPLICATION_ID, _) => Err(error::wrap(
                ErrorKind::FormatVersion,
                format!(
                    "the online store has format version `{version}`; this release reads version `{FORMAT_VERSION}`"
                ),
                &self.path,
            )),
            (0, 0) if tables == 0 => Ok(Contents::Empty),
            _ => Err(error::wrap(
                ErrorKind::Invalid,
                "the file is a database of another application; give option `path` a file of its own",
                &self.path,
            )),
        }
    }

    /// Makes an empty file an online store. Processes that do so at once end with the same file.
    fn initialise(&self, connection: &mut Connection) -> Result<()> {
        let native = |error| error::map(error, &self.path);
        self.switch_to_wal(connection).map_err(native)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(native)?;
        if let Contents::Empty = self.contents(&transaction)? {
            (|| {
                transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
                transaction.pragma_update(None, "user_version", FORMAT_VERSION)
            })()
            .map_err(native)?;
        }
        transaction.commit().map_err(native)
    }

    /// The switch takes the whole file for a moment, and SQLite does not wait for that as it waits for a writer.
    fn switch_to_wal(&self, connection: &Connection) -> rusqlite::Result<()> {
        let pause = Duration::from_millis(10);
        let mut left = self.busy_timeout;
        loop {
            match connection.pragma_update(None, "journal_mode", "WAL") {
                Err(rusqlite::Error::SqliteFailure(failure, _))
                    if failure.code == rusqlite::ErrorCode::DatabaseBusy && left > pause =>
                {
                    left -= pause;
                    std::thread::sleep(pause);
                }
                outcome => return outcome,
            }
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    // Immediate: the lock is taken before anything is read, so that what was read cannot be overtaken.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let outcome = work(&transaction)?;
    transaction.commit()?;
    Ok(outcome)
}

/// A panic while a connection was in use has rolled its transaction back.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
