//! Brokers that clients have to prove themselves to, and what a project shows of its secrets: nothing.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use headwater_tests::worker::Project;
use headwater_tests::{drivers, wait_for};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tempfile::TempDir;
use xtask::services::{Doors, SecuredKafka};

use crate::cluster::PATIENCE;

const USER: &str = "reader";
const PASSWORD: &str = "canary-of-a-password";
const WRONG: &str = "canary-of-another";
const TOPIC: &str = "secured";
const EVENTS: usize = 300;
/// How long a client may take to say that it is not let in.
const SOON: Duration = Duration::from_secs(30);

/// A broker with a topic, and what a client has to show.
pub(crate) struct Secured {
    kafka: SecuredKafka,
    authority: Signed,
    client: Signed,
    _folder: TempDir,
}

/// A key and its certificate.
struct Signed {
    key: PKey<Private>,
    certificate: X509,
}

impl Signed {
    /// One that `by` has signed, or one that signs others.
    fn new(name: &str, by: Option<&Self>) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut serial = BigNum::new().unwrap();
        serial.rand(127, MsbOption::MAYBE_ZERO, false).unwrap();
        let mut certificate = X509::builder().unwrap();
        certificate.set_version(2).unwrap();
        certificate.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        certificate.set_subject_name(&subject).unwrap();
        certificate.set_issuer_name(by.map_or(&subject, |by| by.certificate.subject_name())).unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        certificate.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        match by {
            None => certificate.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap(),
            Some(by) => {
                let context = certificate.x509v3_context(Some(&by.certificate), None);
                let address = SubjectAlternativeName::new().ip("127.0.0.1").build(&context).unwrap();
                certificate.append_extension(address).unwrap();
            }
        }
        certificate.sign(by.map_or(&key, |by| &by.key), MessageDigest::sha256()).unwrap();
        Self { certificate: certificate.build(), key }
    }

    fn key(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }

    fn certificate(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }
}

impl Secured {
    /// Starts the broker, and fills the topic.
    pub(crate) fn start() -> Result<Self, String> {
        let authority = Signed::new("the authority of a test", None);
        let (node, client) = (Signed::new("node", Some(&authority)), Signed::new("client", Some(&authority)));
        let doors = Doors {
            users: vec![(USER.into(), PASSWORD.into())],
            certificate: node.key() + &node.certificate(),
            trusted: authority.certificate(),
        };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let kafka = SecuredKafka::start(folder.path(), &doors)?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.plain_servers());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(async {
            let producer: FutureProducer = config.create().map_err(|error| error.to_string())?;
            for number in 0..EVENTS {
                let event = drivers::event(number);
                let record = FutureRecord::to(TOPIC).key(&event.key).payload(&event.value);
                producer.send(record, PATIENCE).await.map_err(|(error, _)| error.to_string())?;
            }
            Ok::<_, String>(())
        })?;
        Ok(Self { kafka, authority, client, _folder: folder })
    }

    /// A project that reads the topic with these properties. Its processes log all they can.
    fn project(&self, name: &str, servers: &str, password: &str, options: &[(&str, &str)]) -> Project {
        let mut source = format!("type: kafka\nbootstrap_servers: {servers}\ntopic: {TOPIC}\noptions:\n");
        for (property, value) in options {
            source += &format!("  {property}: {value}\n");
        }
        let environment = [
            ("RUST_LOG", "trace"),
            ("PASSWORD", password),
            ("KEY", &self.client.key()),
            ("CERTIFICATE", &self.client.certificate()),
            ("AUTHORITY", &self.authority.certificate()),
        ];
        Project::new(env!("CARGO_BIN_EXE_command"), &drivers::definitions(name, &source), &environment)
    }

    /// Checks that neither what a command printed nor any file of a project holds a secret.
    fn nothing_is_shown(&self, project: &Project, printed: &[&Output]) {
        let key = self.client.key();
        let secrets: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).chain([PASSWORD, WRONG]).collect();
        hidden(&secrets, project, printed);
    }
}

