//! Which choices of experts tokens got, a mask for each layer.

use std::ops::Range;

use skipc_artifact::interface::{ChoicePort, Role};
use skipc_artifact::program::Function;

use crate::batch::Grid;
use crate::error::Error;
use crate::words::counted;

/// The choices of all tokens in one layer of experts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// How many there are to choose among.
    pub of: u32,
    /// `[n, of]` of 0 and 1, row by row: 1 where the token got the choice.
    pub taken: Vec<u8>,
}

impl Choices {
    /// Those of lists as a step gives them, `f32 [n, k]` in bytes; numbers that are none of so many are places without a
    /// choice.
    #[must_use]
    pub fn of_lists(of: u32, places: u32, lists: &[u8]) -> Self {
        let lists: Vec<f64> =
            lists.as_chunks().0.iter().map(|choice| f32::from_ne_bytes(*choice).into()).collect();
        Self::of_numbers(of, places, &lists)
    }

    /// As [`Choices::of_lists`], of numbers.
    #[must_use]
    pub fn of_numbers(of: u32, places: u32, lists: &[f64]) -> Self {
        let (places, cols) = (places.max(1) as usize, of as usize);
        let mut taken = vec![0; lists.len() / places * cols];
        for (at, choice) in lists.iter().enumerate() {
            if *choice >= 0.0 && *choice < f64::from(of) {
                taken[at / places * cols + *choice as usize] = 1;
            }
        }
        Self { of, taken }
    }

    /// As lists, `f32 [n, places]` in bytes, as a step takes them to replay: a choice has its own place where all have one, else
    /// choices ascend, with −1 behind.
    #[must_use]
    pub fn to_lists(&self, places: u32) -> Vec<u8> {
        self.to_numbers(places).iter().flat_map(|choice| (*choice as f32).to_ne_bytes()).collect()
    }

    /// As [`Choices::to_lists`], as numbers.
    #[must_use]
    pub fn to_numbers(&self, places: u32) -> Vec<f64> {
        let mut lists = Vec::new();
        for row in self.taken.chunks_exact(self.of.max(1) as usize) {
            let choices = (0..self.of).zip(row);
            if places == self.of {
                lists.extend(choices.map(|(choice, taken)| if *taken == 0 { -1.0 } else { choice.into() }));
                continue;
            }
            let taken = choices.filter(|(_, taken)| **taken != 0).map(|(choice, _)| f64::from(choice));
            lists.extend(taken.chain(std::iter::repeat(-1.0)).take(places as usize));
        }
        lists
    }

    /// The choices of each token.
    pub(crate) fn by_token(&self) -> impl Iterator<Item = &[u8]> {
        self.taken.chunks_exact(self.of.max(1) as usize)
    }

    /// How many tokens it is about.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.taken.len() / self.of.max(1) as usize
    }

    /// How many tokens each choice has.
    #[must_use]
    pub fn loads(&self) -> Vec<u64> {
        let mut loads = vec![0; self.of as usize];
        for row in self.taken.chunks_exact(self.of.max(1) as usize) {
            loads.iter_mut().zip(row).for_each(|(load, taken)| *load += u64::from(*taken));
        }
        loads
    }

    /// Those of some tokens.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>) -> Choices {
        let cols = self.of as usize;
        Self { of: self.of, taken: self.taken[rows.start * cols..rows.end * cols].to_vec() }
    }

    /// Adds those of further tokens of the same layer.
    pub fn extend(&mut self, further: &Choices) {
        self.of = further.of;
        self.taken.extend_from_slice(&further.taken);
    }
}

