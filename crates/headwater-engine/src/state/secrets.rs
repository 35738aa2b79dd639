//! Keeps secrets out of the registry file, and what each worker says for itself.

use std::collections::BTreeMap;

use headwater_core::definitions::{Definitions, SourceKind};
use headwater_core::options::{OptionSpec, OptionType};
use headwater_core::{Error, Registry, Result};
use serde_json::Value;

/// Stands where a value was that is not kept.
const HIDDEN: &str = "***";

/// Words in the names of properties that hold secrets: librdkafka's `sasl.password`, `ssl.key.pem`.
const SECRET_WORDS: [&str; 8] =
    ["password", "secret", "token", "credential", "private", ".pem", "jaas.config", "oauthbearer.config"];

/// Puts placeholders where secrets are, and what is each worker's own.
pub(super) fn remove(definitions: &mut Definitions, registry: &Registry) {
    for source in &mut definitions.sources {
        let plugin = registry.plugin(&source.plugin);
        let specs = match source.kind {
            SourceKind::Stream(_) => plugin.and_then(|plugin| plugin.stream).map(|role| role.options),
            SourceKind::Batch => plugin.and_then(|plugin| plugin.batch).map(|role| role.options),
            SourceKind::Push { .. } => None,
        };
        hide(&mut source.options, specs.unwrap_or_default());
    }
    let plugin = registry.plugin(&definitions.online_store.plugin);
    let specs = plugin.and_then(|plugin| plugin.online).map(|role| role.options);
    hide(&mut definitions.online_store.options, specs.unwrap_or_default());
    let plugin = registry.plugin(&definitions.offline_store.plugin);
    let specs = plugin.and_then(|plugin| plugin.offline).map(|role| role.options);
    hide(&mut definitions.offline_store.options, specs.unwrap_or_default());
}

fn hide(options: &mut BTreeMap<String, Value>, specs: &[OptionSpec]) {
    for (key, value) in options {
        let kept = |kind| !matches!(kind, OptionType::Secret | OptionType::Worker);
        let hidden = specs.iter().any(|spec| spec.name == key && !kept(spec.kind));
        if hidden && !value.is_null() {
            *value = HIDDEN.into();
        }
        match value {
            Value::Object(properties) => {
                for (name, value) in properties {
                    let name = name.to_lowercase();
                    if SECRET_WORDS.iter().any(|word| name.contains(word)) {
                        *value = HIDDEN.into();
                    }
                }
            }
            Value::String(text) if has_password(text) => *value = HIDDEN.into(),
            _ => {}
        }
    }
}

/// Whether a text is a URL with a password in it.
fn has_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// Puts the values of `given` where the placeholders are.
///
/// # Errors
/// `Invalid` where `given` has none.
pub(super) fn restore(definitions: &mut Definitions, given: &Definitions) -> Result<()> {
    let none = BTreeMap::new();
    for source in &mut definitions.sources {
        let from = given.sources.iter().find(|given| given.name == source.name).map_or(&none, |given| &given.options);
        fill(&mut source.options, from, &format!("the source `{}`", source.name))?;
    }
    let online = &given.online_store.options;
    fill(&mut definitions.online_store.options, online, "the online store")?;
    let offline = &given.offline_store.options;
    fill(&mut definitions.offline_store.options, offline, "the offline store")
}

fn fill(options: &mut BTreeMap<String, Value>, from: &BTreeMap<String, Value>, what: &str) -> Result<()> {
    let missing = |key: &str| {
        Error::invalid(format!(
            "the option `{key}` of {what} is not kept in the registry file, and the definitions no longer give it: apply \
             them"
        ))
    };
    for (key, value) in options {
        if value == HIDDEN {
            *value = from.get(key).cloned().ok_or_else(|| missing(key))?;
        }
        if let Value::Object(properties) = value {
            for (name, value) in properties {
                if value == HIDDEN {
                    let given = from.get(key).and_then(|properties| properties.get(name));
                    *value = given.cloned().ok_or_else(|| missing(&format!("{key}.{name}")))?;
                }
            }
        }
    }
    Ok(())
}
