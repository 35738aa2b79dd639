//! The folder of one log: names of files, and the chain of pieces that they make up.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use headwater_core::offline::LogId;
use headwater_core::{Error, Position, Result, SplitId};

use crate::compact;
use crate::error;
use crate::file::{Footer, Footers, Format};
use crate::storage::{Entry, Storage};

/// Footers that are read at once.
const CONCURRENT_READS: usize = 16;
/// A listing that others were changing is made again this often before what it shows counts as damage.
const LISTINGS: usize = 8;

const EXTENSION: &str = ".parquet";
static START: Position = Position::START;

/// One log in a storage.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) storage: Storage,
    pub(crate) footers: Arc<Footers>,
    pub(crate) format: Format,
    /// Relative to the storage's root.
    pub(crate) folder: String,
}

/// The published files of a log, by split and by the position that they begin after.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) splits: BTreeMap<SplitId, BTreeMap<Position, Entry>>,
    /// A compaction is under way or was broken off.
    pub(crate) journal: bool,
}

/// The pieces of each split in order, each beginning where the one before it ends.
pub(crate) type Chains = BTreeMap<SplitId, Vec<Arc<Footer>>>;

/// The folder of a log, relative to the root.
pub(crate) fn folder(log: &LogId) -> Result<String> {
    Ok(format!("{}/{}", segment(&log.view, "view")?, segment(&log.generation, "generation")?))
}

/// A name as one valid path segment; most names are one as they are.
fn segment(name: &str, what: &str) -> Result<String> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the {what} of a log has no name")));
    }
    Ok(SplitId::from(name).to_string())
}

/// Reads a segment back; `None` for folders that are not ours.
pub(crate) fn name(segment: &str) -> Option<String> {
    let split = segment.parse::<SplitId>().ok().filter(|split| split.to_string() == segment)?;
    String::from_utf8(split.as_bytes().to_vec()).ok()
}

impl Log {
    /// The file of a split that begins after this position: `p`, the position in hexadecimal, `.parquet`. The order of
    /// names is the order of positions.
    pub(crate) fn file(&self, split: &SplitId, after: &Position) -> String {
        format!("{}/{split}/p{after}{EXTENSION}", self.folder)
    }

    pub(crate) async fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        for entry in self.storage.list(&self.folder).await? {
            self.sort(&mut listing, entry)?;
        }
        Ok(listing)
    }

    /// The files of one split.
    pub(crate) async fn list_split(&self, split: &SplitId) -> Result<BTreeMap<Position, Entry>> {
        let mut listing = Listing::default();
        for entry in self.storage.list(&format!("{}/{split}", self.folder)).await? {
            self.sort(&mut listing, entry)?;
        }
        Ok(listing.splits.remove(split).unwrap_or_default())
    }

    fn sort(&self, listing: &mut Listing, entry: Entry) -> Result<()> {
        let inside = entry.path.strip_prefix(&self.folder).and_then(|path| path.strip_prefix('/')).unwrap_or_default();
        if inside == compact::JOURNAL {
            listing.journal = true;
            return Ok(());
        }
        let Some(path) = inside.strip_suffix(EXTENSION) else { return Ok(()) };
        let foreign = || {
            let message = "the file is not named as a part of a log, `<split>/p<position>.parquet`";
            error::corrupt(message, self.storage.describe(&entry.path))
        };
        let (split, name) = path.split_once('/').ok_or_else(foreign)?;
        let after = name.strip_prefix('p').and_then(|text| text.parse::<Position>().ok()).ok_or_else(foreign)?;
        let split_id = split.parse::<SplitId>().map_err(|_| foreign())?;
        // Another spelling of the same name would be a second file in one place.
        if split_id.to_string() != split || after.to_string() != name.trim_start_matches('p') {
            return Err(foreign());
        }
        listing.splits.entry(split_id).or_default().insert(after, entry);
        Ok(())
    }

    /// Every piece of every split.
    ///
    /// A compaction puts the merged file in the place of the first of its files before it empties the others, and
    /// what it has not emptied yet lies inside what the merged file covers. So a file that begins before its
    /// predecessor's end is passed over, and an emptied file that does not is proof that its predecessor has been
    /// replaced since it was read: the listing is made again.
    pub(crate) async fn chains(&self) -> Result<Chains> {
        let mut left = LISTINGS;
        loop {
            left -= 1;
            match self.try_chains().await? {
                Ok(chains) => return Ok(chains),
                Err(broken) if left == 0 => return Err(broken),
                Err(_) => {}
            }
        }
    }

    async fn try_chains(&self) -> Result<Result<Chains>> {
        let listing = self.list().await?;
        let files = listing
            .splits
            .into_iter()
            .flat_map(|(split, files)| files.into_iter().map(move |(after, entry)| (split.clone(), after, entry)));
        let footers: Vec<_> = futures::stream::iter(files)
            .map(|(split, after, entry)| async move {
                let footer = self.footer(&after, &entry).await?;
                Ok::<_, Error>((split, entry, footer))
            })
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;

        let mut chains = Chains::new();
        for (split, entry, footer) in footers {
            let broken = |message: String| error::corrupt(message, self.storage.describe(&entry.path));
            let Some(footer) = footer else {
                return Ok(Err(broken("the file has vanished from the log".into())));
            };
            let chain = chains.entry(split).or_default();
            let end = chain.last().map_or(&START, |last| &last.piece.through);
            let piece = &footer.piece;
            if piece.after < *end {
                continue;
            }
            if piece.after > *end {
                return Ok(Err(broken(format!("the log ends at position `{end}` before the file begins"))));
            }
            if piece.moved.is_some() {
                return Ok(Err(broken("the rows of the file were moved to a file that does not have them".into())));
            }
            chain.push(footer);
        }
        Ok(Ok(chains))
    }

    /// The footer of a listed file, which must say what the file's name says; `None` where it has gone.
    pub(crate) async fn footer(&self, after: &Position, entry: &Entry) -> Result<Option<Arc<Footer>>> {
        let Some(footer) = self.footers.of(&self.storage, entry).await? else { return Ok(None) };
        let piece = &footer.piece;
        if piece.after != *after || piece.through <= piece.after {
            let message = format!("the file's footer says that it covers `{}` to `{}`", piece.after, piece.through);
            return Err(error::corrupt(message, self.storage.describe(&entry.path)));
        }
        Ok(Some(footer))
    }

    /// The last piece of a split: the file with the greatest name says where the log ends, also if its rows have moved.
    pub(crate) async fn last(&self, files: &BTreeMap<Position, Entry>) -> Result<Option<Arc<Footer>>> {
        let Some((after, entry)) = files.last_key_value() else { return Ok(None) };
        self.footer(after, entry).await
    }
}