/// Checks that neither what a command printed nor any file of a project holds one of these secrets. The first command
/// has read, or tried to, and logged all it can.
pub(crate) fn hidden(secrets: &[&str], project: &Project, printed: &[&Output]) {
    let log = String::from_utf8_lossy(&printed[0].stderr);
    let is_librdkafka = |line: &str| line.contains("DEBUG") && line.contains("librdkafka: ");
    assert!(log.lines().any(is_librdkafka), "the log shows too little to say that it shows no secrets:\n{log}");
    let check = |what: &str, bytes: &[u8]| {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{what} shows a secret");
        }
    };
    for output in printed {
        check("what is printed", &[output.stdout.as_slice(), &output.stderr].concat());
    }
    for file in files(project.path()) {
        check(&file.display().to_string(), &std::fs::read(&file).unwrap_or_default());
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The first job of a project, null where there is none yet, and what the command printed.
fn job(project: &Project) -> (serde_json::Value, Output) {
    let printed = project.run(&["status", "--output", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    (status["jobs"].get(0).cloned().unwrap_or_default(), printed)
}

/// The properties of SASL with a mechanism.
fn sasl(mechanism: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", USER),
        ("sasl.password", "${PASSWORD}"),
    ]
}

/// The same over TLS, with a client's certificate.
fn tls() -> Vec<(&'static str, &'static str)> {
    let mut options = sasl("SCRAM-SHA-512");
    options[0].1 = "SASL_SSL";
    options.extend([
        ("ssl.ca.pem", "${AUTHORITY}"),
        ("ssl.certificate.pem", "${CERTIFICATE}"),
        ("ssl.key.pem", "${KEY}"),
    ]);
    options
}

pub(crate) fn whoever_proves_itself_reads(secured: &Secured) {
    let (plain, over_tls) = (secured.kafka.sasl_servers(), secured.kafka.tls_servers());
    for (name, servers, options) in
        [("scram", &plain, sasl("SCRAM-SHA-512")), ("plain", &plain, sasl("PLAIN")), ("tls", &over_tls, tls())]
    {
        // librdkafka logs all it can, too.
        let options = [options, vec![("debug", "all")]].concat();
        let project = secured.project(name, servers, PASSWORD, &options);
        let printed = project.run(&["ingest", "--until-caught-up"]);
        assert!(printed.status.success(), "{name}: {}", String::from_utf8_lossy(&printed.stderr));
        drivers::each_once(&project, EVENTS);
        let more = [&["plan"][..], &["status"], &["status", "--output", "json"], &["plugins"]];
        let more = more.map(|arguments| project.run(arguments));
        secured.nothing_is_shown(&project, &[&printed, &more[0], &more[1], &more[2], &more[3]]);
    }
}

pub(crate) fn whoever_does_not_is_told_so_at_once(secured: &Secured) {
    let (plain, over_tls) = (secured.kafka.sasl_servers(), secured.kafka.tls_servers());
    let without =
        |names: &[&str]| tls().into_iter().filter(|(property, _)| !names.contains(property)).collect::<Vec<_>>();
    let mut stranger = without(&["ssl.ca.pem"]);
    stranger.push(("ssl.ca.pem", "${CERTIFICATE}"));
    for (name, servers, password, options, says) in [
        ("scram", &plain, WRONG, sasl("SCRAM-SHA-512"), "SASL authentication error: Authentication failed"),
        ("plain", &plain, WRONG, sasl("PLAIN"), "SASL authentication error: Authentication failed"),
        ("mechanism", &plain, PASSWORD, sasl("SCRAM-SHA-256"), "broker's supported mechanisms: PLAIN,SCRAM-SHA-512"),
        ("password", &over_tls, WRONG, tls(), "SASL authentication error: Authentication failed"),
        ("stranger", &over_tls, PASSWORD, stranger, "broker certificate could not be verified"),
        (
            "nameless",
            &over_tls,
            PASSWORD,
            without(&["ssl.certificate.pem", "ssl.key.pem"]),
            "certificate: SSL alert number",
        ),
    ] {
        let project = secured.project(name, servers, password, &options);
        let begin = Instant::now();
        let printed = project.run(&["ingest"]);
        let error = String::from_utf8_lossy(&printed.stderr);
        assert!(!printed.status.success(), "{name}: {error}");
        assert!(begin.elapsed() < SOON, "{name}: after {:?}", begin.elapsed());
        let (job, status) = job(&project);
        let reason = job["reason"].as_str().unwrap_or_default();
        println!("{name}: {reason}");
        assert_eq!(job["state"], "failed", "{name}: {job}");
        assert!(reason.contains(says) && error.contains(says), "{name}: {reason}\n{error}");
        secured.nothing_is_shown(&project, &[&printed, &status]);
    }
}

pub(crate) fn a_client_that_proves_nothing_says_what_it_may_lack(secured: &Secured) {
    let project = secured.project("unproven", &secured.kafka.sasl_servers(), PASSWORD, &[("client.id", "unproven")]);
    let mut worker = project.start("worker");
    wait_for("the status to say why", std::time::Duration::from_secs(35), || {
        worker.alive();
        job(&project).0["retrying"].as_str().is_some_and(|why| why.contains("security.protocol"))
    });
    worker.stop();
}
