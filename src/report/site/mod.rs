//! A model as a folder of pages that opens from disk: data as JSON in a script, and scripts of our own that draw it.
//!
//! | file | holds |
//! | --- | --- |
//! | `index.html`, `report.css`, `report.js` | the frame, the same for every model |
//! | `data.js` | everything but code: `window.REPORT = {…}`, see [`data`] |
//! | `code/P-K.js` | the code of kernel K of program P in all its forms, loaded when it is looked at |

mod code;
mod data;
mod lines;

use std::path::{Path, PathBuf};

use super::Subject;
use super::html::{self, STYLE};
use crate::error::Error;

const INDEX: &str = include_str!("../assets/index.html");

/// One script: the frame, then views, then drawings, which begins to draw at its end.
const SCRIPT: &str = concat!(
    include_str!("../assets/core.js"),
    include_str!("../assets/views.js"),
    include_str!("../assets/drawings.js")
);

/// Writes the pages of a subject into a folder, which is made if it is missing; gives the files.
///
/// # Errors
/// A subject without a model, what the file system says, or a fault of the compiler.
pub fn write(subject: &Subject, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let data =
        serde_json::to_string(&data::of(subject)?).map_err(|error| Error::internal("json::write", &error))?;
    let mut files = vec![
        ("index.html".to_owned(), INDEX.to_owned()),
        ("report.css".to_owned(), STYLE.to_owned()),
        ("report.js".to_owned(), SCRIPT.to_owned()),
        ("data.js".to_owned(), format!("window.REPORT = {data};\n")),
    ];
    for (key, parts) in code::of(subject) {
        let parts = serde_json::to_string(&parts).map_err(|error| Error::internal("json::write", &error))?;
        files.push((format!("code/{key}.js"), format!("REPORT_CODE({key:?}, {parts});\n")));
    }
    html::write(dir, &files)
}
