//! Which features a request means.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_core::{Error, Result};

use crate::project::{Project, suggest};
use crate::view::View;

/// The features of a request: by name, or those of a feature service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Features {
    /// `view:feature`, or `view` for all features of a view.
    Names(Vec<String>),
    /// The name of a feature service.
    Service(String),
}

impl Features {
    /// These features: `view:feature`, or `view` for all of a view.
    pub fn names(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }

    /// The features of this service.
    pub fn service(name: impl Into<String>) -> Self {
        Self::Service(name.into())
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Features {
    fn from(names: [S; N]) -> Self {
        Self::names(names)
    }
}

impl From<Vec<String>> for Features {
    fn from(names: Vec<String>) -> Self {
        Self::Names(names)
    }
}

/// One feature of a request.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    /// Its view.
    pub(crate) view: Arc<View>,
    /// Its index in [`View::features`].
    pub(crate) feature: usize,
    /// What it is called in the answer.
    pub(crate) name: String,
}

/// Finds the features of a request, in its order, each once.
///
/// # Errors
/// `NotFound` for an unknown service, view or feature, naming the nearest; `Invalid` for an empty request and where two
/// features, or a feature and a join key, would have one name in the answer.
pub(crate) fn select(project: &Project, features: &Features, full_names: bool) -> Result<Vec<Selected>> {
    let names = match features {
        Features::Names(names) => names,
        Features::Service(service) => {
            let services = &project.definitions.feature_services;
            &services
                .iter()
                .find(|known| known.name == *service)
                .ok_or_else(|| {
                    Error::not_found(format!(
                        "there is no feature service `{service}` in project `{}`{}",
                        project.definitions.project,
                        suggest(service, services.iter().map(|service| service.name.as_str()))
                    ))
                })?
                .features
        }
    };
    let mut out: Vec<Selected> = Vec::new();
    for name in names {
        let (view, feature) = match name.split_once(':') {
            Some((view, feature)) => (view.trim(), Some(feature.trim())),
            None => (name.trim(), None),
        };
        let view = project.view(view)?;
        let indices = match feature {
            None => 0..view.features.len(),
            Some(feature) => {
                let index = view.features.iter().position(|known| known.name == feature).ok_or_else(|| {
                    Error::not_found(format!(
                        "there is no feature `{feature}` in view `{}`{}",
                        view.name,
                        suggest(feature, view.features.iter().map(|feature| feature.name.as_str()))
                    ))
                })?;
                index..index + 1
            }
        };
        for feature in indices {
            let Some(field) = view.features.get(feature) else { continue };
            if !out.iter().any(|known| known.view.name == view.name && known.feature == feature) {
                let name = if full_names { format!("{}__{}", view.name, field.name) } else { field.name.clone() };
                out.push(Selected { view: Arc::clone(view), feature, name });
            }
        }
    }
    if out.is_empty() {
        return Err(Error::invalid("no features are asked for; name some as `view:feature`, or a feature service"));
    }
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for selected in &out {
        for key in &selected.view.keys {
            names.insert(&key.name, "");
        }
    }
    for selected in &out {
        if let Some(other) = names.insert(&selected.name, &selected.view.name) {
            let other = if other.is_empty() { "a join key".into() } else { format!("a feature of view `{other}`") };
            return Err(Error::invalid(format!(
                "feature `{}` of view `{}` is called like {other}; ask for full feature names",
                selected.name, selected.view.name
            )));
        }
    }
    Ok(out)
}
