//! The registry file: what was applied, and which generation of each view serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_core::definitions::Definitions;
use headwater_core::{Clock, Registry, Result};
use serde::{Deserialize, Serialize};

use crate::view::View;

/// What was applied last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {}

impl State {
    /// Reads the registry file of these definitions; `None` where nothing was applied yet.
    ///
    /// # Errors
    /// `FormatVersion` for a version that this release does not know, `Corrupt` for what is no registry file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let _ = path;
        Ok(None)
    }

    /// What was applied, with what a registry file does not hold (secrets, code, the folder) taken from `given`.
    ///
    /// # Errors
    /// `Invalid` where `given` lacks code that a view needs, or has another version of it.
    pub(crate) fn definitions(&self, given: &Definitions) -> Result<Definitions> {
        Ok(given.clone())
    }

    /// Gives views their generations: those that the registry knows keep theirs.
    pub(crate) fn pin(&self, views: &mut [View]) {
        let _ = views;
    }

    /// Generations that are no longer current and whose rows were not dropped yet: (view, generation).
    pub(crate) fn previous(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Forgets a previous generation, after its rows were dropped.
    pub(crate) fn forget(&mut self, view: &str, generation: &str) {
        let _ = (view, generation);
    }
}

/// What an `apply` would do. `Display` is for people, `Serialize` for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {}

/// Compares what is given with what was applied: the plan, and the state that [`Lock::write`] makes true.
///
/// # Errors
/// As [`crate::definitions::resolve`]; faults of the definitions themselves as `Invalid`.
pub(crate) async fn plan(
    state: Option<&State>,
    given: &Definitions,
    registry: &Registry,
    clock: &Arc<dyn Clock>,
) -> Result<(Plan, State)> {
    let _ = (state, given, registry, clock);
    Ok((Plan {}, State {}))
}

/// The right to change a registry file; held by one `apply` at a time, freed on drop and by the system when the process
/// ends.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
}

impl Lock {
    /// Takes the lock beside the registry file, creating the folder.
    ///
    /// # Errors
    /// `Conflict` while another process holds it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned() })
    }

    /// Replaces the registry file in one step: a reader sees the old one or the new one, also after a power loss.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&self, state: &State) -> Result<()> {
        let _ = (&self.path, state);
        Ok(())
    }
}
