//! How inputs are made of others.

use skipc_testkit::random::Rng;
use skipc_testkit::{mutate, tamper};

/// Another input of one, with a second one to take parts of.
pub(crate) type Mutation = fn(&mut Rng, &[u8], &[u8]) -> Vec<u8>;

/// For formats of bytes.
pub(crate) const OF_BYTES: &[Mutation] = &[bits, numbers, cut, twice, splice];

/// For texts.
pub(crate) const OF_TEXT: &[Mutation] = &[words, words, lines, characters, bits, cut, twice, splice];

/// For JSON.
pub(crate) const OF_JSON: &[Mutation] = &[json, json, json, words, characters, bits, splice];

/// For artefacts: of their parts, with hashes that fit, and of the bytes.
pub(crate) const OF_ARTEFACT: &[Mutation] =
    &[sections, sections, sections, sections, sections, bits, numbers, cut, splice];

/// For what begins with a length and JSON, as safetensors do: of the JSON, with a length that fits, and of the bytes.
pub(crate) const OF_TENSORS: &[Mutation] = &[header, header, header, bits, numbers, cut, splice];

fn bits(rng: &mut Rng, input: &[u8], _: &[u8]) -> Vec<u8> {
    let mut input = input.to_vec();
    if !input.is_empty() {
        let at = rng.below(input.len());
        input[at] ^= 1 << rng.below(8);
    }
    input
}

/// A number of some width, little or big endian, that is one of those at which sizes overflow.
fn numbers(rng: &mut Rng, input: &[u8], _: &[u8]) -> Vec<u8> {
    const NUMBERS: [u64; 12] =
        [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 40, u64::MAX];
    let mut input = input.to_vec();
    let width = [1, 2, 4, 8][rng.below(4)];
    if input.len() >= width {
        let at = rng.below(input.len() - width + 1);
        let number = NUMBERS[rng.below(NUMBERS.len())];
        let bytes = if rng.one_in(4) { number.to_be_bytes() } else { number.to_le_bytes() };
        let from = if rng.one_in(2) { 0 } else { 8 - width };
        input[at..at + width].copy_from_slice(&bytes[from..from + width]);
    }
    input
}

/// A stretch of it, mostly short.
fn stretch(rng: &mut Rng, input: &[u8]) -> std::ops::Range<usize> {
    let at = rng.below(input.len() + 1);
    let most = if rng.one_in(4) { input.len() } else { 16 };
    at..(at + rng.below(most + 1)).min(input.len())
}

fn cut(rng: &mut Rng, input: &[u8], _: &[u8]) -> Vec<u8> {
    let out = stretch(rng, input);
    [&input[..out.start], &input[out.end..]].concat()
}

fn twice(rng: &mut Rng, input: &[u8], _: &[u8]) -> Vec<u8> {
    let again = stretch(rng, input);
    let times = if rng.one_in(8) { 300 } else { 2 };
    [&input[..again.start], &input[again.clone()].repeat(times), &input[again.end..]].concat()
}

fn splice(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let (out, taken) = (stretch(rng, input), stretch(rng, other));
    [&input[..out.start], &other[taken], &input[out.end..]].concat()
}

fn words(rng: &mut Rng, input: &[u8], _: &[u8]) -> Vec<u8> {
    mutate::words(rng, &String::from_utf8_lossy(input)).into_bytes()
}

/// A line of another text in place of one, or beside it.
fn lines(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    let others: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.is_empty() || others.is_empty() {
        return input.to_vec();
    }
    let (at, line) = (rng.below(lines.len()), others[rng.below(others.len())]);
    match rng.below(4) {
        0 => drop(lines.remove(at)),
        1 => lines[at] = line,
        2 => lines.insert(at, line),
        _ => {
            let to = rng.below(lines.len());
            lines.swap(at, to);
        }
    }
    lines.concat()
}

/// A character with a meaning, or one that no text should have, somewhere.
fn characters(rng: &mut Rng, input: &[u8], _: &[u8]) -> Vec<u8> {
    const CHARACTERS: [&str; 24] = [
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "=",
        ",",
        ".",
        "-",
        "%",
        "\\",
        "\n",
        "\0",
        "#",
        "1e999",
        "nan",
        "\u{1b}",
        "é",
        "\u{2028}",
        "𝄞",
        "9223372036854775808",
    ];
    let at = rng.below(input.len() + 1);
    let what = CHARACTERS[rng.below(CHARACTERS.len())].repeat(if rng.one_in(16) { 2000 } else { 1 });
    [&input[..at], what.as_bytes(), &input[at..]].concat()
}

fn json(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(input)
        .ok()
        .filter(|text| serde_json::from_str::<serde_json::Value>(text).is_ok())
    {
        Some(text) => mutate::json(rng, text).into_bytes(),
        None => splice(rng, input, other),
    }
}

fn sections(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let Ok(artefact) = skipc_artifact::reader::Artifact::parse(input) else {
        return splice(rng, input, other);
    };
    let sections = artefact.sections();
    if sections.is_empty() {
        return bits(rng, input, other);
    }
    let section = &sections[rng.below(sections.len())];
    let Ok(bytes) = artefact.section(&section.name, section.kind) else { return bits(rng, input, other) };
    let changed = match std::str::from_utf8(bytes) {
        Ok(_) if section.name.ends_with(".json") => json(rng, bytes, other),
        Ok(_) if !bytes.is_empty() => words(rng, bytes, other),
        _ => OF_BYTES[rng.below(OF_BYTES.len())](rng, bytes, other),
    };
    match changed == bytes {
        true => input.to_vec(),
        false => tamper::with_sections(input, |name, _| (name == section.name).then(|| changed.clone())),
    }
}

fn header(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let length = input.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) as usize;
    let Some(text) = input.get(8..).and_then(|rest| rest.get(..length)) else {
        return splice(rng, input, other);
    };
    let changed = json(rng, text, other);
    [&(changed.len() as u64).to_le_bytes(), changed.as_slice(), &input[8 + length..]].concat()
}
