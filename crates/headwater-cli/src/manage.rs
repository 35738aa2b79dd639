//! Definitions, plugins, and what lies in the stores.

use serde_json::json;

use crate::api::{self, FeatureStore, Result};
use crate::args::Format;
use crate::output::{print, table};

pub(crate) async fn plan(format: Format, store: &FeatureStore) -> Result<()> {
    let plan = store.plan().await?;
    print(format, &plan, || plan.to_string())
}

pub(crate) async fn apply(format: Format, store: &FeatureStore) -> Result<()> {
    let plan = store.apply().await?;
    print(format, &plan, || plan.to_string())
}

pub(crate) async fn compact(format: Format, store: &FeatureStore) -> Result<()> {
    let done = store.compact().await?;
    let rows: Vec<_> = done
        .iter()
        .map(|log| [log.view.clone(), log.generation.clone(), log.before.to_string(), log.after.to_string()])
        .collect();
    let text = table(["view", "generation", "files before", "files after"], &rows, "there are no logs yet")?;
    print(format, &done, || text)
}

pub(crate) async fn teardown(format: Format, store: &FeatureStore) -> Result<()> {
    let removed = store.teardown().await?;
    print(format, &removed, || {
        format!(
            "removed {} online tables, {} logs and {}",
            removed.tables.len(),
            removed.logs.len(),
            removed.registry.as_deref().map_or("no registry file".into(), |path| format!("the registry file {path}"))
        )
    })
}

pub(crate) fn plugins(format: Format) -> Result<()> {
    let registry = api::registry()?;
    let rows: Vec<_> = registry
        .plugins()
        .map(|plugin| {
            [
                plugin.name.to_owned(),
                plugin.version.to_owned(),
                plugin.roles().join(", "),
                if plugin.enabled { "yes" } else { "no: checks definitions only" }.to_owned(),
            ]
        })
        .collect();
    let value: Vec<_> = registry
        .plugins()
        .map(|plugin| {
            json!({
                "name": plugin.name,
                "version": plugin.version,
                "roles": plugin.roles(),
                "enabled": plugin.enabled,
            })
        })
        .collect();
    let text = table(["plugin", "version", "roles", "enabled"], &rows, "no plugins are compiled in")?;
    print(format, &value, || text)
}
