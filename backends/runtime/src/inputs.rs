//! What a run is given: tokens or rows, lengths and decisions from files.

use std::path::Path;

use skipc_artifact::manifest::Manifest;
use skipc_artifact::program::Function;
use skipc_artifact::section::ContentHash;

use crate::arrays;
use crate::batch::{self, Batch, Grid, check_sizes, row_columns};
use crate::choices::Choices;
use crate::error::Error;
use crate::file::{begins_with, read_limited};
use crate::npy::{self, FloatArray, IntArray};
use crate::trace::{self, Trace};

/// Most tokens of a corpus: 4 GiB of ids, as large as a file may be.
const CORPUS_LIMIT: u64 = 1 << 30;

/// Most sequences of an array: 64 MiB of lengths.
const SEQUENCE_LIMIT: u64 = 1 << 24;

/// What sequences are for. Whatever has no room there is refused by the header of its file, before memory is taken for it.
#[derive(Clone, Copy, Debug)]
pub enum Room<'f> {
    /// Steps of a function, each of whole sequences.
    Whole(&'f Function),
    /// Steps of a function, which may cut sequences.
    Pieces(&'f Function),
    /// No function's steps, but windows of them, or other things.
    Corpus,
}

/// Sequences from a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequences {
    /// Whether the array has a dimension of sequences, even if it is 1.
    pub is_batch: bool,
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

/// Choices of experts from a file, to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedChoices {
    /// By layer, in the order in which they run.
    pub layers: Vec<Choices>,
    /// Hash of the file.
    pub file_hash: ContentHash,
}

impl Sequences {
    /// One sequence.
    #[must_use]
    pub fn of_row(tokens: Vec<u32>) -> Self {
        let width = tokens.len();
        let grid = Grid { lengths: vec![u32::try_from(width).unwrap_or(u32::MAX)], width };
        Self { is_batch: false, grid, tokens, rows: Vec::new() }
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
    /// A file that is no sound `.npy` file, or of another shape, or numbers that are no token ids or lengths; more of them than
    /// there is room for.
    pub fn read(path: &Path, lengths: Option<&Path>, room: Room<'_>) -> Result<Self, Error> {
        let mut numbers = npy::open_ints(path, &[1, 2])?;
        let shape = numbers.shape().to_vec();
        let grid = read_grid((path, &shape), &shape, lengths, |tokens, longest| {
            room.check_ids(path, &shape, (tokens, longest))
        })?;
        let mut tokens = Vec::with_capacity(grid.n_tokens());
        let mut at = 0;
        for &length in &grid.lengths {
            numbers.take(length as usize, |number| {
                tokens.push(id(path, number, at)?);
                at += 1;
                Ok(())
            })?;
            numbers.skip(grid.width - length as usize)?;
            at += grid.width - length as usize;
        }
        Ok(Self { is_batch: shape.len() > 1, grid, tokens, rows: Vec::new() })
    }

    /// Reads rows of numbers, `[tokens, columns]` or `[batch, tokens, columns]`, and how many of each sequence count,
    /// `[batch]`.
    ///
    /// # Errors
    ///
    /// As [`Sequences::read`].
    pub fn read_rows(path: &Path, lengths: Option<&Path>, room: Room<'_>) -> Result<Self, Error> {
        let mut numbers = npy::open_floats(path, &[2, 3])?;
        let shape = numbers.shape().to_vec();
        let (dims, cols) = shape.split_at(shape.len() - 1);
        let cols = cols[0] as usize;
        let grid = read_grid((path, &shape), dims, lengths, |tokens, longest| {
            room.check_rows(cols as u64, (tokens, longest))
        })?;
        let mut rows = Vec::with_capacity(grid.n_tokens() * cols);
        for &length in &grid.lengths {
            numbers.take(length as usize * cols, |number| {
                rows.push(number);
                Ok(())
            })?;
            numbers.skip((grid.width - length as usize) * cols)?;
        }
        Ok(Self { is_batch: dims.len() > 1, grid, tokens: Vec::new(), rows })
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
        let [dims @ .., cols] = &array.shape[..] else {
            return Err(shape_error(path, &array.shape, "two or three dimensions".into()));
        };
        let grid = grid((path, &array.shape), dims, lengths)?;
        let rows = grid.pack_rows(&array.data, *cols as usize).collect();
        Ok(Self { is_batch: dims.len() > 1, grid, tokens: Vec::new(), rows })
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
        let grid = grid((path, &array.shape), &array.shape, lengths)?;
        let tokens = (0..).zip(grid.pack(&array.data)).map(|(at, number)| id(path, number, at));
        let tokens = tokens.collect::<Result<_, _>>()?;
        Ok(Self { is_batch: array.shape.len() > 1, grid, tokens, rows: Vec::new() })
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
        Batch { tokens: self.tokens, rows: self.rows, lengths: self.grid.lengths, routing, experts: None }
    }
}

impl Room<'_> {
    /// Checks so many token ids, and the longest sequence of them, against what there is room for.
    fn check_ids(self, path: &Path, shape: &[u64], counts: (u64, Longest)) -> Result<(), Error> {
        match self.function() {
            Some(function) if row_columns(function).is_none() => self.check(function, counts),
            // Which the batch says in its own words.
            Some(function) => Err(Error::TakesRows { cols: row_columns(function).unwrap_or(0) }),
            None if counts.0 > CORPUS_LIMIT => {
                Err(shape_error(path, shape, format!("at most {CORPUS_LIMIT} tokens")))
            }
            None => Ok(()),
        }
    }

