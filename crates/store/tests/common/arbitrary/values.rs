//! Arbitrary numbers, texts and facts.

use exitpath_recording::Bounds;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

/// Numbers with their extremes often enough to be met.
pub(super) fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..300_u64,
        Just(u64::MAX),
        Just(u64::MAX / 2),
        Just(u64::MAX / 2 + 1),
    ]
}

/// Any text: empty, of any script, with controls, quotes and line breaks.
pub(super) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        vec(any::<char>(), 0..12).prop_map(String::from_iter)
    ]
}

/// Any JSON.
pub(super) fn fact() -> impl Strategy<Value = Value> {
    let float = any::<f64>().prop_filter("JSON has no such number", |it| it.is_finite());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        extreme().prop_map(Value::from),
        float.prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((text(), inner), 0..3).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

pub(super) fn bounds() -> impl Strategy<Value = Bounds> {
    let bound = any::<f64>().prop_filter("JSON has no such number", |it| it.is_finite());
    [bound.clone(), bound].prop_map(|[min, max]| Bounds { min, max })
}
