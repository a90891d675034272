//! What a call is given, by the buffers of its function.

use std::collections::BTreeMap;

use skipc_artifact::interface::{Direction, Interface, Role};
use skipc_artifact::pending;
use skipc_artifact::program::{Bounds, Function};

use crate::call::Input;
use crate::error::Error;

pub(crate) fn check_count(function: &Function, n_tokens: u32) -> Result<(), Error> {
    if n_tokens > function.max_tokens {
        return Err(Error::TooManyTokens { found: n_tokens.into(), limit: function.max_tokens });
    }
    Ok(())
}

pub(crate) fn no_port(role: &Role, what: &'static str) -> Error {
    Error::Port { role: role.to_string(), reason: format!("the function has no such {what}") }
}

/// The most rows of a cache that a call may compute, if some wait.
pub(crate) fn n_pending(function: &Function, inputs: &[(Role, Vec<u8>)]) -> u32 {
    let words = |role: Role| {
        let found = inputs.iter().find(|(given, _)| *given == role).map(|(_, bytes)| bytes.as_chunks().0);
        found.unwrap_or_default().iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<u32>>()
    };
    let table = function.interface.buffer(&Role::Pending).and_then(|idx| function.buffers.get(idx as usize));
    let Some(table) = table else { return 0 };
    let [pending, positions, sequences] = [Role::Pending, Role::Positions, Role::Sequences].map(words);
    pending::most_rows(&pending, table.cols.saturating_sub(1) as usize, &positions, &sequences)
}

/// What a call is given.
pub(crate) struct BoundInputs {
    /// The inputs by buffer, with those that only the runtime knows.
    pub(crate) inputs: Vec<Input>,
    /// How many rows the logits have.
    pub(crate) n_logits: u32,
}

/// The rows of each set that the caller gives, by the buffer that counts them; all lists of rows are checked.
fn given_sets(
    function: &Function,
    n_tokens: u32,
    inputs: &[(Role, Vec<u8>)],
) -> Result<BTreeMap<u32, Vec<u32>>, Error> {
    let mut sets = BTreeMap::new();
    for (role, bytes) in inputs {
        let count = function.interface.given_set(role);
        if count.is_none() && *role != Role::LogitRows {
            continue;
        }
        let (words, rest) = bytes.as_chunks();
        let rows: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let ascends = rows.windows(2).all(|pair| pair[0] < pair[1]);
        if !rest.is_empty() || !ascends || rows.last().is_some_and(|last| *last >= n_tokens) {
            let reason = format!(
                "a set is the rows that it has, 32-bit integers in ascending order, each once and below the {n_tokens} tokens"
            );
            return Err(Error::Port { role: role.to_string(), reason });
        }
        sets.extend(count.map(|count| (count, rows)));
    }
    Ok(sets)
}

/// Binds what the caller gives, and adds what only the runtime knows.
///
/// # Errors
/// An input that is missing, has no port or another size, or a set that is none.
pub(crate) fn bind_inputs(
    function: &Function,
    bounds: Bounds,
    inputs: &[(Role, Vec<u8>)],
) -> Result<BoundInputs, Error> {
    let n_tokens = bounds.tokens;
    check_count(function, n_tokens)?;
    let sets = given_sets(function, n_tokens, inputs)?;
    let mut n_logits = n_tokens;
    let interface = &function.interface;
    let mut bound = Vec::new();
    for (role, bytes) in inputs {
        let is_given = match role {
            Role::TokenCount
            | Role::UseForced
            | Role::UseForcedChoices
            | Role::LogitCount
            | Role::SetCount { .. }
            | Role::SetMask { .. } => false,
            _ => matches!(role.direction(), Direction::In | Direction::Kept),
        };
        let buffer = interface.buffer(role).filter(|_| is_given).ok_or_else(|| no_port(role, "input"))?;
        let n_rows = match interface.count(role) {
            Some(count) => sets.get(&count).ok_or_else(|| missing_set(interface, role, count))?.len() as u32,
            None => n_tokens,
        };
        let (row, expected) = function.buffers.get(buffer as usize).map_or((1, 0), |buffer| {
            let bytes = |tokens: u32| buffer.bytes(Bounds { tokens, ..bounds });
            (bytes(1).max(1), bytes(n_rows))
        });
        // These have a row for each sequence or wanted row, not for each token.
        let may_be_less = matches!(role, Role::Pages | Role::Pending | Role::LogitRows);
        let n_bytes = bytes.len() as u64;
        if n_bytes > expected || !n_bytes.is_multiple_of(row) || (n_bytes < expected && !may_be_less) {
            let of = if interface.count(role).is_some() { "rows of its set" } else { "tokens" };
            let reason = format!("it has {n_bytes} bytes, expected {expected} for {n_rows} {of}");
            return Err(Error::Port { role: role.to_string(), reason });
        }
        if *role == Role::LogitRows {
            n_logits = (n_bytes / row) as u32;
        }
        bound.push(Input { buffer, bytes: bytes.clone() });
    }
    let forces =
        inputs.iter().any(|(role, _)| matches!(role, Role::Forced { .. } | Role::ForcedWanted { .. }));
    let forces_choices = inputs.iter().any(|(role, _)| matches!(role, Role::ForcedChoices { .. }));
    for (role, buffer) in interface.buffers(Direction::In) {
        let word = |word: u32| word.to_le_bytes().to_vec();
        match role {
            Role::TokenCount => bound.push(Input { buffer, bytes: word(n_tokens) }),
            Role::LogitCount => bound.push(Input { buffer, bytes: word(n_logits) }),
            Role::SetCount { .. } | Role::SetMask { .. } => {
                bound.extend(of_set(interface, &sets, role, n_tokens).map(|bytes| Input { buffer, bytes }));
            }
            Role::UseForced => bound.push(Input { buffer, bytes: word(forces.into()) }),
            Role::UseForcedChoices => bound.push(Input { buffer, bytes: word(forces_choices.into()) }),
            Role::Forced { .. } | Role::ForcedWanted { .. } if !forces => {}
            Role::ForcedChoices { .. } if !forces_choices => {}
            // What the model means, unless a caller asks for something else.
            Role::Margins if !inputs.iter().any(|(role, _)| *role == Role::Margins) => {
                bound.push(Input { buffer, bytes: vec![0; 4 * n_tokens as usize] });
            }
            _ if bound.iter().any(|input| input.buffer == buffer) => {}
            _ => return Err(not_given(role)),
        }
    }
    Ok(BoundInputs { inputs: bound, n_logits })
}

fn not_given(role: &Role) -> Error {
    Error::Port { role: role.to_string(), reason: "it is not given".into() }
}

/// This input has the rows of a set that is not given.
fn missing_set(interface: &Interface, of: &Role, count: u32) -> Error {
    let set = interface.ports.iter().find(|port| interface.given_set(&port.role) == Some(count));
    not_given(set.map_or(of, |port| &port.role))
}

/// What the runtime knows of a set that the caller gives; nothing of one that is missing.
fn of_set(
    interface: &Interface,
    sets: &BTreeMap<u32, Vec<u32>>,
    role: &Role,
    n_tokens: u32,
) -> Option<Vec<u8>> {
    let rows = |name: &String| sets.get(&interface.buffer(&Role::SetCount { name: name.clone() })?);
    match role {
        Role::SetCount { name } => Some((rows(name)?.len() as u32).to_le_bytes().to_vec()),
        Role::SetMask { name } => {
            let mut mask = vec![0; n_tokens as usize];
            rows(name)?.iter().for_each(|row| mask[*row as usize] = 1);
            Some(mask)
        }
        _ => None,
    }
}
