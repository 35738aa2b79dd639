//! A project to start from.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use crate::api::{Error, ErrorKind, Result};
use crate::args::Format;
use crate::output::print;

const DEFINITIONS: &str = include_str!("init/headwater.yaml");
const SAMPLES: [(&str, &str); 3] = [
    ("sample/driver_events.ndjson", include_str!("init/driver_events.ndjson")),
    ("sample/driver_history.csv", include_str!("init/driver_history.csv")),
    ("sample/trips.csv", include_str!("init/trips.csv")),
];

/// Writes a definition file and sample data beside it. Existing files are never touched.
pub(crate) fn init(format: Format, config: &Path) -> Result<()> {
    let folder = config.parent().unwrap_or(Path::new(""));
    let mut files = vec![(config.to_path_buf(), DEFINITIONS)];
    files.extend(SAMPLES.iter().map(|(name, text)| (folder.join(name), *text)));
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("`{}` is there already; nothing was written", path.display()),
        ));
    }
    for (path, text) in &files {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, format!("`{}` cannot be written", path.display()))
                .permanent()
                .with_source(error)
        };
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = std::fs::File::create_new(path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    let written: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    print(format, &json!({"written": written}), || {
        format!(
            "wrote {}\n\nnow try\n  headwater apply\n  headwater ingest\n  headwater get-online-features \
             --feature-service driver_activity --entities '{{\"driver_id\": [1001, 1002]}}'\n  headwater \
             get-historical-features --feature-service driver_activity --entity-df sample/trips.csv --out training.parquet",
            written.join(", ")
        )
    })
}