/// The load of a layer in words: a bar for each choice, by the choice with the most tokens, and how far that one is above the mean.
#[must_use]
pub fn balance(loads: &[u64]) -> String {
    /// Bars, at most: of more choices neighbours share one.
    const BARS: usize = 64;
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let sums: Vec<u64> =
        loads.chunks(loads.len().div_ceil(BARS).max(1)).map(|part| part.iter().sum()).collect();
    let highest = sums.iter().copied().max().unwrap_or(0);
    let bar = |sum: &u64| match *sum {
        0 => '·',
        sum => HEIGHTS[((sum * HEIGHTS.len() as u64).div_ceil(highest.max(1)) as usize).clamp(1, 8) - 1],
    };
    let bars: String = sums.iter().map(bar).collect();
    let unused = loads.iter().filter(|load| **load == 0).count();
    match highest_over_mean(loads) {
        None => format!("{bars}  {} without a token", counted(loads.len() as u64, "choice")),
        Some(most) => {
            let unused = if unused > 0 { format!(", {unused} without a token") } else { String::new() };
            format!(
                "{bars}  {}, at most {most:.2} times the mean{unused}",
                counted(loads.len() as u64, "choice")
            )
        }
    }
}

/// How many times the mean the highest load is, 1 if all are equal; `None` where nobody chose.
#[must_use]
pub fn highest_over_mean(loads: &[u64]) -> Option<f64> {
    let (sum, highest) = (loads.iter().sum::<u64>(), loads.iter().copied().max()?);
    (sum > 0).then(|| highest as f64 * loads.len() as f64 / sum as f64)
}

/// The choices that a step gave, of the lists for all its layers of experts in the order in which they run.
#[must_use]
pub fn of_results(function: &Function, lists: impl IntoIterator<Item = Vec<u8>>) -> Vec<Choices> {
    let of_layer = |((_, port), lists): ((Role, ChoicePort), Vec<u8>)| {
        Choices::of_lists(port.of, places(function, port), &lists)
    };
    function.interface.choices().into_iter().zip(lists).map(of_layer).collect()
}

/// Adds those of further tokens in all layers.
pub fn extend_all(all: &mut Vec<Choices>, further: &[Choices]) {
    all.resize(further.len(), Choices::default());
    all.iter_mut().zip(further).for_each(|(all, further)| all.extend(further));
}

/// Choices that a token can have at once in the layer of a port.
pub(crate) fn places(function: &Function, port: ChoicePort) -> u32 {
    function.buffers.get(port.buffer as usize).map_or(1, |buffer| buffer.cols)
}

/// Checks choices that are to be replayed for so many tokens.
///
/// # Errors
///
/// [`Error::BatchShape`] for another number of layers, choices or tokens; [`Error::ExpertsConflict`] for a token with more
/// choices than it can have.
pub(crate) fn check(layers: &[Choices], n_tokens: usize, function: &Function) -> Result<(), Error> {
    let ports = function.interface.choices();
    let shape = |what, found, expected| Err(Error::BatchShape { what, found, expected });
    if layers.len() != ports.len() {
        return shape("layers of the replayed choices", layers.len(), ports.len());
    }
    for (layer, (choices, (_, port))) in layers.iter().zip(ports).enumerate() {
        if choices.of != port.of {
            return shape(
                "choices of a layer of the replayed choices",
                choices.of as usize,
                port.of as usize,
            );
        }
        if choices.taken.len() != n_tokens * port.of as usize {
            return shape("tokens of the replayed choices", choices.n_tokens(), n_tokens);
        }
        if let Some((at, found)) = too_many(choices, places(function, port)) {
            let reason = format!("it has {found} choices, of which it can have {}", places(function, port));
            return Err(Error::ExpertsConflict { layer, at, reason });
        }
    }
    Ok(())
}

/// The first token with more choices than places, and how many it has.
fn too_many(choices: &Choices, places: u32) -> Option<(usize, usize)> {
    let count = |row: &[u8]| row.iter().filter(|taken| **taken != 0).count();
    choices.by_token().map(count).enumerate().find(|(_, count)| *count > places as usize)
}

