//! Keys and values that wait: what a [`Role::Pending`](crate::interface::Role::Pending) table says, and how it goes on.
//!
//! Of each sequence and router the rows from a first position on wait. A step computes them if a token of the sequence
//! executes, or if more would wait than may; else they wait for a later step. What waits is known from decisions alone, so
//! the caller keeps it beside the sequence: sequences that share pages may each compute a row, and tokens that are taken
//! back take their rows along.

/// The rows that a step computes of the router that computes most: every sequence's from its first to its last position
/// here. `pending` has a row of `n_routers + 1` numbers for each sequence; the tokens of one follow each other.
#[must_use]
pub fn most_rows(pending: &[u32], n_routers: usize, positions: &[u32], sequences: &[u32]) -> u32 {
    let of_router = |router: usize| {
        let mut rows = 0u32;
        for (idx, (sequence, position)) in sequences.iter().zip(positions).enumerate() {
            let is_last = sequences.get(idx + 1) != Some(sequence);
            if let Some(first) = pending.get(*sequence as usize * (n_routers + 1) + router)
                && is_last
            {
                rows = rows.saturating_add((position + 1).saturating_sub(*first));
            }
        }
        rows
    };
    (0..n_routers).map(of_router).max().unwrap_or(0)
}

/// What waits of a sequence behind a step that brought it to `end` tokens: `first` has the first position that waits, by
/// router.
pub fn advance(first: &mut [u32], most: u32, end: u32, executes: impl Fn(usize) -> bool) {
    for (router, first) in first.iter_mut().enumerate() {
        if executes(router) || end.saturating_sub(*first) > most {
            *first = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_router_that_computes_most() {
        // Two sequences, two routers; the second sequence is at positions 4 and 5.
        let pending = [3, 0, 9, 4, 2, 9];
        assert_eq!(most_rows(&pending, 2, &[3, 4, 5], &[0, 1, 1]), 4 + 4);
        assert_eq!(most_rows(&pending, 2, &[3], &[0]), 4);
        assert_eq!(most_rows(&[], 0, &[3], &[0]), 0);
    }

    #[test]
    fn rows_wait_until_a_token_executes_or_too_many_do() {
        let mut first = [2, 2, 0];
        advance(&mut first, 4, 5, |router| router == 0);
        assert_eq!(first, [5, 2, 5]);
    }
}
