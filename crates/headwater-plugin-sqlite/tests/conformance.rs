//! The contracts of `headwater-core`, clause by clause, against this plugin.

use std::process::ExitCode;

use headwater_plugin_sqlite::PLUGIN;
use headwater_testkit::{Installed, online, plugin, run};

fn main() -> ExitCode {
    let fixture = Installed::new(&PLUGIN, |folder| serde_json::json!({ "path": folder.join("online.db") }));
    run(plugin::suite(fixture).into_iter().chain(online::suite(fixture)))
}