    /// As [`Room::check_ids`], of rows of numbers. A corpus has none.
    fn check_rows(self, found: u64, (tokens, longest): (u64, Longest)) -> Result<(), Error> {
        let Some(function) = self.function() else { return Err(Error::TakesTokens) };
        let Some(cols) = row_columns(function) else { return Err(Error::TakesTokens) };
        if found != u64::from(cols) {
            return Err(Error::TakesRows { cols });
        }
        // A class token is one more of each sequence.
        let class = u64::from(function.class_token);
        let longest = Longest { length: longest.length + class, ..longest };
        self.check(function, (tokens.saturating_add(class.saturating_mul(longest.of)), longest))
    }

    fn function(&self) -> Option<&Function> {
        match self {
            Room::Whole(function) | Room::Pieces(function) => Some(function),
            Room::Corpus => None,
        }
    }

    /// In the order of [`Batch::check`].
    fn check(self, function: &Function, (found, longest): (u64, Longest)) -> Result<(), Error> {
        let Longest { sequence, length, .. } = longest;
        match self {
            Room::Whole(_) => check_sizes(function, found, (sequence, length))?,
            Room::Pieces(_) if length > u64::from(function.max_positions) => {
                let limit = function.max_positions;
                return Err(Error::SequenceTooLong { sequence, found: length, limit });
            }
            Room::Pieces(_) | Room::Corpus => {}
        }
        match found > CORPUS_LIMIT {
            true => Err(Error::TooManyTokens { found, limit: CORPUS_LIMIT as u32 }),
            false => Ok(()),
        }
    }
}

/// The longest sequence of some.
#[derive(Clone, Copy, Debug)]
struct Longest {
    /// How many there are.
    of: u64,
    /// Its index.
    sequence: usize,
    /// Its tokens.
    length: u64,
}

/// Where tokens stand in a file whose first dimensions are `[tokens]` or `[batch, tokens]`; `check` is told how many there are
/// before there is memory for them.
fn read_grid(
    (path, shape): (&Path, &[u64]),
    dims: &[u64],
    lengths: Option<&Path>,
    check: impl Fn(u64, Longest) -> Result<(), Error>,
) -> Result<Grid, Error> {
    let (batch, width) = extent((path, shape), dims)?;
    let Some(path) = lengths else {
        check(batch.saturating_mul(width), Longest { of: batch, sequence: 0, length: width })?;
        return Ok(whole(batch, width));
    };
    let mut numbers = npy::open_ints(path, &[1])?;
    check_lengths(path, numbers.shape(), batch)?;
    let mut lengths = Vec::with_capacity(batch as usize);
    numbers.take(batch as usize, |number| {
        lengths.push(in_row(path, number, lengths.len(), width)?);
        Ok(())
    })?;
    let (sequence, length) = batch::longest(&lengths);
    let tokens = lengths.iter().map(|length| u64::from(*length)).sum();
    check(tokens, Longest { of: batch, sequence, length })?;
    Ok(Grid { lengths, width: width as usize })
}

