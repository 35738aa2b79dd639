//! What the command uses of the library.

pub(crate) use headwater::batch::ScanRequest;
pub(crate) use headwater::history::{EntityRows, HistoryOptions};
pub(crate) use headwater::ingest::{Counts, IngestOptions, JobHandle, JobState, JobStatus, SplitStatus};
pub(crate) use headwater::options::{Config, Duration};
pub(crate) use headwater::plugin::{OpenContext, SourceContext};
pub(crate) use headwater::registry;
pub(crate) use headwater::store::{
    EntityColumns, FeatureStore, Features, MaterializeProgress, Materialized, PushTarget, Reporter, Verified,
    VerifyOptions, WindowStatus, format_time, parse_time,
};
pub(crate) use headwater::stream::StartPosition;
pub(crate) use headwater::{Error, ErrorKind, Micros, Result};
