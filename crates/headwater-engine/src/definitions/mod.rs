//! Definitions: reading `headwater.yaml`, checking it, and resolving it to views.
//!
//! ```text
//! headwater.yaml ──load──►┐
//!                         ├─ Definitions ──check──► every fault at once ──resolve──► Views
//! Rust builders ──────────┘
//! ```
//!
//! A file and builders give the same [`Definitions`] and go through the same checks; the file's faults have lines.

mod aggregations;
mod check;
pub(crate) mod ddl;
mod effective;
mod errors;
mod keys;
mod place;
mod read;
mod resolve;
mod yaml;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::sync::Arc;

use headwater_core::definitions::Definitions;
use headwater_core::{Clock, Registry, Result};

pub use errors::{DefinitionErrors, Fault};
use resolve::Depth;
pub use resolve::{Parts, ResolvedView, generation};

use crate::view::View;

/// Reads and checks a definition file. Relative paths in it start at its folder.
///
/// # Errors
/// Every fault of the file at once. One that cannot be read is a fault too.
pub fn load(path: &Path, registry: &Registry) -> Result<Definitions, DefinitionErrors> {
    let file = path.display().to_string();
    let failed = |message: String| {
        Err(DefinitionErrors {
            file: Some(file.clone()),
            faults: vec![Fault { position: None, path: String::new(), message, hint: None }],
        })
    };
    let text = match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            return failed(format!("not UTF-8 text (byte {})", error.utf8_error().valid_up_to() + 1));
        }
        Err(error) => return failed(format!("cannot be read: {error}")),
    };
    let base_dir = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    parse_named(&text, Some(file), base_dir, registry, &environment)
}

/// Reads and checks the text of a definition file. Relative paths in it start at `base_dir`.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, base_dir: &Path, registry: &Registry) -> Result<Definitions, DefinitionErrors> {
    parse_named(text, None, base_dir, registry, &environment)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn parse_named(
    text: &str,
    file: Option<String>,
    base_dir: &Path,
    registry: &Registry,
    environment: yaml::Environment<'_>,
) -> Result<Definitions, DefinitionErrors> {
    let mut syntax = Vec::new();
    let tree = yaml::parse(text, environment, &mut syntax);
    let mut faults = place::Faults::from(syntax);
    let mut definitions = None;
    match tree {
        Some(tree) => {
            if let Some((read, origins)) = read::definitions(&tree, base_dir, registry, &mut faults) {
                check::check(&read, registry, &origins, &mut faults);
                definitions = Some(read);
            }
        }
        None if faults.len() == 0 => faults.add_again(&place::Place::code(), "there is nothing in it"),
        None => {}
    }
    faults.finish(file.clone())?;
    definitions.ok_or(DefinitionErrors { file, faults: Vec::new() })
}

/// Checks definitions, wherever they come from: names, references, types, options. Opens nothing.
///
/// # Errors
/// Every fault at once, each named by its path.
pub fn check(definitions: &Definitions, registry: &Registry) -> Result<(), DefinitionErrors> {
    let mut faults = place::Faults::default();
    check::check(definitions, registry, &read::Origins::of_code(definitions), &mut faults);
    faults.finish(None)
}

/// Makes views of checked definitions: references followed, columns known, transforms planned.
///
/// Opens sources, and asks those for their columns whose columns no definition says.
///
/// # Errors
/// `Invalid` where columns are missing or cannot be cast, or a transform cannot be planned; `Unsupported` where a plugin
/// is not in this build, naming its feature; else those of the sources. Several faults are one error of many lines.
pub async fn resolve(definitions: &Definitions, registry: &Registry, clock: &Arc<dyn Clock>) -> Result<Vec<View>> {
    let resolved = resolve::resolve(definitions, registry, clock, Depth::Needed).await?;
    Ok(resolved.into_iter().map(|resolved| resolved.view).collect())
}

/// As [`resolve`], with what the generation of each view was made of. Compares the columns of every table that is there
/// with what views want of it: what `plan` and `apply` do before they promise anything.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_with_parts(
    definitions: &Definitions,
    registry: &Registry,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<ResolvedView>> {
    resolve::resolve(definitions, registry, clock, Depth::Tables).await
}