/// Where tokens stand in an array whose first dimensions are `[tokens]` or `[batch, tokens]`.
fn grid(
    (path, shape): (&Path, &[u64]),
    dims: &[u64],
    lengths: Option<(&Path, &IntArray)>,
) -> Result<Grid, Error> {
    let (batch, width) = extent((path, shape), dims)?;
    let Some((path, lengths)) = lengths else { return Ok(whole(batch, width)) };
    check_lengths(path, &lengths.shape, batch)?;
    let lengths = lengths.data.iter().enumerate().map(|(at, number)| in_row(path, *number, at, width));
    Ok(Grid { lengths: lengths.collect::<Result<_, _>>()?, width: width as usize })
}

/// How many sequences there are, and how long they may be.
fn extent((path, shape): (&Path, &[u64]), dims: &[u64]) -> Result<(u64, u64), Error> {
    let (batch, width) = match *dims {
        [width] => (1, width),
        [batch, width] => (batch, width),
        _ => return Err(shape_error(path, shape, "one sequence or a batch of them".into())),
    };
    // Rows without tokens take no bytes in a file, so their number is still unchecked.
    if shape.contains(&0) && batch.saturating_mul(width.max(1)) > 1 << 20 {
        return Err(shape_error(path, shape, "fewer empty rows".into()));
    }
    if batch > SEQUENCE_LIMIT {
        return Err(shape_error(path, shape, format!("at most {SEQUENCE_LIMIT} sequences")));
    }
    Ok((batch, width))
}

/// Sequences of which every token counts.
fn whole(batch: u64, width: u64) -> Grid {
    let length = u32::try_from(width).unwrap_or(u32::MAX);
    Grid { lengths: vec![length; batch as usize], width: width as usize }
}

fn check_lengths(path: &Path, shape: &[u64], batch: u64) -> Result<(), Error> {
    match *shape == [batch] {
        true => Ok(()),
        false => Err(shape_error(path, shape, format!("[{batch}], the rows of the tokens"))),
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
        if begins_with(path, npy::MAGIC)? {
            check_decisions(path, npy::open_ints(path, &[3])?.shape(), (routers, grid))?;
            let file = read_limited(path, npy::FILE_LIMIT)?;
            let gates = without_padding(path, &npy::parse_ints(path, &file, &[3])?, grid, routers)?;
            return Ok(Self { gates, file_hash: ContentHash::of(&file) });
        }
        let file = read_limited(path, trace::FILE_LIMIT)?;
        if !arrays::may_be(&file) {
            return Err(Error::RoutingFormat { path: path.into() });
        }
        let trace = Trace::parse(path, &file)?;
        let gates = trace.into_decisions(path, manifest, (routers, &grid.lengths))?;
        Ok(Self { gates, file_hash: ContentHash::of(&file) })
    }
}

impl ReplayedChoices {
    /// Reads choices for a batch in the shape of `grid`, on a function: a routing trace that has some, or a `.npy` file
    /// `[layers, batch, tokens, choices]` as `--experts-out` writes it. What it is, its content says.
    ///
    /// # Errors
    ///
    /// A file that is neither, is unsound, or does not belong to the model or the batch; a model without experts.
    pub fn read(
        path: &Path,
        manifest: &Manifest,
        (function, grid): (&Function, &Grid),
    ) -> Result<Self, Error> {
        if begins_with(path, npy::MAGIC)? {
            check_choices(path, npy::open_ints(path, &[4])?.shape(), (function, grid))?;
            let file = read_limited(path, npy::FILE_LIMIT)?;
            let layers = choices_of_array(path, &npy::parse_ints(path, &file, &[4])?, (function, grid))?;
            return Ok(Self { layers, file_hash: ContentHash::of(&file) });
        }
        let of = choices_of_layers(function)?;
        let file = read_limited(path, trace::FILE_LIMIT)?;
        if !arrays::may_be(&file) {
            return Err(Error::RoutingFormat { path: path.into() });
        }
        let layers = Trace::parse(path, &file)?.into_choices(path, manifest, (&of, &grid.lengths))?;
        Ok(Self { layers, file_hash: ContentHash::of(&file) })
    }
}

