//! What stands between a reader and the server, and sees what goes over the wire.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use ferrokinesis::shard_iterator::decode_shard_iterator;
use futures::future::BoxFuture;
use serde_json::Value;

/// Larger than any body.
const MOST: usize = 64 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");

/// A request.
pub(crate) struct Call {
    /// What is to be done.
    pub(crate) operation: String,
    pub(crate) body: Value,
    parts: Parts,
}

impl Call {
    async fn of(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = to_bytes(body, MOST).await.expect("the request comes whole");
        Self { operation, body: serde_json::from_slice(&body).unwrap_or_default(), parts }
    }

    /// Text in the body.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.body[name].as_str()
    }

    /// The stream and the shard that records are fetched from.
    pub(crate) fn shard(&self) -> Option<(String, String)> {
        if let Some(iterator) = self.text("ShardIterator") {
            return decode_shard_iterator(iterator).ok().map(|(_, stream, shard, _)| (stream, shard));
        }
        let of_arn = || self.text("ConsumerARN").and_then(|arn| arn.split('/').nth(1));
        let stream = self.text("StreamName").or_else(of_arn)?;
        Some((stream.to_owned(), self.text("ShardId")?.to_owned()))
    }

    /// Lets the server answer.
    pub(crate) async fn pass(self, next: Next) -> Response {
        let body = self.body.to_string();
        let mut parts = self.parts;
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
        next.run(Request::from_parts(parts, Body::from(body))).await
    }
}

/// Puts something before the server, which answers calls itself or lets the server do so.
pub(crate) fn before(
    app: Router,
    answer: impl Fn(Call, Next) -> BoxFuture<'static, Response> + Send + Sync + 'static,
) -> Router {
    let answer = Arc::new(answer);
    app.layer(from_fn(move |request: Request, next: Next| {
        let answer = Arc::clone(&answer);
        async move { answer(Call::of(request).await, next).await }
    }))
}

/// An error as the service sends it.
pub(crate) fn refuse(status: StatusCode, code: &str) -> Response {
    let body = format!(r#"{{"__type":"{code}","message":"injected"}}"#);
    (status, [(CONTENT_TYPE, JSON)], body).into_response()
}

/// An answer.
pub(crate) fn answer(body: &Value) -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// What the server answered, where that is not an error.
pub(crate) async fn body_of(response: Response) -> Result<Value, Response> {
    if !response.status().is_success() {
        return Err(response);
    }
    let body = to_bytes(response.into_body(), MOST).await.expect("the answer comes whole");
    Ok(serde_json::from_slice(&body).expect("the answer is JSON"))
}
