//! A source that assumes a role: a small STS grants credentials that soon expire, and every call is looked at on its way
//! to Kinesis.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use headwater_core::time::{Clock, Micros, SystemClock};
use headwater_tests::worker::{Observer, Project};
use headwater_tests::{drivers, wait_for};

use crate::server::{Sender, Server, serve};
use crate::{PASS, PATIENCE, RATE};

const ROLE: &str = "arn:aws:iam::123456789012:role/reader";
/// How long credentials live. The SDK asks for others ten seconds before their end, at the most.
const LIFE: Micros = 11_000_000;
/// The credentials with which the role is assumed.
const OWN: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAOWN"), ("AWS_SECRET_ACCESS_KEY", "own-secret-7f3a")];

/// Credentials of the role.
#[derive(Debug)]
struct Granted {
    key: String,
    secret: String,
    token: String,
    until: Micros,
}

/// What was granted, and what was done with it.
#[derive(Debug, Default)]
struct Seen {
    refuses: bool,
    granted: Vec<Granted>,
    /// The keys that calls of Kinesis were signed with.
    used: BTreeSet<String>,
    /// What should not have been.
    wrong: Vec<String>,
}

type Shared = Arc<Mutex<Seen>>;

/// The key that a call is signed with, for a service.
fn signed_with(headers: &HeaderMap, service: &str) -> Option<String> {
    let signature = headers.get("authorization")?.to_str().ok()?;
    let mut scope = signature.split_once("Credential=")?.1.split(',').next()?.split('/');
    let key = scope.next()?.to_owned();
    scope.any(|part| part == service).then_some(key)
}

/// STS, as far as it goes here.
async fn assume(State(seen): State<Shared>, headers: HeaderMap, form: String) -> Response {
    let mut seen = seen.lock().unwrap();
    if seen.refuses {
        let error = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message></Error>\
                     <RequestId>0</RequestId></ErrorResponse>";
        return (StatusCode::FORBIDDEN, [("content-type", "text/xml")], error).into_response();
    }
    if signed_with(&headers, "sts").as_deref() != Some(OWN[0].1) {
        seen.wrong.push(format!("the role was asked for with {headers:?}"));
    }
    let role = ROLE.replace(':', "%3A").replace('/', "%2F");
    let expected = ["Action=AssumeRole".into(), format!("RoleArn={role}"), "RoleSessionName=headwater".into()];
    if !expected.iter().all(|field: &String| form.split('&').any(|given| given == field)) {
        seen.wrong.push(format!("STS was asked for {form}"));
    }
    let number = seen.granted.len();
    let granted = Granted {
        key: format!("ASIAROLE{number}"),
        secret: format!("role-secret-{number}-c41d"),
        token: format!("role-token-{number}-9be2"),
        until: SystemClock.now() + LIFE,
    };
    let until = DateTime::from_millis(granted.until / 1000).fmt(DateTimeFormat::DateTime).unwrap();
    let answer = format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser>\
         <AssumedRoleId>AROA:headwater</AssumedRoleId><Arn>{ROLE}/headwater</Arn></AssumedRoleUser><Credentials>\
         <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
         <Expiration>{until}</Expiration></Credentials></AssumeRoleResult><ResponseMetadata><RequestId>0</RequestId>\
         </ResponseMetadata></AssumeRoleResponse>",
        granted.key, granted.secret, granted.token
    );
    seen.granted.push(granted);
    ([("content-type", "text/xml")], answer).into_response()
}

/// Looks at a call on its way to Kinesis.
async fn look(State(seen): State<Shared>, request: Request, next: Next) -> Response {
    {
        let mut seen = seen.lock().unwrap();
        let headers = request.headers();
        let key = signed_with(headers, "kinesis").unwrap_or_default();
        let token = headers.get("x-amz-security-token").and_then(|token| token.to_str().ok()).unwrap_or_default();
        let fits = |granted: &&Granted| granted.key == key && granted.token == token;
        match seen.granted.iter().find(fits) {
            Some(granted) if granted.until > SystemClock.now() => drop(seen.used.insert(key)),
            Some(granted) => {
                let wrong = format!("a call is signed with {}, which has expired", granted.key);
                seen.wrong.push(wrong);
            }
            None => seen.wrong.push(format!("a call is signed with `{key}`, which nobody granted")),
        }
    }
    next.run(request).await
}

/// What nobody may read anywhere.
fn no_secrets(seen: &Seen, text: &str) {
    let granted = seen.granted.iter().flat_map(|granted| [granted.secret.as_str(), granted.token.as_str()]);
    for secret in granted.chain([OWN[1].1]) {
        assert!(!text.contains(secret), "`{secret}` was printed");
    }
}

/// The role is assumed, its credentials sign every call and are renewed before they expire, none is printed; and where the
/// role is refused, the job stops and says so.
pub(crate) fn assumed() {
    let server = Server::start();
    let stream = "events-role";
    server.create(stream, 2);
    let seen = Shared::default();
    let sts = Router::new().route("/", post(assume)).with_state(Arc::clone(&seen));
    let sts = server.runtime.block_on(serve(sts));
    let kinesis = server.behind(|app| app.layer(from_fn_with_state(Arc::clone(&seen), look)));
    let source =
        format!("type: kinesis\nstream_name: {stream}\nregion: eu-west-1\nendpoint_url: {kinesis}\nrole_arn: {ROLE}");
    let environment = [&OWN[..], &[("AWS_ENDPOINT_URL_STS", &sts), ("RUST_LOG", "debug")]].concat();
    let definitions = drivers::definitions("assumed", &source);
    let project = Project::new(env!("CARGO_BIN_EXE_command"), &definitions, &environment);
    let observer = Observer::new(&project);
    let sender = Sender::start(&server, stream, RATE, drivers::event);
    let worker = project.start("worker");
    wait_for("records to be read", PATIENCE, || observer.rows() >= PASS);
    wait_for("renewed credentials", PATIENCE, || seen.lock().unwrap().used.len() >= 3);
    let before = observer.rows();
    wait_for("records to be read with them", PATIENCE, || observer.rows() >= before + PASS);
    let sent = sender.finish();
    worker.stop();
    project.ok(&["ingest", "--until-caught-up"]);
    drivers::each_once(&project, sent);

    {
        let mut seen = seen.lock().unwrap();
        assert_eq!(seen.wrong, [""; 0]);
        println!("{} credentials were granted", seen.granted.len());
        let log = std::fs::read_to_string(project.path().join("worker.log")).unwrap();
        assert!(log.contains("DEBUG"), "the log shows too little to say that it shows no secrets");
        no_secrets(&seen, &log);
        seen.refuses = true;
    }
    let said = project.fails(&["ingest"]);
    assert!(said.contains("AccessDenied"), "{said}");
    no_secrets(&seen.lock().unwrap(), &said);
}
