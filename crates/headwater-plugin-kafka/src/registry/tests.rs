//! The registry's client against a server on loopback that speaks the registry's interface.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use headwater_core::options::Options;
use serde_json::json;

use super::*;

/// A path, and the authorization that came with it.
type Asked = (String, Option<String>);

/// What the server answers to each path, and what it was asked.
#[derive(Debug, Clone, Default)]
struct Server {
    answers: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn answer(&self, path: &str, status: u16, body: Value) {
        self.answers.lock().unwrap().insert(path.into(), (status, body.to_string()));
    }

    /// Serves until the test ends; gives the address.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }
}

async fn serve(State(server): State<Server>, uri: Uri, headers: HeaderMap) -> (StatusCode, String) {
    let path = uri.path().to_owned();
    let user = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    server.asked.lock().unwrap().push((path.clone(), user));
    match server.answers.lock().unwrap().get(&path) {
        Some((status, body)) => (StatusCode::from_u16(*status).unwrap(), body.clone()),
        None => (StatusCode::NOT_FOUND, json!({"error_code": 404, "message": "HTTP 404 Not Found"}).to_string()),
    }
}

fn registry(url: &str, more: Value) -> ConfluentRegistry {
    let mut options = json!({"bootstrap_servers": "localhost:9092", "topic": "t", "schema_registry_url": url});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let options = options.as_object().unwrap().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let config = headwater_core::options::Config { name: "source `drivers`".into(), options, base_dir: ".".into() };
    ConfluentRegistry::open(&KafkaConfig::from_config(&config).unwrap()).unwrap().unwrap()
}

#[tokio::test]
async fn a_schema_comes_with_all_that_it_refers_to() {
    let server = Server::default();
    let refer =
        |name: &str, version: u64| json!({"name": name, "subject": format!("{name}-value"), "version": version});
    server.answer("/base/schemas/ids/7", 200, json!({"schema": "root", "references": [refer("b", 2), refer("c", 1)]}));
    server.answer("/base/subjects/b-value/versions/2", 200, json!({"schema": "B", "references": [refer("c", 1)]}));
    server.answer("/base/subjects/c-value/versions/1", 200, json!({"schema": "C", "schemaType": "AVRO"}));
    server.answer("/base/schemas/ids/8", 200, json!({"schema": "{}", "schemaType": "JSON", "references": null}));
    let url = server.start().await;
    for url in [format!("{url}/base"), format!("{url}/base/")] {
        let registry = registry(&url, json!({}));
        let found = registry.schema(7).await.unwrap().unwrap();
        assert_eq!((found.kind.as_str(), found.text.as_str()), ("avro", "root"));
        assert_eq!(found.references, [("c".to_owned(), "C".to_owned()), ("b".to_owned(), "B".to_owned())]);
        let found = registry.schema(8).await.unwrap().unwrap();
        assert_eq!((found.kind.as_str(), found.references.len()), ("json", 0));
    }
}

#[tokio::test]
async fn a_subject_may_be_called_anything() {
    let server = Server::default();
    let reference = json!({"name": "x", "subject": "a/b c", "version": 1});
    server.answer("/schemas/ids/1", 200, json!({"schema": "s", "references": [reference]}));
    server.answer("/subjects/a%2Fb%20c/versions/1", 200, json!({"schema": "X"}));
    let found = registry(&server.start().await, json!({})).schema(1).await.unwrap().unwrap();
    assert_eq!(found.references, [("x".to_owned(), "X".to_owned())]);
}

#[tokio::test]
async fn schemas_that_refer_to_each_other_come_to_an_end() {
    let server = Server::default();
    let refer = |name: &str| json!([{"name": name, "subject": name, "version": 1}]);
    server.answer("/schemas/ids/1", 200, json!({"schema": "s", "references": refer("a")}));
    server.answer("/subjects/a/versions/1", 200, json!({"schema": "A", "references": refer("b")}));
    server.answer("/subjects/b/versions/1", 200, json!({"schema": "B", "references": refer("a")}));
    let found = registry(&server.start().await, json!({})).schema(1).await.unwrap().unwrap();
    assert_eq!(found.references.len(), 2);
}

#[tokio::test]
async fn what_a_registry_does_not_hold_is_told_from_what_is_no_registry() {
    let server = Server::default();
    server.answer("/schemas/ids/1", 404, json!({"error_code": 40403, "message": "Schema 1 not found"}));
    let registry = registry(&server.start().await, json!({}));
    assert_eq!(registry.schema(1).await.unwrap(), None);
    let error = registry.schema(2).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::NotFound, false));
}

#[tokio::test]
async fn errors_say_whether_asking_again_helps() {
    let server = Server::default();
    let cases = [
        (401, ErrorKind::PermissionDenied, false),
        (403, ErrorKind::PermissionDenied, false),
        (429, ErrorKind::Throttled, true),
        (500, ErrorKind::Unavailable, true),
        (503, ErrorKind::Unavailable, true),
        (418, ErrorKind::Unexpected, false),
        (200, ErrorKind::Unexpected, false),
    ];
    for (status, ..) in cases {
        server.answer(&format!("/schemas/ids/{status}"), status, json!({"error_code": 50001}));
    }
    let registry_ = registry(&server.start().await, json!({}));
    for (status, kind, retry) in cases {
        let error = registry_.schema(u32::from(status)).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, retry), "{status}: {error}");
    }
    // A port that nobody listens on any more.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = registry(&format!("http://{port}"), json!({})).schema(1).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
}

#[tokio::test]
async fn the_password_is_sent_and_never_shown() {
    let server = Server::default();
    server.answer("/schemas/ids/1", 401, json!({"error_code": 40101}));
    let user = json!({"schema_registry_username": "me", "schema_registry_password": "hunter2"});
    let registry = registry(&server.start().await, user);
    let error = registry.schema(1).await.unwrap_err();
    // The two words as HTTP sends them: base64 of `me:hunter2`.
    let sent = server.asked.lock().unwrap().last().cloned().unwrap().1;
    assert_eq!(sent.as_deref(), Some("Basic bWU6aHVudGVyMg=="));
    let shown = format!("{registry:?} {error} {error:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("bWU6"), "{shown}");
}
