//! What a program that knows only the facade finds linked in.
//!
//! The expected list is written down here, by feature, because both lists it is compared with could lose a plugin. It
//! runs in debug and, with and without LTO, in release.

use headwater::{LINKED, Registry, registry};

/// Name and whether it can be used, in order of names.
const EXPECTED: &[(&str, bool)] = &[
    ("file", cfg!(feature = "file")),
    ("kafka", cfg!(feature = "kafka")),
    ("kinesis", cfg!(feature = "kinesis")),
    ("memory", true),
    ("parquet", cfg!(feature = "parquet")),
    ("sql", cfg!(feature = "sql")),
    ("sqlite", cfg!(feature = "sqlite")),
];

fn names(registry: &Registry) -> Vec<(&'static str, bool)> {
    registry.plugins().map(|plugin| (plugin.name, plugin.enabled)).collect()
}

#[test]
fn the_inventory_is_what_is_expected() {
    assert_eq!(names(&Registry::global().unwrap()), EXPECTED);
}

#[test]
fn the_linked_list_is_what_is_expected() {
    let mut linked = LINKED.iter().map(|plugin| (plugin.name, plugin.enabled)).collect::<Vec<_>>();
    linked.sort_unstable();
    assert_eq!(linked, EXPECTED);
}

#[test]
fn both_hold_the_same_plugins_and_merge() {
    let global = Registry::global().unwrap();
    for plugin in LINKED {
        let found = global.plugin(plugin.name).unwrap();
        assert!(std::ptr::eq(found, *plugin), "there are two plugins `{}`", plugin.name);
    }
    assert_eq!(names(&registry().unwrap()), EXPECTED);
}

#[test]
fn a_plugin_that_is_off_says_which_feature_brings_it() {
    let registry = registry().unwrap();
    for (name, enabled) in EXPECTED {
        let error = registry.role(name, "thing", |_| None::<()>).unwrap_err().to_string();
        let asks = format!("cargo feature `{name}`");
        assert_eq!(error.contains(&asks), !enabled, "{error}");
    }
}

#[test]
fn enabled_plugins_play_a_role() {
    for plugin in LINKED.iter().filter(|plugin| plugin.enabled) {
        assert!(!plugin.roles().is_empty(), "`{}` plays none", plugin.name);
    }
}
