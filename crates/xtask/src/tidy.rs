//! Checks of the tree that no compiler makes: layout, manifests, naming, and what may not be written.

use std::path::{Path, PathBuf};

/// What may lie in the workspace's folder besides dotfiles and what git ignores.
const TOP: [&str; 8] =
    ["Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "crates", "examples", "tests"];

/// A file longer than this is several topics.
const MAX_LINES: usize = 600;

/// What may not be written, where it may all the same, and why not. Split, so that this file passes itself.
const FORBIDDEN: [(&str, &str, &str, &str); 5] = [
    ("#[ign", "ore", "", "a test that does not run shows nothing"),
    ("tod", "o!(", "", "finish it"),
    ("unimplem", "ented!(", "", "finish it"),
    ("dbg", "!(", "", "use tracing"),
    ("inventory::", "iter", "crates/headwater-core/", "plugins are found through the registry"),
];

/// All faults in the tree.
///
/// # Errors
/// A message where it cannot be read.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    top(root, &mut faults)?;
    let facade = read(&root.join("crates/headwater/src/lib.rs"))?;
    let features = read(&root.join("crates/headwater/Cargo.toml"))?;
    for folder in packages(root)? {
        let manifest = read(&folder.join("Cargo.toml"))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shown = folder.strip_prefix(root).unwrap_or(&folder).display().to_string();
        let mut found = check_manifest(&name, &manifest, shown.starts_with("tests"));
        if let Some(word) = name.strip_prefix("headwater-plugin-") {
            found.extend(plugin(word, &folder, &facade, &features)?);
        }
        faults.extend(found.into_iter().map(|fault| format!("{shown}: {fault}")));
    }
    for file in sources(root)? {
        let text = read(&file)?;
        let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        faults.extend(check_source(&shown, &text).into_iter().map(|fault| format!("{shown}: {fault}")));
    }
    Ok(faults)
}

fn top(root: &Path, faults: &mut Vec<String>) -> Result<(), String> {
    for entry in entries(root)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // `target` and `data` are ignored by git; other ignored names are nobody's business here.
        let ignored = name.starts_with('.') || name == "target" || name == "data" || name.ends_with(".tmp");
        if !ignored && !TOP.contains(&name.as_str()) {
            faults.push(format!("{name}: nothing else lies at the top than {}", TOP.join(", ")));
        }
    }
    for name in TOP {
        if !root.join(name).exists() {
            faults.push(format!("{name} is missing"));
        }
    }
    Ok(())
}

/// The lines of a section of a manifest.
pub(crate) fn section<'a>(manifest: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let header = format!("[{name}]");
    let lines = manifest.lines().map(str::trim).skip_while(move |line| *line != header).skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn check_manifest(name: &str, manifest: &str, across: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let has = |section_name: &str, line: &str| section(manifest, section_name).any(|found| found == line);
    if !across && !has("package", &format!("name = \"{name}\"")) {
        faults.push("the package is not called like its folder".into());
    }
    for line in ["version.workspace = true", "edition.workspace = true", "license.workspace = true"] {
        if !has("package", line) {
            faults.push(format!("`{line}` is missing"));
        }
    }
    if !has("lints", "workspace = true") {
        faults.push("`[lints] workspace = true` is missing".into());
    }
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for line in section(manifest, kind) {
            let package = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if !line.contains("workspace = true") {
                faults.push(format!("`{package}`: versions stand in the workspace's manifest alone"));
            }
            // Tests may look at what the package itself must not know; but for plugins, which are proven by themselves.
            let proof = package == "headwater-testkit" && kind == "dev-dependencies";
            if !proof && (kind != "dev-dependencies" || is_plugin(name)) && !may_depend(name, package) {
                faults.push(format!("it must not depend on `{package}`"));
            }
        }
    }
    faults
}

/// The order of the house: core knows nobody, plugins know core, the engine knows core.
fn may_depend(name: &str, on: &str) -> bool {
    if on != "headwater" && !on.starts_with("headwater-") {
        return true;
    }
    match name {
        "headwater-core" | "xtask" => false,
        "headwater-engine" | "headwater-testkit" => on == "headwater-core",
        plugin if is_plugin(plugin) => on == "headwater-core",
        _ => true,
    }
}

/// Ours, and the one that a user would write.
fn is_plugin(name: &str) -> bool {
    name.starts_with("headwater-plugin-") || name == "custom_plugin"
}

