//! Wrong steps: caches, pages and positions that are not those of the tokens.

use skipc::verify::steps::Piece;
use skipc_ir::interp::FlatBatch;
use skipc_ir::{Graph, Op, Role};

use super::{Does, Fault, input, rewrite};

/// Faults of steps.
pub(super) fn faults() -> Vec<Fault> {
    let of = |name, does| Fault::new(name, 0, does);
    vec![
        of("steps: keys of the step itself unseen", Does::Lowered(stale_keys)),
        of("steps: random decisions by the step's own numbers", Does::Lowered(renumbered_requests)),
        of("steps: capacity begins anew", Does::Lowered(forgotten_capacity)),
        of("steps: positions begin anew", Does::Pieces(restarted_positions)),
        of("steps: one token too many is in the cache", Does::Pieces(shifted_places)),
        of("steps: the table names a stale page", Does::Pieces(stale_page)),
        of("steps: two sequences write into a page", Does::Pieces(shared_page)),
        of("steps: what waits is taken as computed", Does::Decided(forgotten_rows)),
    ]
}

/// Attention over the caches as the step found them.
fn stale_keys(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::CachedAttention { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        for operand in &mut operands[1..3] {
            if let Op::StoreRows {} = graph.op(*operand) {
                *operand = graph.operands(*operand)[0];
            }
        }
        graph.add(op, &operands, &origin).ok()
    });
}

/// Draws for the sequence's number in the step, not for that of its request.
fn renumbered_requests(graph: &mut Graph) {
    let (Some(requests), Some(sequences)) = (input(graph, &Role::Requests), input(graph, &Role::Sequences))
    else {
        return;
    };
    rewrite(graph, &|graph, value| {
        let Op::RouteRandom { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        let place = operands.iter().position(|operand| *operand == requests)?;
        operands[place] = sequences;
        graph.add(op, &operands, &origin).ok()
    });
}

/// A group that goes on in a step has all its slots again.
fn forgotten_capacity(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::LimitFirstAfter { set, group_size, slots } = *graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        graph.add(Op::LimitFirst { set, group_size, slots }, &operands[..3], &origin).ok()
    });
}

fn forgotten_rows(gates: &mut [Vec<bool>]) {
    gates.iter_mut().for_each(|mask| mask.fill(true));
}

fn restarted_positions(pieces: &mut [Piece]) {
    for FlatBatch { positions, sequences, .. } in pieces.iter_mut().map(|piece| &mut piece.batch) {
        let mut first: Option<(i64, i64)> = None;
        for (position, sequence) in positions.iter_mut().zip(sequences.iter()) {
            let begin = match first {
                Some((of, begin)) if of == *sequence => begin,
                _ => *position,
            };
            first = Some((*sequence, begin));
            *position -= begin;
        }
    }
}

/// Tokens after the first step lie one place further on.
fn shifted_places(pieces: &mut [Piece]) {
    for Piece { batch, cached, .. } in pieces {
        for (place, position) in cached.places.iter_mut().zip(&batch.positions) {
            *place += u32::from(*position > 0);
        }
    }
}

/// The first page of each sequence is one that nobody wrote, once it has been written.
fn stale_page(pieces: &mut [Piece]) {
    let n_used = pieces.iter().flat_map(|piece| &piece.cached.places).max().map_or(0, |last| last / 16 + 1);
    for Piece { batch, cached, .. } in pieces {
        let n_sequences = batch.sequences.iter().max().map_or(0, |last| last + 1) as usize;
        let n_pages = cached.pages.len() / n_sequences.max(1);
        for (idx, sequence) in batch.sequences.iter().enumerate() {
            if batch.positions[idx] > 0 {
                cached.pages[*sequence as usize * n_pages] = n_used;
            }
        }
    }
}

/// All sequences have the pages of the first.
fn shared_page(pieces: &mut [Piece]) {
    let Some(first) = pieces.first().and_then(|piece| piece.cached.pages.first().copied()) else { return };
    for Piece { cached, .. } in pieces {
        cached.places.iter_mut().for_each(|place| *place = first * 16 + *place % 16);
        cached.pages.iter_mut().filter(|page| **page != u32::MAX).for_each(|page| *page = first);
    }
}