/// How many choices each layer of experts of a function has.
fn choices_of_layers(function: &Function) -> Result<Vec<u32>, Error> {
    let of: Vec<u32> = function.interface.choices().iter().map(|(_, port)| port.of).collect();
    if of.is_empty() { Err(Error::NoExperts) } else { Ok(of) }
}

/// Checks the shape of choices, `[layers, batch, tokens, choices of the widest layer]`, and gives how many each layer has, and the
/// widest one.
fn check_choices(
    path: &Path,
    shape: &[u64],
    (function, grid): (&Function, &Grid),
) -> Result<(Vec<u32>, usize), Error> {
    let of = choices_of_layers(function)?;
    let widest = of.iter().copied().max().unwrap_or(0) as usize;
    let expected = [of.len(), grid.lengths.len(), grid.width, widest].map(|size| size as u64);
    match *shape == expected {
        true => Ok((of, widest)),
        false => Err(shape_error(path, shape, format!("{expected:?}"))),
    }
}

/// Choices of an array `[layers, batch, tokens, choices of the widest layer]`, without its padding. `path` is for errors only.
///
/// # Errors
///
/// An array of another shape, and numbers other than 0 and 1; a model without experts. Whether a token can have its choices is
/// checked where they run.
pub fn choices_of_array(
    path: &Path,
    array: &IntArray,
    (function, grid): (&Function, &Grid),
) -> Result<Vec<Choices>, Error> {
    let (of, widest) = check_choices(path, &array.shape, (function, grid))?;
    let size = (grid.lengths.len() * grid.width * widest).max(1);
    let mut layers = Vec::new();
    for (layer, of) in of.iter().enumerate() {
        let numbers = array.data.get(layer * size..(layer + 1) * size).unwrap_or_default();
        let mut taken = Vec::with_capacity(numbers.len());
        for (at, number) in numbers.iter().enumerate() {
            let last = i64::from(at % widest < *of as usize);
            if !(0..=last).contains(number) {
                let expected = match last {
                    0 => format!("0: layer {layer} has {of} choices"),
                    _ => "0 or 1".into(),
                };
                return Err(value_error(path, *number, layer * size + at, expected));
            }
            taken.push(u8::from(*number != 0));
        }
        let rows: Vec<u8> =
            taken.chunks_exact(widest).flat_map(|row| row.iter().take(*of as usize).copied()).collect();
        layers.push(Choices { of: *of, taken: grid.pack_rows(&rows, *of as usize).collect() });
    }
    Ok(layers)
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
    check_decisions(path, &array.shape, (routers, grid))?;
    if let Some(at) = array.data.iter().position(|decision| !(0..=1).contains(decision)) {
        return Err(value_error(path, array.data[at], at, "0 or 1".into()));
    }
    let decisions: Vec<u8> = array.data.iter().map(|&decision| u8::from(decision != 0)).collect();
    let mut routers = vec![Vec::new(); routers];
    let size = (grid.lengths.len() * grid.width).max(1);
    for (router, decisions) in routers.iter_mut().zip(decisions.chunks(size)) {
        *router = grid.pack(decisions).collect();
    }
    Ok(routers)
}

fn check_decisions(path: &Path, shape: &[u64], (routers, grid): (usize, &Grid)) -> Result<(), Error> {
    let (batch, width) = (grid.lengths.len(), grid.width);
    match *shape == [routers as u64, batch as u64, width as u64] {
        true => Ok(()),
        false => Err(shape_error(path, shape, format!("[{routers}, {batch}, {width}]"))),
    }
}

/// The token id that a number of an array is.
fn id(path: &Path, number: i64, at: usize) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| value_error(path, number, at, "a token id".into()))
}

/// The length that a number of an array is, of a sequence in a row of `width` tokens.
fn in_row(path: &Path, number: i64, at: usize, width: u64) -> Result<u32, Error> {
    let length = u32::try_from(number).ok().filter(|length| u64::from(*length) <= width);
    length.ok_or_else(|| value_error(path, number, at, format!("0 to {width}")))
}

fn shape_error(path: &Path, shape: &[u64], expected: String) -> Error {
    Error::NpyShape { path: path.into(), found: shape.to_vec(), expected }
}

fn value_error(path: &Path, found: i64, at: usize, expected: String) -> Error {
    Error::NpyValue { path: path.into(), found: found.into(), at, expected }
}
