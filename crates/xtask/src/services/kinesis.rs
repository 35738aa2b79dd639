//! `kinesis-local`, a Kinesis endpoint for meaning, not for load.

use std::path::Path;
use std::process::Command;

use super::{Result, Server, cached, free_ports, run};

const VERSION: &str = "0.6.2";

/// A Kinesis endpoint. It knows no streams yet, and takes any region and credentials.
#[derive(Debug)]
pub struct KinesisLocal {
    endpoint: String,
    _server: Server,
}

impl KinesisLocal {
    /// Starts it, with its log in a folder, and returns when it takes connections. It keeps nothing.
    ///
    /// It has no option for the address that it listens on, and listens on all.
    ///
    /// # Errors
    /// What is missing: Node.js, or npm where the package was never fetched; or what it said instead of starting.
    pub fn start(folder: &Path) -> Result<Self> {
        run(Command::new("node").arg("--version"))?;
        let modules = cached(&format!("kinesis-local-{VERSION}"), |folder| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(folder);
            run(npm.arg(format!("kinesis-local@{VERSION}")))
        })?;
        let home = modules.join("node_modules/kinesis-local");
        let ports = free_ports(2)?;
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // The program itself, not npx, which would leave it behind.
        let mut node = Command::new("node");
        node.arg(home.join("main.js")).env("LOG_LEVEL", "WARN").env("KINESIS_MOCK_CERT_PATH", home.join("server.json"));
        node.env("KINESIS_MOCK_PLAIN_PORT", ports[0].to_string()).env("KINESIS_MOCK_TLS_PORT", ports[1].to_string());
        let server = Server::start(&node, &folder.join("log"))?;
        server.await_port(ports[0])?;
        Ok(Self { endpoint: format!("http://127.0.0.1:{}", ports[0]), _server: server })
    }

    /// The URL of the endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}
