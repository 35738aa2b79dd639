//! Apache Kafka, in KRaft mode, of one node or more.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Result, Server, cached, free_ports, run};

/// The release that tests run against.
const VERSION: &str = "4.3.1";
/// Any cluster will do, and making up an id takes Kafka's own tool a second.
const CLUSTER: &str = "aGVhZHdhdGVyLXRlc3RzLg";
const HEAP: &str = "384m";

/// A cluster of Apache Kafka. Node 1 is the controller as well: without it no leader is elected.
#[derive(Debug)]
pub struct Kafka {
    jars: PathBuf,
    nodes: Vec<Node>,
    bootstrap_servers: String,
}

#[derive(Debug)]
struct Node {
    folder: PathBuf,
    port: u16,
    server: Option<Server>,
}

impl Kafka {
    /// What this machine lacks to start it, in words that follow "needs": `None` where nothing is missing. Jars are
    /// fetched if that was not done before.
    pub fn lacking() -> Option<&'static str> {
        if run(Command::new("java").arg("-version")).is_err() {
            return Some("Java 17");
        }
        cached(&format!("kafka-{VERSION}"), fetch).is_err().then_some("Maven")
    }

    /// Starts a cluster of some nodes with its data under a folder, which must be empty. Its internal topics have a replica
    /// on every node. Returns when all nodes take connections.
    ///
    /// # Errors
    /// What is missing: Java 17, or Maven where the jars were never fetched; or what a node said instead of starting.
    pub fn start(folder: &Path, nodes: usize) -> Result<Self> {
        run(Command::new("java").arg("-version"))?;
        let jars = cached(&format!("kafka-{VERSION}"), fetch)?;
        let ports = free_ports(nodes + 1)?;
        let (controller, ports) = (ports[0], &ports[1..]);
        let mut cluster = Self { jars, nodes: Vec::new(), bootstrap_servers: String::new() };
        for (index, &port) in ports.iter().enumerate() {
            let node = Node { folder: folder.join((index + 1).to_string()), port, server: None };
            let at = |error: std::io::Error| format!("{}: {error}", node.folder.display());
            std::fs::create_dir_all(&node.folder).map_err(at)?;
            std::fs::write(node.properties(), properties(index + 1, nodes, controller, &node)).map_err(at)?;
            let mut format = cluster.java("128m", "kafka.tools.StorageTool");
            run(format.args(["format", "--cluster-id", CLUSTER, "--config"]).arg(node.properties()))?;
            cluster.nodes.push(node);
        }
        let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        cluster.bootstrap_servers = addresses.join(",");
        for node in 1..=nodes {
            cluster.launch(node)?;
        }
        for node in &cluster.nodes {
            node.ready()?;
        }
        Ok(cluster)
    }

    /// Where clients begin, as `host:port` separated by commas.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Kills a node with SIGKILL, counted from one. One that is down stays down.
    ///
    /// # Panics
    /// Where the cluster has no such node.
    pub fn kill_node(&mut self, node: usize) {
        if let Some(mut server) = self.nodes[node - 1].server.take() {
            server.end("KILL");
        }
    }

    /// Shuts a node down in good order, counted from one: with another node in the cluster its leaders move there first.
    ///
    /// # Panics
    /// Where the cluster has no such node.
    pub fn stop_node(&mut self, node: usize) {
        if let Some(mut server) = self.nodes[node - 1].server.take() {
            server.end("TERM");
        }
    }

    /// Starts a node again that is down, with its port and its data, and returns when it takes connections.
    ///
    /// # Errors
    /// What it said instead of starting.
    ///
    /// # Panics
    /// Where the cluster has no such node.
    pub fn start_node(&mut self, node: usize) -> Result<()> {
        self.launch(node)?;
        self.nodes[node - 1].ready()
    }

    /// The process id of a node that runs, counted from one.
    ///
    /// # Panics
    /// Where the cluster has no such node.
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.nodes[node - 1].server.as_ref().map(|server| server.pid)
    }

    fn launch(&mut self, node: usize) -> Result<()> {
        let mut command = self.java(HEAP, "kafka.Kafka");
        let node = &mut self.nodes[node - 1];
        command.arg(node.properties());
        node.server = Some(Server::start(&command, &node.folder.join("log"))?);
        Ok(())
    }

    fn java(&self, heap: &str, class: &str) -> Command {
        let mut command = Command::new("java");
        command.arg(format!("-Xmx{heap}")).arg(format!("-Xms{heap}")).arg("-XX:+UseSerialGC");
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.arg("-cp").arg(self.jars.join("*")).arg(class);
        command
    }
}

impl Node {
    fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn ready(&self) -> Result<()> {
        self.server.as_ref().map_or(Ok(()), |server| server.await_port(self.port))
    }
}

/// A node's configuration.
fn properties(node: usize, nodes: usize, controller: u16, at: &Node) -> String {
    let port = at.port;
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{port}");
    let mut roles = "broker";
    if node == 1 {
        roles = "broker,controller";
        let _ = write!(listeners, ",CONTROLLER://127.0.0.1:{controller}");
    }
    let data = at.folder.join("data");
    format!(
        "\
process.roles={roles}
node.id={node}
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
listeners={listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={data}
min.insync.replicas=1
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
offsets.topic.replication.factor={nodes}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={nodes}
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=500
",
        data = data.display()
    )
}

/// Fetches what Kafka runs from.
fn fetch(folder: &Path) -> Result<()> {
    let pom = folder.join("pom.xml");
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let text = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\
         <modelVersion>4.0.0</modelVersion>\
         <groupId>headwater.services</groupId><artifactId>kafka</artifactId><version>1</version>\
         <dependencies>{}{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    );
    std::fs::write(&pom, text).map_err(|error| format!("{}: {error}", pom.display()))?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(pom).arg("dependency:copy-dependencies");
    run(maven.arg(format!("-DoutputDirectory={}", folder.display())))
}
