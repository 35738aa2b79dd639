//! The registry.

use std::sync::Arc;

use crate::memory::{self, MemoryConfig, MemoryOnlineStore};
use crate::plugin::Role;
use crate::{ErrorKind, Plugin, Registry};

static ONE: Plugin =
    Plugin::new("one", "1.0.0").with_online(Role::new::<MemoryConfig>(|_, _| Ok(Arc::new(MemoryOnlineStore::new()))));
static ANOTHER_ONE: Plugin = Plugin::new("one", "2.0.0");
static OFF: Plugin = Plugin::new("off", "1.0.0").enabled(false);

#[test]
fn the_same_plugin_counts_once() {
    let registry = Registry::empty().with(&ONE).unwrap().with(&ONE).unwrap();
    assert_eq!(registry.plugins().map(|plugin| plugin.name).collect::<Vec<_>>(), ["one"]);
}

#[test]
fn two_plugins_of_one_name_conflict() {
    let error = Registry::empty().with(&ONE).unwrap().with(&ANOTHER_ONE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    for word in ["`one`", "1.0.0", "2.0.0"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn plugins_are_sorted_by_name() {
    let registry = Registry::empty().with(&ONE).unwrap().with(&memory::PLUGIN).unwrap().with(&OFF).unwrap();
    assert_eq!(registry.plugins().map(|plugin| plugin.name).collect::<Vec<_>>(), ["memory", "off", "one"]);
}

#[test]
fn an_unknown_type_lists_what_is_compiled_in() {
    let registry = Registry::empty().with(&ONE).unwrap().with(&memory::PLUGIN).unwrap().with(&OFF).unwrap();
    let error = registry.role("redis", "online store", |plugin| plugin.online).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("`redis`") && error.to_string().contains("`memory`, `one`"), "{error}");
    let error = registry.role("one", "offline store", |plugin| plugin.offline).unwrap_err();
    assert!(error.to_string().contains("`one`") && error.to_string().contains("`memory`"), "{error}");
    let error = Registry::empty().role("one", "online store", |plugin| plugin.online).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

#[test]
fn a_disabled_plugin_names_its_feature() {
    let registry = Registry::empty().with(&OFF).unwrap().with(&ONE).unwrap();
    let error = registry.role("off", "online store", |plugin| plugin.online).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("cargo feature `off`"), "{error}");
}

#[test]
fn memory_is_registered() {
    let plugin = Registry::global().unwrap().plugin("memory").unwrap();
    assert!(std::ptr::eq(plugin, &memory::PLUGIN));
    assert_eq!(plugin.roles(), ["online store", "offline store"]);
}
