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

/// Whom a secured node lets in.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Users with their passwords, for SASL with PLAIN and SCRAM-SHA-512.
    pub users: Vec<(String, String)>,
    /// What the node shows over TLS, as PEM: its key (PKCS #8) and its certificate.
    pub certificate: String,
    /// Those by whom a client's certificate has to be signed over TLS, as PEM.
    pub trusted: String,
}

/// A single node that clients have to prove themselves to.
#[derive(Debug)]
pub struct SecuredKafka {
    kafka: Kafka,
    sasl: u16,
    tls: u16,
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
        Self::start_with(folder, &free_ports(nodes + 1)?, "", &[])
    }

    /// The first port is the controller's, the others one node's each. `more` goes into the configuration of every node, and
    /// `formatting` to the tool that makes its storage.
    fn start_with(folder: &Path, ports: &[u16], more: &str, formatting: &[String]) -> Result<Self> {
        run(Command::new("java").arg("-version"))?;
        let jars = cached(&format!("kafka-{VERSION}"), fetch)?;
        let (controller, ports) = (ports[0], &ports[1..]);
        let nodes = ports.len();
        let mut cluster = Self { jars, nodes: Vec::new(), bootstrap_servers: String::new() };
        for (index, &port) in ports.iter().enumerate() {
            let node = Node { folder: folder.join((index + 1).to_string()), port, server: None };
            let at = |error: std::io::Error| format!("{}: {error}", node.folder.display());
            std::fs::create_dir_all(&node.folder).map_err(at)?;
            let properties = properties(index + 1, nodes, controller, &node) + more;
            std::fs::write(node.properties(), properties).map_err(at)?;
            let mut format = cluster.java("128m", "kafka.tools.StorageTool");
            format.args(["format", "--cluster-id", CLUSTER, "--config"]).arg(node.properties());
            run(format.args(formatting))?;
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

impl SecuredKafka {
    /// Starts a node with its data under a folder, which must be empty. Beside the plain listener it has one for SASL and one
    /// for SASL over TLS, where clients have to show a certificate as well. Returns when it takes connections.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn start(folder: &Path, doors: &Doors) -> Result<Self> {
        let ports = free_ports(4)?;
        let (sasl, tls) = (ports[2], ports[3]);
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let file = folder.join(name);
            std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok(file)
        };
        let (shown, trusted) = (write("node.pem", &doors.certificate)?, write("trusted.pem", &doors.trusted)?);
        let plain: String = doors.users.iter().map(|(user, password)| format!(" user_{user}=\"{password}\"")).collect();
        let modules = "org.apache.kafka.common.security";
        let mut more = format!(
            "\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.tls.ssl.client.auth=required
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={shown}
listener.name.tls.ssl.truststore.type=PEM
listener.name.tls.ssl.truststore.location={trusted}
",
            controller = ports[0],
            port = ports[1],
            shown = shown.display(),
            trusted = trusted.display()
        );
        for listener in ["sasl", "tls"] {
            let name = format!("listener.name.{listener}");
            let _ = writeln!(more, "{name}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required{plain};");
            let _ = writeln!(more, "{name}.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;");
        }
        let scram = |(user, password): &(String, String)| {
            ["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={password}]")]
        };
        let formatting: Vec<String> = doors.users.iter().flat_map(scram).collect();
        let kafka = Kafka::start_with(folder, &ports[..2], &more, &formatting)?;
        for node in &kafka.nodes {
            let Some(server) = &node.server else { continue };
            server.await_port(sasl)?;
            server.await_port(tls)?;
        }
        Ok(Self { kafka, sasl, tls })
    }

    /// Where clients begin that need not prove anything.
    pub fn plain_servers(&self) -> &str {
        self.kafka.bootstrap_servers()
    }

    /// Where clients begin with `SASL_PLAINTEXT`.
    pub fn sasl_servers(&self) -> String {
        format!("127.0.0.1:{}", self.sasl)
    }

    /// Where clients begin with `SASL_SSL`.
    pub fn tls_servers(&self) -> String {
        format!("127.0.0.1:{}", self.tls)
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
