//! Measured times of kernels in all their forms, as a file.

use std::path::Path;

use serde::{Deserialize, Serialize};
use skipc_artifact::program::Extent;
use skipc_artifact::regular;
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::Target;
use skipc_plan::buckets::Tile;
use skipc_plan::kernel::{Attention, Body, Kernel};

use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};

/// Format of the file; raised with each change.
pub const VERSION: u32 = 1;

/// Bytes of a tuning file at most.
const FILE_BYTES: u64 = 1 << 26;

/// The content of a tuning file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// [`VERSION`].
    pub version: u32,
    /// What the code was made for.
    pub target: String,
    /// What it ran on, human-readable.
    pub device: String,
    /// The kernels.
    pub kernels: Vec<Table>,
}

/// The times of one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// What it does, human-readable.
    pub name: String,
    /// [`key`] of the kernel.
    pub key: String,
    /// Its forms.
    pub forms: Vec<FormTimes>,
    /// Numbers of rows, ascending.
    pub counts: Vec<u32>,
}

/// A form and its times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormTimes {
    /// Rows of a tile.
    pub rows: u32,
    /// Columns of a tile.
    pub cols: u32,
    /// Tiles side by side.
    pub across: u32,
    /// Nanoseconds for each number of rows.
    pub ns: Vec<f64>,
}

/// What a kernel is known by: what it does with parameters of which types and columns, whatever the bounds on its rows.
pub fn key(kernel: &Kernel) -> String {
    let mut body = kernel.body.clone();
    if let Body::Attention(Attention { kv_extent: Extent::Counted { at_most, .. }, .. }) = &mut body {
        *at_most = 0;
    }
    let text = serde_json::to_string(&(&kernel.params, &body)).unwrap_or_default();
    ContentHash::of(text.as_bytes()).to_string()[..24].to_owned()
}

impl Table {
    /// What a form took at a count of [`Table::counts`].
    pub fn ns(&self, form: usize, count: u32) -> f64 {
        let idx = self.counts.partition_point(|known| *known < count);
        self.forms.get(form).and_then(|form| form.ns.get(idx)).copied().unwrap_or(f64::INFINITY)
    }

    fn is_of(&self, tiles: &[Tile]) -> bool {
        let shape = |form: &FormTimes| Tile { rows: form.rows, cols: form.cols, across: form.across };
        self.forms.len() == tiles.len()
            && self.forms.iter().zip(tiles).all(|(form, tile)| shape(form) == *tile)
    }

    fn fault(&self) -> Option<String> {
        let ascends = self.counts.windows(2).all(|pair| pair[0] < pair[1]);
        if self.counts.is_empty() || !ascends || self.counts[0] == 0 {
            return Some("has no ascending list of counts".to_owned());
        }
        let is_time = |ns: &f64| ns.is_finite() && *ns > 0.0;
        let is_whole = |form: &FormTimes| form.ns.len() == self.counts.len() && form.ns.iter().all(is_time);
        (self.forms.is_empty() || !self.forms.iter().all(is_whole))
            .then(|| "has not a time above 0 for each form and count".to_owned())
    }
}

impl Tuning {
    /// Reads a file for a compile.
    ///
    /// # Errors
    /// `tuning::parse` and `tuning::table` with the place, `tuning::version`.
    pub fn read(path: &Path) -> Result<Tuning, Error> {
        let text = regular::read_text(path, FILE_BYTES).map_err(|error| Error::io(path, &error))?;
        let refuse = |code: &'static str, message: String, help: &str| {
            let message = format!("{}: {message}", path.display());
            Error::new(ErrorKind::Input, Diagnostic::new(code, message).help(help))
        };
        let help = "write it with `skipc tune`";
        let tuning: Tuning =
            serde_json::from_str(&text).map_err(|error| refuse("tuning::parse", error.to_string(), help))?;
        if tuning.version != VERSION {
            let message = format!("has version {}, and this skipc reads {VERSION}", tuning.version);
            return Err(refuse("tuning::version", message, "measure again with `skipc tune`"));
        }
        let fault = tuning.kernels.iter().find_map(|table| Some((&table.name, table.fault()?)));
        match fault {
            Some((name, fault)) => Err(refuse("tuning::table", format!("kernel `{name}` {fault}"), help)),
            None => Ok(tuning),
        }
    }

    /// Of all that it says.
    pub fn content_hash(&self) -> ContentHash {
        ContentHash::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }

    /// Whether it says something about a target.
    pub fn is_for(&self, target: &Target) -> bool {
        self.target == target.to_string()
    }

    /// The times of a kernel in these forms, if they were measured.
    pub fn find(&self, kernel: &Kernel, tiles: &[Tile]) -> Option<&Table> {
        let key = key(kernel);
        self.kernels.iter().find(|table| table.key == key && table.is_of(tiles))
    }
}
