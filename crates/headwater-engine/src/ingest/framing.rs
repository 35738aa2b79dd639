//! The header that Confluent's serializers put before a value: a zero byte and the number of the writer's schema.

/// The number of the schema and what stands behind the header; `None` for a record that does not begin with one.
pub(super) fn open(record: &[u8]) -> Option<(u32, &[u8])> {
    let (header, body) = record.split_at_checked(5)?;
    let [0, id @ ..] = header else { return None };
    Some((u32::from_be_bytes(<[u8; 4]>::try_from(id).ok()?), body))
}
