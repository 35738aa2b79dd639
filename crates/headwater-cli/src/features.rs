//! Reading features.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::json;

use crate::api::{EntityColumns, EntityRows, Error, FeatureStore, HistoryOptions, Result, Verified, VerifyOptions};
use crate::args::{Format, HistoricalArgs, OnlineArgs, VerifyArgs};
use crate::files::{TableWriter, read};
use crate::output;
use crate::progress::Progress;

pub(crate) async fn online(format: Format, store: &FeatureStore, args: &OnlineArgs) -> Result<()> {
    let entities = entities(&args.entities)?;
    let answer = store.get_online_features(args.features.features(), entities, args.full_feature_names).await?;
    let text = output::pretty_json(&answer)?;
    output::print(format, &answer, || text)
}

/// The entities as JSON, given or in a file.
fn entities(text: &str) -> Result<EntityColumns> {
    let wrong = |error: serde_json::Error| {
        Error::invalid(format!("`--entities` takes JSON such as `{{\"driver_id\": [1001]}}`: {error}"))
    };
    match text.strip_prefix('@') {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Error::not_found(format!("`{path}` cannot be read")).with_source(error))?;
            serde_json::from_str(&text).map_err(wrong)
        }
        None => serde_json::from_str(text).map_err(wrong),
    }
}

pub(crate) async fn historical(format: Format, store: &FeatureStore, args: &HistoricalArgs) -> Result<()> {
    let (schema, rows) = read(store, &args.entity_df).await?;
    let entities = EntityRows::new(schema, rows)?;
    let progress = Arc::new(Progress::new(None));
    let told = Arc::clone(&progress);
    let options = HistoryOptions {
        memory_limit: args.memory_limit,
        filter_by_created_timestamp: args.filter_by_created_timestamp,
        progress: Some(Arc::new(move |at| {
            let total = at.fragments_total + at.rows_total;
            let message = format!("{} rows read, {} of {} joined", at.rows_scanned, at.rows_done, at.rows_total);
            told.step(at.fragments_done + at.rows_done, total, message);
        })),
        ..HistoryOptions::default()
    };
    let mut set =
        store.get_historical_features(entities, args.features.features(), args.full_feature_names, options).await?;
    let schema = set.schema();
    let mut writer = TableWriter::create(&args.out, &schema)?;
    let mut count = 0;
    while let Some(rows) = set.try_next().await? {
        count += rows.num_rows();
        writer.write(&rows)?;
    }
    writer.finish()?;
    drop((set, progress));
    let columns: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    let out = Path::display(&args.out);
    output::print(format, &json!({"out": args.out, "rows": count, "columns": columns}), || {
        format!("{count} rows with {} columns written to {out}", columns.len())
    })
}

pub(crate) async fn verify(format: Format, store: &FeatureStore, args: &VerifyArgs) -> Result<()> {
    let options = VerifyOptions { sample: args.sample, seed: args.seed, wait: args.wait };
    let found = store.verify(&args.view, &options).await?;
    output::print(format, &found, || report(&found))?;
    if found.is_consistent() {
        return Ok(());
    }
    let (mismatches, missing) = (found.mismatches, found.missing);
    Err(Error::data(format!("of {} entities {mismatches} differ and {missing} are missing", found.sampled)))
}

fn report(found: &Verified) -> String {
    let mut lines = vec![
        format!("view {}: {} entities, seed {}", found.view, found.sampled, found.seed),
        format!("  matches             {}", found.matches),
        format!("  mismatches          {}", found.mismatches),
        format!("  missing             {}", found.missing),
        format!("  not compared        {}", found.unpublished + found.unwritten + found.changed),
        format!("    not yet in the log  {}", found.unpublished),
        format!("    not yet online      {}", found.unwritten),
        format!("    changed meanwhile   {}", found.changed),
        format!("  largest difference  {:e}", found.largest_difference),
    ];
    for difference in &found.differences {
        let entity = serde_json::Value::Object(difference.entity.clone());
        lines.push(format!(
            "{entity} at {}: {} is {} online and {} in history",
            difference.time, difference.feature, difference.online, difference.offline
        ));
    }
    lines.join("\n")
}
