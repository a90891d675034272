//! What a run is given: tokens or rows, lengths and decisions from files.

use std::path::Path;

use skipc_artifact::manifest::Manifest;
use skipc_artifact::program::Function;
use skipc_artifact::section::ContentHash;

use crate::arrays;
use crate::batch::{Batch, Grid, row_columns};
use crate::error::Error;
use crate::file::read_limited;
use crate::npy::{self, FloatArray, IntArray};
use crate::trace::{self, Trace};

/// Sequences from a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequences {
    /// Where the tokens stood in the file's array.
    pub grid: Grid,
    /// Token ids of all sequences, one after the other; none where there are rows.
    pub tokens: Vec<u32>,
    /// Rows of numbers in their place.
    pub rows: Vec<f32>,
}

/// Decisions from a file, to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// `[routers][n]` of 0 and 1.
    pub gates: Vec<Vec<u8>>,
    /// Hash of the file.
    pub file_hash: ContentHash,
}

impl Sequences {
    /// One sequence.
    #[must_use]
    pub fn of_row(tokens: Vec<u32>) -> Self {
        let width = tokens.len();
        let grid = Grid { lengths: vec![u32::try_from(width).unwrap_or(u32::MAX)], width };
        Self { grid, tokens, rows: Vec::new() }
    }

    /// The token ids of each sequence.
    pub fn ids(&self) -> impl Iterator<Item = &[u32]> {
        let mut rest = self.tokens.as_slice();
        self.grid.lengths.iter().map(move |length| {
            let (row, after) = rest.split_at((*length as usize).min(rest.len()));
            rest = after;
            row
        })
    }

    /// Reads token ids, `[tokens]` or `[batch, tokens]`, and how many of each row count, `[batch]`.
    ///
    /// # Errors
    ///
    /// A file that is no sound `.npy` file, or of another shape, or numbers that are no token ids or lengths.
    pub fn read(path: &Path, lengths: Option<&Path>) -> Result<Self, Error> {
        let (array, lengths) = (npy::read_ints(path, &[1, 2])?, read_lengths(lengths)?);
        Self::of_arrays((path, &array), lengths.as_ref().map(|(path, array)| (*path, array)))
    }

    /// Reads rows of numbers, `[tokens, columns]` or `[batch, tokens, columns]`, and how many of each sequence count,
    /// `[batch]`.
    ///
    /// # Errors
    ///
    /// As [`Sequences::read`].
    pub fn read_rows(path: &Path, lengths: Option<&Path>) -> Result<Self, Error> {
        let (array, lengths) = (npy::read_floats(path, &[2, 3])?, read_lengths(lengths)?);
        Self::of_row_arrays((path, &array), lengths.as_ref().map(|(path, array)| (*path, array)))
    }

    /// As [`Sequences::read_rows`], of arrays in memory.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn of_row_arrays(
        (path, array): (&Path, &FloatArray),
        lengths: Option<(&Path, &IntArray)>,
    ) -> Result<Self, Error> {
        let (tokens, cols) = match array.shape[..] {
            [.., cols] if array.shape.len() > 1 => (&array.shape[..array.shape.len() - 1], cols),
            _ => return Err(shape_error(path, array, "two or three dimensions".into())),
        };
        let grid = grid((path, array), tokens, lengths)?;
        let rows = grid.pack_rows(&array.data, cols as usize).collect();
        Ok(Self { grid, tokens: Vec::new(), rows })
    }

    /// As [`Sequences::read`], of arrays in memory, each with the name that users know it by.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn of_arrays(
        (path, array): (&Path, &IntArray),
        lengths: Option<(&Path, &IntArray)>,
    ) -> Result<Self, Error> {
        let grid = grid((path, array), &array.shape, lengths)?;
        let tokens: Vec<i64> = grid.pack(&array.data).collect();
        let tokens = to_u32(path, &tokens, u64::from(u32::MAX), "a token id".into())?;
        Ok(Self { grid, tokens, rows: Vec::new() })
    }

    /// With a row for the class token in front of each sequence, if the function has one: it counts as a token.
    #[must_use]
    pub fn for_function(mut self, function: &Function) -> Self {
        let cols = row_columns(function).unwrap_or(0) as usize;
        let n_rows: usize = self.grid.lengths.iter().map(|&length| length as usize).sum();
        // Other rows than the function takes are refused as they are.
        if !function.class_token || self.rows.len() != n_rows * cols {
            return self;
        }
        let mut rows = Vec::with_capacity((n_rows + self.grid.lengths.len()) * cols);
        for of_sequence in self.grid.rows() {
            rows.resize(rows.len() + cols, 0.0);
            rows.extend_from_slice(&self.rows[of_sequence.start * cols..of_sequence.end * cols]);
        }
        self.rows = rows;
        self.grid.lengths.iter_mut().for_each(|length| *length += 1);
        self.grid.width += 1;
        self
    }

    /// A batch of them, with decisions to replay if there are any.
    #[must_use]
    pub fn into_batch(self, routing: Option<Vec<Vec<u8>>>) -> Batch {
        Batch { tokens: self.tokens, rows: self.rows, lengths: self.grid.lengths, routing }
    }
}

