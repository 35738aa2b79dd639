//! Where the flights come from and where results go: `data/`, which is never committed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::array::RecordBatch;
use headwater::{Error, Result};
use parquet::arrow::ArrowWriter;

const PACKAGE: &str = "vega-datasets@3.2";

/// The example's folder.
pub(crate) fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn results() -> PathBuf {
    folder().join("data")
}

/// The file with the flights, fetched with npm where it is not there yet.
pub(crate) fn fetch() -> Result<PathBuf> {
    let file = results().join("node_modules/vega-datasets/data/flights-3m.parquet");
    if file.exists() {
        return Ok(file);
    }
    println!("Fetching {PACKAGE} with npm ...");
    let installed = Command::new("npm")
        .args(["install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
        .arg(results())
        .arg(PACKAGE)
        .status()
        .map_err(|error| Error::unexpected("npm, which fetches the flights, cannot be run").with_source(error))?;
    if installed.success() && file.exists() {
        Ok(file)
    } else {
        Err(Error::unexpected(format!("npm did not install {PACKAGE}")))
    }
}

/// Writes batches as a Parquet file in `data/`.
pub(crate) fn write(name: &str, batches: &[RecordBatch]) -> Result<()> {
    let path = results().join(name);
    let failed = |what: &str| Error::unexpected(format!("cannot {what} `{}`", path.display()));
    let Some(first) = batches.first() else { return Err(failed("write no rows to")) };
    fs::create_dir_all(results()).map_err(|error| failed("make the folder of").with_source(error))?;
    let file = File::create(&path).map_err(|error| failed("create").with_source(error))?;
    let written = ArrowWriter::try_new(file, first.schema(), None).and_then(|mut writer| {
        batches.iter().try_for_each(|batch| writer.write(batch))?;
        writer.close()
    });
    written.map(drop).map_err(|error| failed("write").with_source(error))
}
