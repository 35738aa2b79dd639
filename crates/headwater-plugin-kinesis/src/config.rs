//! The options of `type: kinesis`.

use headwater_core::options::{OptionType, OptionValue};
use headwater_core::stream::OnPositionLost;
use headwater_core::{Error, Result};
use serde_json::Value;

headwater_core::options! {
    /// Options of `type: kinesis`.
    pub struct KinesisConfig {
        /// The stream's name. One of `stream_name` and `stream_arn` is required.
        stream_name: Option<String> = None,
        /// The stream's ARN, which also reaches streams of other accounts.
        stream_arn: Option<String> = None,
        /// The AWS region. By default that of the ARN, else the environment's.
        region: Option<String> = None,
        /// Another endpoint than AWS', for tests and private links.
        endpoint_url: Option<String> = None,
        /// The ARN of a role to assume.
        role_arn: Option<String> = None,
        /// How records are fetched: `polling`, or `fan_out` for enhanced fan-out, which is billed apart.
        consumer: Consumer = Consumer::Polling,
        /// What to do when retention has removed the position to resume from: `fail`, or go on at the `earliest`.
        on_position_lost: OnPositionLost = OnPositionLost::Fail,
    }
}

/// How records are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumer {
    /// By asking each shard, five times a second at most.
    Polling,
    /// By a subscription to each shard.
    FanOut,
}

impl OptionValue for Consumer {
    const KIND: OptionType = OptionType::OneOf(&["polling", "fan_out"]);

    fn read(value: &Value) -> Result<Self, String> {
        Self::KIND.check(value)?;
        Ok(if value.as_str() == Some("fan_out") { Self::FanOut } else { Self::Polling })
    }
}

impl KinesisConfig {
    /// The stream's name, by itself or out of the ARN.
    #[cfg(feature = "client")]
    pub(crate) fn name(&self) -> &str {
        let of_arn = || self.stream_arn.as_deref().and_then(stream_of_arn).map(|(_, name)| name);
        self.stream_name.as_deref().or_else(of_arn).unwrap_or_default()
    }

    /// Checks what the types of the options do not say. `name` is what is configured, for messages.
    ///
    /// # Errors
    /// `Invalid`, with every fault.
    pub fn validate(&self, name: &str) -> Result<()> {
        let mut faults = Vec::new();
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match (&self.stream_name, &self.stream_arn) {
            (None, None) => faults.push("option `stream_name` or `stream_arn` is missing: which stream to read".into()),
            (Some(stream), _) if stream.is_empty() || stream.len() > 128 || !stream.chars().all(letters) => {
                faults.push(format!(
                    "option `stream_name`: `{stream}` is no stream: 1 to 128 letters, digits, `.`, `_` and `-`"
                ));
            }
            _ => {}
        }
        if let Some(arn) = &self.stream_arn {
            match stream_of_arn(arn) {
                None => faults
                    .push(format!("option `stream_arn`: `{arn}` is not `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`")),
                Some((region, stream)) => {
                    if self.stream_name.as_deref().is_some_and(|name| name != stream) {
                        faults
                            .push(format!("`stream_name` and `stream_arn` name different streams; the ARN `{stream}`"));
                    }
                    if self.region.as_deref().is_some_and(|given| given != region) {
                        faults.push(format!("`region` and `stream_arn` name different regions; the ARN `{region}`"));
                    }
                }
            }
        }
        if let Some(url) = &self.endpoint_url
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            faults.push(format!("option `endpoint_url`: `{url}` begins neither with `http://` nor `https://`"));
        }
        if let Some(role) = &self.role_arn
            && !(role.starts_with("arn:") && role.contains(":role/"))
        {
            faults.push(format!("option `role_arn`: `{role}` is not `arn:aws:iam::ACCOUNT:role/NAME`"));
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::invalid(format!("{name}: {}", faults.join("; ")))) }
    }
}

/// The region and the name in a stream's ARN.
pub(crate) fn stream_of_arn(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let stream = resource.strip_prefix("stream/")?;
    let whole = arn == "arn" && partition.starts_with("aws") && service == "kinesis";
    (whole && !region.is_empty() && !account.is_empty() && !stream.is_empty()).then_some((region, stream))
}