fn read_lengths(path: Option<&Path>) -> Result<Option<(&Path, IntArray)>, Error> {
    path.map(|path| Ok((path, npy::read_ints(path, &[1])?))).transpose()
}

/// Where tokens stand in an array whose first dimensions are `[tokens]` or `[batch, tokens]`.
fn grid<T>(
    (path, array): (&Path, &npy::Array<T>),
    tokens: &[u64],
    lengths: Option<(&Path, &IntArray)>,
) -> Result<Grid, Error> {
    let (batch, width) = match *tokens {
        [width] => (1, width),
        [batch, width] => (batch, width),
        _ => return Err(shape_error(path, array, "one sequence or a batch of them".into())),
    };
    // Rows without tokens take no bytes in a file, so their number is still unchecked.
    let is_empty = array.shape.contains(&0);
    if is_empty && batch.saturating_mul(width.max(1)) > 1 << 20 {
        return Err(shape_error(path, array, "fewer empty rows".into()));
    }
    let lengths = match lengths {
        None => vec![width as u32; batch as usize],
        Some((path, lengths)) => {
            if lengths.shape != [batch] {
                return Err(shape_error(path, lengths, format!("[{batch}], the rows of the tokens")));
            }
            to_u32(path, &lengths.data, width, format!("0 to {width}"))?
        }
    };
    Ok(Grid { lengths, width: width as usize })
}

impl Replay {
    /// Reads decisions for a batch in the shape of `grid`, on a model with as many routers: a routing trace, or a
    /// `.npy` file `[routers, batch, tokens]`. What it is, its content says.
    ///
    /// # Errors
    ///
    /// A file that is neither, is unsound, or does not belong to the model or the batch.
    pub fn read(path: &Path, manifest: &Manifest, (routers, grid): (usize, &Grid)) -> Result<Self, Error> {
        let file = read_limited(path, npy::FILE_LIMIT)?;
        let file_hash = ContentHash::of(&file);
        if npy::may_be(&file) {
            let array = npy::parse_ints(path, &file, &[3])?;
            return Ok(Self { gates: without_padding(path, &array, grid, routers)?, file_hash });
        }
        if !arrays::may_be(&file) {
            return Err(Error::RoutingFormat { path: path.into() });
        }
        let (size, limit) = (file.len() as u64, trace::FILE_LIMIT);
        if size > limit {
            return Err(Error::TooLarge { path: path.into(), size, limit });
        }
        let trace = Trace::parse(path, &file)?;
        let gates = trace.into_decisions(path, manifest, (routers, &grid.lengths))?;
        Ok(Self { gates, file_hash })
    }
}

/// The text of a file.
///
/// # Errors
///
/// A file that cannot be read, is longer than the limit, or is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String, Error> {
    String::from_utf8(read_limited(path, limit)?).map_err(|error| {
        let reason = format!("it is not UTF-8, at byte {}", error.utf8_error().valid_up_to());
        Error::Io { action: "read", path: path.into(), source: std::io::Error::other(reason) }
    })
}

/// Decisions of an array `[routers, batch, tokens]`, without its padding: `[routers][n]` of 0 and 1.
///
/// # Errors
///
/// An array of another shape, or with other numbers.
pub fn without_padding(
    path: &Path,
    array: &IntArray,
    grid: &Grid,
    routers: usize,
) -> Result<Vec<Vec<u8>>, Error> {
    let (batch, width) = (grid.lengths.len(), grid.width);
    if array.shape != [routers as u64, batch as u64, width as u64] {
        return Err(shape_error(path, array, format!("[{routers}, {batch}, {width}]")));
    }
    if let Some(at) = array.data.iter().position(|decision| !(0..=1).contains(decision)) {
        return Err(value_error(path, array.data[at], at, "0 or 1".into()));
    }
    let decisions: Vec<u8> = array.data.iter().map(|&decision| u8::from(decision != 0)).collect();
    let mut routers = vec![Vec::new(); routers];
    let size = (batch * width).max(1);
    for (router, decisions) in routers.iter_mut().zip(decisions.chunks(size)) {
        *router = grid.pack(decisions).collect();
    }
    Ok(routers)
}

fn to_u32(path: &Path, numbers: &[i64], limit: u64, expected: String) -> Result<Vec<u32>, Error> {
    let small = |&number: &i64| u32::try_from(number).ok().filter(|&number| u64::from(number) <= limit);
    if let Some(at) = numbers.iter().position(|number| small(number).is_none()) {
        return Err(value_error(path, numbers[at], at, expected));
    }
    Ok(numbers.iter().filter_map(small).collect())
}

fn shape_error<T>(path: &Path, array: &npy::Array<T>, expected: String) -> Error {
    Error::NpyShape { path: path.into(), found: array.shape.clone(), expected }
}

fn value_error(path: &Path, found: i64, at: usize, expected: String) -> Error {
    Error::NpyValue { path: path.into(), found: found.into(), at, expected }
}
