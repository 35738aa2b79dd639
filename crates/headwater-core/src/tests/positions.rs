//! Splits, positions and row versions: order, round trips, any bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Origin, Position, RowVersion, SplitId};

/// Bytes that try an encoding's separators: zeros, 0xff, `%`, dots.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(1), Just(0xff), Just(b'%'), Just(b'.'), Just(b'a'), any::<u8>()], 0..6)
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![Just(i64::MIN), Just(-1), Just(0), Just(1), Just(i64::MAX), -3_i64..3, any::<i64>()]
}

fn version() -> impl Strategy<Value = RowVersion> {
    let origin = prop_oneof![Just(Origin::Batch), Just(Origin::Stream), Just(Origin::Push)];
    let ordinal = prop_oneof![0_u32..3, any::<u32>()];
    (time(), proptest::option::of(time()), origin, bytes(), bytes(), ordinal).prop_map(
        |(event_time, created, origin, split, position, ordinal)| RowVersion {
            event_time,
            created,
            origin,
            split: SplitId::new(split),
            position: Position::new(position),
            ordinal,
        },
    )
}

proptest! {
    #[test]
    fn byte_order_is_the_order_of_versions(one in version(), two in version(), alike in any::<u8>()) {
        // Fields in common, so that later ones decide.
        let mut two = two;
        if alike & 1 > 0 { two.event_time = one.event_time; }
        if alike & 2 > 0 { two.created = one.created; }
        if alike & 4 > 0 { two.origin = one.origin; }
        if alike & 8 > 0 { two.split = one.split.clone(); }
        if alike & 16 > 0 { two.position = one.position.clone(); }
        prop_assert_eq!(one.encode().cmp(&two.encode()), one.cmp(&two));
    }

    #[test]
    fn versions_come_back(version in version()) {
        prop_assert_eq!(RowVersion::decode(&version.encode()).unwrap(), version);
    }

    #[test]
    fn decoding_a_version_never_panics(bytes in vec(any::<u8>(), 0..60)) {
        if let Ok(version) = RowVersion::decode(&bytes) {
            prop_assert_eq!(version.encode().to_vec(), bytes);
        }
    }

    #[test]
    fn a_cut_or_longer_version_is_corrupt(version in version(), cut in 1_usize..8) {
        let whole = version.encode();
        let short = whole.slice(..whole.len().saturating_sub(cut));
        prop_assert!(RowVersion::decode(&short).is_err());
        prop_assert!(RowVersion::decode(&[whole.as_ref(), &[7]].concat()).is_err());
    }

    #[test]
    fn positions_come_back_and_keep_their_order(one in bytes(), two in bytes()) {
        let (one, two) = (Position::new(one), Position::new(two));
        prop_assert_eq!(&one.to_string().parse::<Position>().unwrap(), &one);
        prop_assert_eq!(one.to_string().cmp(&two.to_string()), one.cmp(&two));
        prop_assert!(Position::START <= one);
    }

    #[test]
    fn numbers_keep_their_order(one in any::<u64>(), two in any::<u64>()) {
        prop_assert_eq!(Position::from_u64(one).cmp(&Position::from_u64(two)), one.cmp(&two));
        prop_assert_eq!(Position::from_u64(one).to_u64(), Some(one));
    }

    #[test]
    fn splits_come_back_and_are_path_segments(bytes in bytes()) {
        let split = SplitId::new(bytes);
        let text = split.to_string();
        prop_assert_eq!(text.parse::<SplitId>().unwrap(), split);
        prop_assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.%".contains(c)));
        prop_assert!(!text.starts_with('.'));
    }

    #[test]
    fn distinct_splits_have_distinct_texts(one in bytes(), two in bytes()) {
        let (one, two) = (SplitId::new(one), SplitId::new(two));
        prop_assert_eq!(one == two, one.to_string() == two.to_string());
    }

    #[test]
    fn parsing_any_text_never_panics(text in "\\PC{0,12}", hex in "[0-9a-fA-F%+ ]{0,8}") {
        for text in [text, hex] {
            let _ = text.parse::<Position>();
            let _ = text.parse::<SplitId>();
        }
    }
}

#[test]
fn an_absent_created_time_is_lowest() {
    let version = |created| RowVersion {
        event_time: 0,
        created,
        origin: Origin::Batch,
        split: SplitId::from("a"),
        position: Position::START,
        ordinal: 0,
    };
    assert!(version(None) < version(Some(i64::MIN)));
    assert!(version(None).encode() < version(Some(i64::MIN)).encode());
}

#[test]
fn texts_are_as_documented() {
    assert_eq!(SplitId::from("shard-0.a_b").to_string(), "shard-0.a_b");
    assert_eq!(SplitId::from("../a b/ä").to_string(), "%2E.%2Fa%20b%2F%C3%A4");
    assert_eq!(Position::from_u64(258).to_string(), "0000000000000102");
    assert_eq!(format!("{:?} {:?}", Position::from_u64(258), Position::new(vec![1])), "Position(258) Position(0x01)");
    assert_eq!(Position::START.to_u64(), Some(0));
    for wrong in ["0", "0g", "+1", "ää"] {
        assert!(wrong.parse::<Position>().is_err(), "`{wrong}`");
    }
    for wrong in ["%", "%1", "%zz", "%+1"] {
        assert!(wrong.parse::<SplitId>().is_err(), "`{wrong}`");
    }
}
