//! Rows that run together: their tokens that have a target, one row after the other.

use std::ops::Range;

use skipc_ir::interp::FlatBatch;

/// Some rows of a batch. Sequences are the rows' indices in the whole batch; what has no target is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// The inputs.
    pub inputs: FlatBatch,
    /// The token behind each input.
    pub targets: Vec<i64>,
    /// Where each row begins and ends among the inputs.
    pub rows: Vec<Range<usize>>,
}

impl Part {
    /// Of rows with their indices in the whole batch.
    pub fn of<'a>(rows: impl Iterator<Item = (usize, &'a [u32])>) -> Part {
        let mut part = Part::default();
        for (row, tokens) in rows {
            let begin = part.targets.len();
            for (position, pair) in tokens.windows(2).enumerate() {
                part.inputs.tokens.push(i64::from(pair[0]));
                part.inputs.positions.push(position as i64);
                part.inputs.sequences.push(row as i64);
                part.targets.push(i64::from(pair[1]));
            }
            part.rows.push(begin..part.targets.len());
        }
        part
    }

    /// How many inputs have a target.
    pub fn n_live(&self) -> usize {
        self.targets.len()
    }

    /// Some rows in parts of so many. With each, where its inputs lie in the whole.
    pub fn split(&self, of: Range<usize>, at_once: usize) -> Vec<(Range<usize>, Part)> {
        let part = |rows: &[Range<usize>]| {
            let (begin, end) =
                (rows.first().map_or(0, |row| row.start), rows.last().map_or(0, |row| row.end));
            let cut = |values: &[i64]| values[begin..end].to_vec();
            let part = Part {
                inputs: FlatBatch {
                    tokens: cut(&self.inputs.tokens),
                    positions: cut(&self.inputs.positions),
                    sequences: cut(&self.inputs.sequences),
                    rows: Vec::new(),
                },
                targets: cut(&self.targets),
                rows: rows.iter().map(|row| row.start - begin..row.end - begin).collect(),
            };
            (begin..end, part)
        };
        self.rows[of].chunks(at_once.max(1)).map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_place_in_parts() {
        let rows: [&[u32]; 4] = [&[1, 2, 3], &[4], &[], &[5, 6]];
        let whole = Part::of(rows.into_iter().enumerate());
        assert_eq!(
            (whole.inputs.tokens.as_slice(), whole.targets.as_slice()),
            (&[1, 2, 5][..], &[2, 3, 6][..])
        );
        assert_eq!(whole.inputs.sequences, [0, 0, 3]);
        let parts = whole.split(0..4, 3);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].1.targets, [2, 3]);
        assert_eq!((parts[1].0.clone(), parts[1].1.inputs.sequences.as_slice()), (2..3, &[3][..]));
        let behind = whole.split(2..4, 9);
        assert_eq!((behind.len(), behind[0].1.rows.as_slice()), (1, &[0..0, 0..1][..]));
    }
}
