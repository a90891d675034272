//! Texts that are nearly right, as somebody could write who wants to do harm.

use serde_json::{Value, json};

use crate::random::Rng;

/// The JSON with one place of it changed. The same generator makes the same changes.
///
/// # Panics
///
/// If it is no JSON.
pub fn json(rng: &mut Rng, text: &str) -> String {
    let mut whole: Value = serde_json::from_str(text).expect("JSON");
    let mut places = Vec::new();
    collect(&whole, String::new(), &mut places);
    // Tables are few and their numbers many: half of the changes are of what holds others.
    let (inner, leaves): (Vec<_>, Vec<_>) = places.into_iter().partition(|(_, is_leaf)| !is_leaf);
    let from = if leaves.is_empty() || rng.one_in(2) && !inner.is_empty() { inner } else { leaves };
    let (place, _) = &from[rng.below(from.len())];
    let other = from[rng.below(from.len())].0.clone();
    let other = whole.pointer(&other).cloned().unwrap_or_default();
    let at = whole.pointer_mut(place).expect("a place of it");
    change(rng, at, other);
    serde_json::to_string(&whole).expect("JSON")
}

/// Every place of a value, and whether nothing is in it.
fn collect(value: &Value, at: String, places: &mut Vec<(String, bool)>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(idx, item)| collect(item, format!("{at}/{idx}"), places))
        }
        Value::Object(items) => items.iter().for_each(|(key, item)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            collect(item, format!("{at}/{key}"), places);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    places.push((at, !value.is_array() && !value.is_object()));
}

/// Numbers at which sizes overflow, and those beside the right one.
fn number(rng: &mut Rng, right: &Value) -> Value {
    let near = right.as_u64().unwrap_or(1);
    let numbers = [
        json!(0),
        json!(1),
        json!(-1),
        json!(near.wrapping_add(1)),
        json!(near.wrapping_sub(1)),
        json!(near.wrapping_mul(2)),
        json!(near / 2),
        json!(65_536),
        json!(1u64 << 30),
        json!(1u64 << 31),
        json!(u32::MAX),
        json!(1u64 << 32),
        json!(1u64 << 40),
        json!(1u64 << 63),
        json!(u64::MAX),
        json!(1e300),
    ];
    numbers[rng.below(numbers.len())].clone()
}

fn change(rng: &mut Rng, at: &mut Value, other: Value) {
    if rng.one_in(8) {
        *at = other;
        return;
    }
    match at {
        Value::Number(_) => *at = number(rng, &at.clone()),
        Value::Bool(bit) => *bit = !*bit,
        Value::String(text) => match rng.below(4) {
            0 => text.clear(),
            1 => text.push('\u{1b}'),
            2 => *text = text.repeat(2000),
            _ => *text = other.to_string(),
        },
        Value::Array(items) => match rng.below(5) {
            0 => items.clear(),
            1 => drop(items.pop()),
            2 => items.extend(items.clone()),
            3 => items.reverse(),
            _ => {
                if let Some(last) = items.last().cloned() {
                    items.resize(items.len() + 3000, last);
                }
            }
        },
        Value::Object(items) => match (rng.below(2), items.keys().next().cloned()) {
            (0, Some(first)) => drop(items.remove(&first)),
            (_, Some(first)) => {
                let value = items[&first].clone();
                items.insert("another".to_owned(), value);
            }
            (_, None) => *at = other,
        },
        Value::Null => *at = other,
    }
}

/// The text with one word of it changed: left out, twice, another word of it, or a number that is too large.
pub fn words(rng: &mut Rng, text: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '%' | '_' | '.' | '-');
    let starts: Vec<usize> = text
        .char_indices()
        .filter(|(at, c)| is_part(*c) && !text[..*at].ends_with(is_part))
        .map(|(at, _)| at)
        .collect();
    if starts.is_empty() {
        return text.to_owned();
    }
    let word = |start: usize| {
        let end = text[start..].find(|c| !is_part(c)).map_or(text.len(), |length| start + length);
        &text[start..end]
    };
    let at = starts[rng.below(starts.len())];
    let (old, other) = (word(at), word(starts[rng.below(starts.len())]));
    let new = match rng.below(6) {
        0 => String::new(),
        1 => format!("{old} {old}"),
        2 => "4294967295".to_owned(),
        3 => "18446744073709551616".to_owned(),
        4 => "-1".to_owned(),
        _ => other.to_owned(),
    };
    [&text[..at], &new, &text[at + old.len()..]].concat()
}
