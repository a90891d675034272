//! What a run is given: tokens, lengths and decisions from files.

use std::path::Path;

use skipc_artifact::manifest::Manifest;
use skipc_artifact::section::ContentHash;

use crate::arrays;
use crate::batch::Grid;
use crate::error::Error;
use crate::file::read_limited;
use crate::npy::{self, IntArray};
use crate::trace::{self, Trace};

/// Sequences from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// Where the tokens stood in the file's array.
    pub grid: Grid,
    /// Token ids of all sequences, one after the other.
    pub tokens: Vec<u32>,
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
        Self { grid: Grid { lengths: vec![u32::try_from(width).unwrap_or(u32::MAX)], width }, tokens }
    }

    /// The tokens of each sequence.
    pub fn rows(&self) -> impl Iterator<Item = &[u32]> {
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
        let array = npy::read_ints(path, &[1, 2])?;
        let lengths = match lengths {
            None => None,
            Some(path) => Some((path, npy::read_ints(path, &[1])?)),
        };
        Self::of_arrays((path, &array), lengths.as_ref().map(|(path, array)| (*path, array)))
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
        let (batch, width) = match array.shape[..] {
            [width] => (1, width),
            [batch, width] => (batch, width),
            _ => return Err(shape_error(path, array, "one or two dimensions".into())),
        };
        // Rows without tokens take no bytes in a file, so their number is still unchecked.
        if width == 0 && batch > 1 << 20 {
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
        let grid = Grid { lengths, width: width as usize };
        let tokens: Vec<i64> = grid.pack(&array.data).collect();
        let tokens = to_u32(path, &tokens, u64::from(u32::MAX), "a token id".into())?;
        Ok(Self { grid, tokens })
    }
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

fn shape_error(path: &Path, array: &IntArray, expected: String) -> Error {
    Error::NpyShape { path: path.into(), found: array.shape.clone(), expected }
}

fn value_error(path: &Path, found: i64, at: usize, expected: String) -> Error {
    Error::NpyValue { path: path.into(), found: found.into(), at, expected }
}
