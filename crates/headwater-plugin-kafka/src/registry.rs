//! The schema registry, over HTTP, with the interface of Confluent's.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use headwater_core::stream::{RegisteredSchema, SchemaRegistry};
use headwater_core::{Error, ErrorKind, Result, Secret};
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;

use crate::config::KafkaConfig;

/// How long an answer may take before the question is asked again.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes in an answer.
const LONGEST_ANSWER: usize = 16 << 20;
/// The most schemas that one schema may refer to, through others too.
const MOST_REFERENCES: usize = 100;

/// What a registry says, in its error's code, of things that it does not hold: subject, version, schema.
const UNKNOWN: [u64; 3] = [40_401, 40_402, 40_403];

/// A Confluent schema registry.
pub(crate) struct ConfluentRegistry {
    client: Client,
    url: Url,
    user: Option<(String, Secret)>,
}

impl fmt::Debug for ConfluentRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfluentRegistry").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Another schema that one refers to.
struct Reference {
    name: String,
    subject: String,
    version: u64,
}

/// A schema as the registry words it.
struct Answer {
    kind: String,
    text: String,
    references: Vec<Reference>,
}

/// A schema and what it names, on their way to their order.
enum Step {
    Ask(Reference),
    Keep(String, String),
}

impl ConfluentRegistry {
    /// The registry that the options name, if they name one. Connects to nothing yet.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none.
    pub(crate) fn open(config: &KafkaConfig) -> Result<Option<Self>> {
        let Some(text) = &config.schema_registry_url else { return Ok(None) };
        let url = Url::parse(text).map_err(|error| {
            Error::invalid("option `schema_registry_url` is no URL").with_plugin("kafka").with_source(error)
        })?;
        let client = Client::builder()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| Error::unexpected("cannot make an HTTP client").with_plugin("kafka").with_source(error))?;
        let user = config.schema_registry_username.clone().zip(config.schema_registry_password.clone());
        Ok(Some(Self { client, url, user }))
    }

    /// Asks for a schema. `None` where the registry says that it has none.
    async fn ask(&self, path: &[&str]) -> Result<Option<Answer>> {
        let fault = |kind, message: String| Error::new(kind, message).with_plugin("kafka").with_operation("schema");
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| fault(ErrorKind::Invalid, "option `schema_registry_url` is no HTTP URL".into()))?
            .pop_if_empty()
            .extend(path);
        let mut request = self.client.get(url);
        if let Some((user, password)) = &self.user {
            request = request.basic_auth(user, Some(password.expose()));
        }
        let away = |error: reqwest::Error| {
            fault(ErrorKind::Unavailable, "the schema registry does not answer".into()).with_source(error)
        };
        let mut response = request.header("accept", "application/json").send().await.map_err(away)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                return Err(fault(ErrorKind::Unexpected, "the schema registry's answer is too long".into()));
            }
            body.extend_from_slice(&chunk);
        }
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        let code = body.as_ref().and_then(|body| body.get("error_code")).and_then(Value::as_u64);
        if status.is_success() {
            let answer = body.as_ref().and_then(read);
            return answer
                .map(Some)
                .ok_or_else(|| fault(ErrorKind::Unexpected, "the schema registry's answer is no schema".into()));
        }
        if status == StatusCode::NOT_FOUND && code.is_some_and(|code| UNKNOWN.contains(&code)) {
            return Ok(None);
        }
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::PermissionDenied,
            // Whoever does not know the question is no registry.
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::TOO_MANY_REQUESTS => ErrorKind::Throttled,
            StatusCode::REQUEST_TIMEOUT => ErrorKind::Unavailable,
            status if status.is_server_error() => ErrorKind::Unavailable,
            _ => ErrorKind::Unexpected,
        };
        Err(fault(kind, format!("the schema registry answers with status `{}`", status.as_u16())))
    }

    /// What `references` refer to, each behind what it refers to itself.
    async fn resolve(&self, references: Vec<Reference>) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut steps: Vec<Step> = references.into_iter().rev().map(Step::Ask).collect();
        while let Some(step) = steps.pop() {
            let reference = match step {
                Step::Keep(name, text) => {
                    found.push((name, text));
                    continue;
                }
                Step::Ask(reference) => reference,
            };
            if !seen.insert(reference.name.clone()) {
                continue;
            }
            if seen.len() > MOST_REFERENCES {
                let message = format!("a schema refers to more than {MOST_REFERENCES} others");
                return Err(Error::unexpected(message).with_plugin("kafka"));
            }
            let version = reference.version.to_string();
            let Some(answer) = self.ask(&["subjects", &reference.subject, "versions", &version]).await? else {
                let message = format!(
                    "the schema registry does not know version `{version}` of `{}`, to which a schema refers",
                    reference.subject
                );
                return Err(Error::unexpected(message).with_plugin("kafka"));
            };
            steps.push(Step::Keep(reference.name, answer.text));
            steps.extend(answer.references.into_iter().rev().map(Step::Ask));
        }
        Ok(found)
    }
}

/// Reads `{"schema": …, "schemaType": …, "references": […]}`.
fn read(body: &Value) -> Option<Answer> {
    let text = body.get("schema")?.as_str()?.to_owned();
    // The oldest kind is the one that is not named.
    let kind = body.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO").to_ascii_lowercase();
    let reference = |value: &Value| {
        Some(Reference {
            name: value.get("name")?.as_str()?.to_owned(),
            subject: value.get("subject")?.as_str()?.to_owned(),
            version: value.get("version")?.as_u64()?,
        })
    };
    let references = match body.get("references") {
        None | Some(Value::Null) => Vec::new(),
        Some(references) => references.as_array()?.iter().map(reference).collect::<Option<_>>()?,
    };
    Some(Answer { kind, text, references })
}

#[async_trait]
impl SchemaRegistry for ConfluentRegistry {
    async fn schema(&self, id: u32) -> Result<Option<RegisteredSchema>> {
        let Some(answer) = self.ask(&["schemas", "ids", &id.to_string()]).await? else { return Ok(None) };
        let references = self.resolve(answer.references).await?;
        Ok(Some(RegisteredSchema { kind: answer.kind, text: answer.text, references }))
    }
}