/// One word: package, feature, `type:` and row of the facade.
fn plugin(word: &str, folder: &Path, facade: &str, features: &str) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    let library = read(&folder.join("src/lib.rs"))?;
    if !library.contains(&format!("Plugin::new(\"{word}\"")) {
        faults.push(format!("its plugin is not called `{word}`"));
    }
    if !library.starts_with("#![doc = include_str!(\"../README.md\")]") {
        faults.push("its README is not its documentation".into());
    }
    if !library.contains("register!(PLUGIN);") {
        faults.push("it does not register its plugin".into());
    }
    if !folder.join("README.md").exists() {
        faults.push("it has no README.md".into());
    }
    if !facade.contains(&format!("headwater_plugin_{word}")) {
        faults.push("it has no row in the facade".into());
    }
    if !section(features, "features").any(|line| line.starts_with(&format!("{word} = "))) {
        faults.push(format!("the facade has no feature `{word}`"));
    }
    let row = format!("\"{word}\" => headwater_plugin_{word}");
    // A plugin that checks definitions even where its feature is off is always linked.
    let always = format!("&headwater_plugin_{word}::PLUGIN");
    if !facade.contains(&row) && !facade.contains(&always) {
        faults.push(format!("its row in the facade is not that of the feature `{word}`"));
    }
    if !folder.join("tests/conformance.rs").exists() {
        faults.push("it does not run the conformance suite".into());
    }
    Ok(faults)
}

fn check_source(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{lines} lines are more than {MAX_LINES}; split it by topic"));
    }
    for (first, second, allowed, why) in FORBIDDEN {
        let word = format!("{first}{second}");
        let allowed = !allowed.is_empty() && path.starts_with(allowed);
        if !allowed && text.lines().any(|line| line.contains(&word) && !line.trim_start().starts_with("//")) {
            faults.push(format!("`{word}`: {why}"));
        }
    }
    faults
}

fn packages(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut folders = Vec::new();
    for group in ["crates", "examples"] {
        folders.extend(entries(&root.join(group))?);
    }
    folders.push(root.join("tests"));
    folders.push(root.join("tests/linkage"));
    folders.retain(|folder| folder.join("Cargo.toml").exists());
    Ok(folders)
}

fn sources(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("examples"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            if entry.is_dir() {
                // `data` holds what examples fetch and make.
                if !entry.ends_with("data") {
                    folders.push(entry);
                }
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push(entry);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
[package]
name = \"headwater-plugin-x\"
version.workspace = true
edition.workspace = true
license.workspace = true

[lints]
workspace = true

[dependencies]
headwater-core.workspace = true
arrow = { workspace = true, features = [\"csv\"] }
";

    #[test]
    fn a_manifest_in_order() {
        assert_eq!(check_manifest("headwater-plugin-x", GOOD, false), Vec::<String>::new());
    }

    #[test]
    fn faults_of_manifests() {
        let fault = |name: &str, manifest: &str| check_manifest(name, manifest, false).join("; ");
        assert!(fault("headwater-plugin-y", GOOD).contains("not called like its folder"));
        assert!(fault("headwater-plugin-x", &GOOD.replace("[lints]", "[lint]")).contains("[lints]"));
        assert!(fault("headwater-plugin-x", &GOOD.replace("license.workspace", "license")).contains("license"));
        assert!(fault("headwater-plugin-x", &format!("{GOOD}serde = \"1\"\n")).contains("`serde`: versions"));
        let engine = format!("{GOOD}headwater-engine.workspace = true\n");
        assert!(fault("headwater-plugin-x", &engine).contains("must not depend on `headwater-engine`"));
        let testing = format!("{GOOD}[dev-dependencies]\nheadwater-testkit.workspace = true\n");
        assert_eq!(fault("headwater-plugin-x", &testing), "");
        let looking = format!("{GOOD}[dev-dependencies]\nheadwater-engine.workspace = true\n");
        assert!(fault("headwater-plugin-x", &looking).contains("must not depend on `headwater-engine`"));
        let custom = engine.replace("headwater-plugin-x", "custom_plugin");
        assert!(fault("custom_plugin", &custom).contains("must not depend on `headwater-engine`"));
    }

    #[test]
    fn faults_of_sources() {
        let ignore = ["#[ign", "ore]"].concat();
        assert_eq!(check_source("a.rs", "fn a() {}\n"), Vec::<String>::new());
        assert_eq!(check_source("a.rs", &format!("// {ignore}\n")), Vec::<String>::new());
        assert_eq!(check_source("a.rs", &format!("{ignore}\nfn a() {{}}\n")).len(), 1);
        assert_eq!(check_source("a.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
        let iterate = ["inventory::", "iter"].concat();
        assert_eq!(check_source("crates/headwater-engine/src/a.rs", &iterate).len(), 1);
        assert_eq!(check_source("crates/headwater-core/src/a.rs", &iterate).len(), 0);
    }
}
