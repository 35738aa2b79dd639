//! The guide "write a plugin", followed word by word: in an empty folder beside a checkout every file is written and every
//! command run as it stands there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::run::{Context, Outcome, Tests};

const GUIDE: &str = "examples/custom_plugin/README.md";
/// The port that the guide's server listens on; another one may be free.
const PORT: &str = "7007";
/// What the guide says that its features are, in that order.
const FARES: [&str; 3] = ["15.5", "8.0", "4.5"];

/// Follows it.
pub(crate) fn follow(context: &Context) -> Outcome {
    // Not under ours: there cargo would take the package for one of our workspace.
    let folder = std::env::temp_dir().join(format!("headwater-guide-{}", std::process::id()));
    let outcome = match prepare(&context.root, &folder) {
        Ok(()) => follow_in(context, &folder),
        Err(why) => Outcome::Failed(why, Tests::default()),
    };
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        println!("{}: {error}", folder.display());
    }
    outcome
}

/// An empty folder with a checkout beside, and the script.
fn prepare(root: &Path, folder: &PathBuf) -> Result<(), String> {
    let guide = root.join(GUIDE);
    let text = std::fs::read_to_string(&guide).map_err(|error| format!("{}: {error}", guide.display()))?;
    let at = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(at)?;
    std::os::unix::fs::symlink(root, folder.join("headwater")).map_err(at)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(at)?;
    let port = listener.local_addr().map_err(at)?.port().to_string();
    std::fs::write(folder.join("follow.sh"), script(&text.replace(PORT, &port))?).map_err(at)
}

fn follow_in(context: &Context, folder: &Path) -> Outcome {
    let mut bash = context.command("bash");
    bash.arg("follow.sh").current_dir(folder);
    // As what our own tests depend on is built, so that it need not be built again.
    bash.env("CARGO_TARGET_DIR", &context.target).env("CARGO_PROFILE_DEV_DEBUG", "none");
    match context.run(bash) {
        Outcome::Passed(tests) => match fares(folder) {
            Ok(()) => Outcome::Passed(tests),
            Err(why) => Outcome::Failed(why, tests),
        },
        other => other,
    }
}

/// Compares what was read online with what the guide says.
fn fares(folder: &Path) -> Result<(), String> {
    let printed = std::fs::read_to_string(folder.join("printed")).map_err(|error| format!("printed: {error}"))?;
    let mut rest = printed.as_str();
    for fare in FARES {
        rest = rest.split_once(fare).ok_or_else(|| format!("the guide promises `{fare}`; printed was {printed}"))?.1;
    }
    Ok(())
}

/// What a reader does, as a script: writes the files, each under the name that stands last before it, and runs the
/// commands, all in one shell. A name that comes again means more lines at the end of that file.
fn script(guide: &str) -> Result<String, String> {
    // What the guide starts ends with it, however it ends.
    let mut script = String::from("set -e -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    let mut before = String::new();
    let mut written = BTreeSet::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            before += line;
            before.push('\n');
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        if language == "sh" {
            for line in block.lines() {
                // Kept to be looked at, and shown all the same.
                let kept = line.contains(" get-online-features ") && !line.starts_with("until");
                let kept = if kept { " | tee -a ../../printed" } else { "" };
                let _ = writeln!(script, "{}{kept}", line.replace("grep -F", "tee -a ../../printed | grep -F"));
            }
        } else {
            let name = before.split('`').skip(1).step_by(2).filter(|word| is_file(word)).last();
            let name = name.ok_or_else(|| format!("the guide does not say where this belongs: {block}"))?;
            let to = if written.insert(name.to_owned()) { ">" } else { ">>" };
            let _ = writeln!(script, "cat {to} {name} <<'END OF FILE'\n{block}\nEND OF FILE");
        }
        before.clear();
    }
    Ok(script)
}

fn is_file(word: &str) -> bool {
    let ending = Path::new(word).extension().and_then(|ending| ending.to_str());
    matches!(ending, Some("csv" | "ndjson" | "rs" | "toml" | "yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_and_commands_run_in_order() {
        let guide = "Look at `a.rs`, then write `c.toml`:\n```toml\nx = 1\n```\nNow run\n```sh\ncargo test\n```\nand add \
                     to `c.toml`:\n```toml\ny = 2\n```\n";
        let all = script(guide).unwrap();
        let order = [
            "\ncat > c.toml <<'END OF FILE'\nx = 1\nEND OF FILE\n",
            "\ncargo test\n",
            "\ncat >> c.toml <<'END OF FILE'\ny = 2\nEND OF FILE\n",
        ];
        let found: Vec<Option<usize>> = order.iter().map(|part| all.find(part)).collect();
        assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{all}");
        assert!(script("Somewhere:\n```rust\nfn main() {}\n```\n").is_err());
    }
}
