//! How two trees of values differ, leaf by leaf.

use serde::Serialize;
use serde_json::Value;

/// A leaf that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Where it stands, such as `block.sparse.skip.density` or `layers[1].d_ff`.
    pub what: String,
    /// Its value before; none if there was no such leaf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Its value after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// All leaves that differ, in the order of the first tree, then what only the second has.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    walk("", Some(before), Some(after), &mut found);
    found
}

fn walk(at: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    match (before, after) {
        (Some(before), Some(after)) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let new = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(new) {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                walk(&at, before.get(key), after.get(key), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for idx in 0..before.len().max(after.len()) {
                walk(&format!("{at}[{idx}]"), before.get(idx), after.get(idx), found);
            }
        }
        _ => found.push(Change { what: at.to_owned(), before: before.cloned(), after: after.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leaves_are_named_by_their_path() {
        let before = json!({"a": {"b": [1, 2], "c": true}, "d": "x"});
        let after = json!({"a": {"b": [1, 3, 4]}, "d": "x", "e": 5});
        let found: Vec<String> = changes(&before, &after)
            .into_iter()
            .map(|change| {
                format!("{} {:?} {:?}", change.what, change.before.is_some(), change.after.is_some())
            })
            .collect();
        assert_eq!(found, ["a.b[1] true true", "a.b[2] false true", "a.c true false", "e false true"]);
        assert_eq!(changes(&before, &before), []);
    }
}
