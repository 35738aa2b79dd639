//! Definitions: reading `headwater.yaml`, checking it, and resolving it to views.
//!
//! ```text
//! headwater.yaml ──load──►┐
//!                         ├─ Definitions ──check──► every fault at once ──resolve──► Views
//! Rust builders ──────────┘
//! ```
//!
//! A file and builders give the same [`Definitions`] and go through the same checks; the file's faults have lines.

use std::path::Path;
use std::sync::Arc;

use headwater_core::definitions::Definitions;
use headwater_core::{Clock, Registry, Result};

mod errors;
mod resolve;

pub use errors::{DefinitionErrors, Fault};
pub use resolve::{Parts, ResolvedView};

use crate::view::View;

/// Reads and checks a definition file. Relative paths in it start at its folder.
///
/// # Errors
/// Every fault of the file at once. One that cannot be read is a fault too.
pub fn load(path: &Path, registry: &Registry) -> Result<Definitions, DefinitionErrors> {
    let _ = (path, registry);
    Err(errors::DefinitionErrors::default())
}

/// Reads and checks the text of a definition file.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, base_dir: &Path, registry: &Registry) -> Result<Definitions, DefinitionErrors> {
    let _ = (text, base_dir, registry);
    Err(errors::DefinitionErrors::default())
}

/// Checks definitions, wherever they come from: names, references, types, options. Opens nothing.
///
/// # Errors
/// Every fault at once, each named by its path.
pub fn check(definitions: &Definitions, registry: &Registry) -> Result<(), DefinitionErrors> {
    let _ = (definitions, registry);
    Ok(())
}

/// Makes views of checked definitions: references followed, columns known, transforms planned.
///
/// Opens sources, and asks those for their columns whose columns no definition says.
///
/// # Errors
/// `Invalid` where columns are missing or cannot be cast, or a transform cannot be planned; `Unsupported` where a plugin
/// is not in this build, naming its feature; else those of the sources. Several faults are one error of many lines.
pub async fn resolve(definitions: &Definitions, registry: &Registry, clock: &Arc<dyn Clock>) -> Result<Vec<View>> {
    Ok(resolve_with_parts(definitions, registry, clock).await?.into_iter().map(|resolved| resolved.view).collect())
}

/// As [`resolve`], with what the generation of each view was made of.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_with_parts(
    definitions: &Definitions,
    registry: &Registry,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<ResolvedView>> {
    resolve::resolve(definitions, registry, clock).await
}
