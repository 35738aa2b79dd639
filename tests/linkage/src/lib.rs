//! Headwater in a C program: the linker there sees an archive and takes what is referred to, no more.

use headwater::{Error, Plugin};

/// Zero where the registry holds every plugin of the facade and each enabled one opens; the number of faults otherwise.
#[allow(unsafe_code)] // C finds a function by its name alone.
#[unsafe(no_mangle)]
pub extern "C" fn headwater_linkage_faults() -> i32 {
    let faults = match faults() {
        Ok(faults) => faults,
        Err(error) => vec![error.to_string()],
    };
    for fault in &faults {
        eprintln!("{fault}");
    }
    i32::try_from(faults.len()).unwrap_or(i32::MAX)
}

fn faults() -> Result<Vec<String>, Error> {
    let registry = headwater::registry()?;
    let names = registry.plugins().map(|plugin| plugin.name).collect::<Vec<_>>();
    let mut faults = Vec::new();
    for expected in ["file", "kafka", "kinesis", "memory", "parquet", "sql", "sqlite"] {
        if !names.contains(&expected) {
            faults.push(format!("`{expected}` is not in the registry, which holds {names:?}"));
        }
    }
    let enabled = |name: &str, role: fn(&Plugin) -> bool| registry.plugin(name).is_some_and(|p| p.enabled && role(p));
    if !enabled("file", |plugin| plugin.stream.is_some() && plugin.batch.is_some()) {
        faults.push("`file` is no source".into());
    }
    if !enabled("sqlite", |plugin| plugin.online.is_some()) {
        faults.push("`sqlite` is no online store".into());
    }
    if !enabled("parquet", |plugin| plugin.offline.is_some()) {
        faults.push("`parquet` is no offline store".into());
    }
    Ok(faults)
}
