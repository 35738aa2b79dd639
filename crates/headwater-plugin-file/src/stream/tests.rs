//! Streams of files, sentence by sentence.

mod follow;
mod lines;
mod parquet;
mod random;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use headwater_core::options::{Config, Options};
use headwater_core::plugin::{OpenContext, SourceContext};
use headwater_core::stream::{
    AssignedSplit, FixedCheckpoints, Payload, Progress, ReaderContext, StartPosition, StreamBatch, StreamEvent,
};
use headwater_core::time::SystemClock;
use headwater_core::{Error, Position, SplitId, StreamReader, StreamSource};

use super::FileStreamSource;
use crate::config::FileStreamConfig;

/// A temporary folder.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(super) fn append(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(content.as_ref()).unwrap();
    }
}

/// Options beside `path`, as JSON.
pub(super) fn open(path: &Path, options: serde_json::Value) -> Result<FileStreamSource, Error> {
    let mut all: BTreeMap<String, serde_json::Value> = serde_json::from_value(options).unwrap();
    all.insert("path".into(), path.to_str().unwrap().into());
    let config = Config { name: "source `s`".into(), options: all, base_dir: ".".into() };
    let source = SourceContext { record_format: Some("json".into()), ..SourceContext::default() };
    let context = OpenContext { project: "p".into(), clock: Arc::new(SystemClock), source: Some(source) };
    FileStreamSource::open(&FileStreamConfig::from_config(&config)?, &config, &context)
}

pub(super) fn bounded(path: &Path) -> FileStreamSource {
    open(path, serde_json::json!({})).unwrap()
}

pub(super) fn followed(path: &Path) -> FileStreamSource {
    open(path, serde_json::json!({ "follow": true, "poll_interval": "1ms" })).unwrap()
}

pub(super) fn context() -> ReaderContext {
    ReaderContext {
        group: "p.s".into(),
        start: StartPosition::Earliest,
        checkpoints: Arc::new(FixedCheckpoints::default()),
        buffer_bytes: 1 << 20,
        batch_records: 1000,
        refresh: Duration::from_millis(1),
        clock: Arc::new(SystemClock),
    }
}

/// A context whose checkpoints are these.
pub(super) fn resumed<'a>(splits: impl IntoIterator<Item = (&'a str, Progress)>) -> ReaderContext {
    let splits = splits.into_iter().map(|(split, progress)| (SplitId::from(split), progress)).collect();
    ReaderContext { checkpoints: Arc::new(FixedCheckpoints { splits, ..FixedCheckpoints::default() }), ..context() }
}

pub(super) fn through(position: u64) -> Progress {
    Progress::Through(Position::from_u64(position))
}

/// What a reader has told so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) assigned: Vec<AssignedSplit>,
    /// Split, position and text of every record.
    pub(super) records: Vec<(String, u64, String)>,
    pub(super) batches: Vec<StreamBatch>,
    pub(super) ended: Vec<SplitId>,
    pub(super) progress: BTreeMap<SplitId, Progress>,
}

impl Seen {
    pub(super) fn take(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Assigned(splits) => {
                for split in &splits {
                    self.progress.insert(split.split.clone(), Progress::Through(split.resume.clone()));
                }
                self.assigned.extend(splits);
            }
            StreamEvent::Batch(batch) => {
                self.progress.insert(batch.split.clone(), Progress::Through(batch.through.clone()));
                let Payload::Encoded(values) = &batch.payload else { panic!("no lines") };
                assert_eq!(values.len(), batch.positions.len());
                for (value, at) in values.iter().zip(batch.positions.iter()) {
                    let at = Position::new(at.unwrap().to_vec()).to_u64().unwrap();
                    let text = String::from_utf8_lossy(value.unwrap()).into_owned();
                    self.records.push((batch.split.to_string(), at, text));
                }
                self.batches.push(batch);
            }
            StreamEvent::SplitEnded(split) => {
                self.progress.insert(split.clone(), Progress::End);
                self.ended.push(split);
            }
            StreamEvent::Revoked { .. } => panic!("files are never revoked"),
        }
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        self.records.iter().map(|(_, _, text)| text.as_str()).collect()
    }

    pub(super) fn positions(&self) -> Vec<u64> {
        self.records.iter().map(|(_, at, _)| *at).collect()
    }

    /// A context that resumes where this has come to.
    pub(super) fn resume(&self) -> ReaderContext {
        ReaderContext {
            checkpoints: Arc::new(FixedCheckpoints { splits: self.progress.clone(), ..FixedCheckpoints::default() }),
            ..context()
        }
    }
}

pub(super) async fn read_all(source: &FileStreamSource, context: ReaderContext) -> Result<Seen, Error> {
    let mut reader = source.subscribe(context).await?;
    let mut seen = Seen::default();
    while let Some(event) = reader.next().await? {
        seen.take(event);
    }
    assert!(reader.next().await?.is_none(), "finished for ever");
    Ok(seen)
}

/// Reads until `count` records are there.
pub(super) async fn read_until(reader: &mut Box<dyn StreamReader>, seen: &mut Seen, count: usize) {
    let wait = async {
        while seen.records.len() < count {
            seen.take(reader.next().await.unwrap().unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    assert_eq!(seen.records.len(), count);
}

pub(super) fn names(splits: &[AssignedSplit]) -> Vec<String> {
    splits.iter().map(|split| String::from_utf8(split.split.as_bytes().to_vec()).unwrap()).collect()
}

/// The strings of a column.
pub(super) fn strings(array: &dyn Array) -> Vec<Option<String>> {
    array.as_string::<i32>().iter().map(|value| value.map(str::to_owned)).collect()
}