/// Checks what a run reported against the choices that it was to replay: in layers in which a hash of token ids chooses nothing is
/// replayed, so that a file may not say otherwise about tokens that execute.
///
/// # Errors
///
/// [`Error::ExpertsConflict`].
pub(crate) fn check_hashed(function: &Function, replayed: &[Choices], got: &[Choices]) -> Result<(), Error> {
    let layers = function.interface.choices().into_iter().zip(replayed.iter().zip(got)).enumerate();
    for (layer, ((_, port), (replayed, got))) in layers {
        // Rows of tokens that did not execute have no choices, whatever the file says.
        let differs = |(replayed, got): (&[u8], &[u8])| got.contains(&1) && replayed != got;
        let mut rows = replayed.by_token().zip(got.by_token());
        if port.forced.is_none()
            && let Some(at) = rows.position(differs)
        {
            let reason = "a hash of the token's id chooses there, and not what the file says".to_owned();
            return Err(Error::ExpertsConflict { layer, at, reason });
        }
    }
    Ok(())
}

/// The array of all layers, `[layers, batch, tokens, choices]` with its shape: layers with fewer choices than the widest, and
/// padding, are filled with 0.
#[must_use]
pub fn to_array(layers: &[Choices], grid: &Grid) -> ([u64; 4], Vec<u8>) {
    let widest = layers.iter().map(|layer| layer.of).max().unwrap_or(0) as usize;
    let mut array = Vec::new();
    for layer in layers {
        let mut wide = Vec::with_capacity(layer.n_tokens() * widest);
        for row in layer.taken.chunks_exact(layer.of.max(1) as usize) {
            wide.extend_from_slice(row);
            wide.resize(wide.len() + widest - row.len(), 0);
        }
        array.extend(grid.unpack(&wide, widest));
    }
    let size = [layers.len(), grid.lengths.len(), grid.width, widest];
    (size.map(|size| size as u64), array)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Choices {
        let lists: Vec<u8> =
            [0.0f32, 2.0, -1.0, 1.0, -1.0, -1.0].iter().flat_map(|number| number.to_ne_bytes()).collect();
        Choices::of_lists(3, 2, &lists)
    }

    #[test]
    fn lists_become_masks_and_loads() {
        assert_eq!(layer(), Choices { of: 3, taken: vec![1, 0, 1, 0, 1, 0, 0, 0, 0] });
        assert_eq!(layer().n_tokens(), 3);
        assert_eq!(layer().loads(), [1, 1, 1]);
        assert_eq!(Choices::of_lists(3, 2, &[]).loads(), [0, 0, 0]);
    }

    #[test]
    fn masks_become_lists() {
        assert_eq!(layer().to_numbers(2), [0.0, 2.0, 1.0, -1.0, -1.0, -1.0]);
        assert_eq!(layer().to_numbers(3), [0.0, -1.0, 2.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0]);
        assert_eq!(Choices::of_lists(3, 3, &layer().to_lists(3)), layer());
        assert_eq!(too_many(&layer(), 1), Some((0, 2)));
        assert_eq!(too_many(&layer(), 2), None);
    }

    #[test]
    fn a_balance_has_a_bar_for_each_choice() {
        assert_eq!(balance(&[4, 0, 2, 2]), "█·▄▄  4 choices, at most 2.00 times the mean, 1 without a token");
        assert_eq!(balance(&[0, 0]), "··  2 choices without a token");
        assert_eq!(highest_over_mean(&[3, 3, 3]), Some(1.0));
        assert_eq!(balance(&vec![1; 1024]).chars().filter(|bar| *bar == '█').count(), 64);
    }

    #[test]
    fn narrow_layers_and_short_sequences_are_filled_with_0() {
        let grid = Grid { lengths: vec![1, 2], width: 2 };
        let narrow = Choices { of: 2, taken: vec![1, 0, 0, 1, 1, 1] };
        let (shape, array) = to_array(&[layer(), narrow], &grid);
        assert_eq!(shape, [2, 2, 2, 3]);
        assert_eq!(array[..12], [1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(array[12..], [1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0]);
    }
}
