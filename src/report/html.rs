//! Pages that open from disk: one style for all of them, and nothing that is fetched.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The style of every page.
pub(super) const STYLE: &str = include_str!("assets/report.css");

/// Text that can stand between tags and in attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A page without any script.
pub fn page(title: &str, body: &dyn Display) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n<main class=\"page\">\n<h1>{title}</h1>\n{body}\n</main>\n</html>\n"
    )
}

/// A table; numbers of the columns from the second on stand to the right. Cells are HTML already.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let cells = |tag: &str, cells: &[String]| {
        cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect::<String>()
    };
    let head: Vec<String> = header.iter().map(|name| escaped(name)).collect();
    let rows = rows.into_iter().map(|row| format!("<tr>{}</tr>\n", cells("td", &row)));
    format!(
        "<div class=\"scroll\"><table><thead><tr>{}</tr></thead><tbody>\n{}</tbody></table></div>\n",
        cells("th", &head),
        rows.collect::<String>()
    )
}

/// Writes files into a folder, which is made if it is missing; gives their paths.
///
/// # Errors
/// What the file system says.
pub fn write(dir: &Path, files: &[(String, String)]) -> Result<Vec<PathBuf>, Error> {
    let mut written = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        let parent = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent).map_err(|error| Error::io(parent, &error))?;
        skipc_artifact::replace::bytes(&path, text.as_bytes())
            .map_err(|error| Error::in_artifact(&path, &error))?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_markup() {
        let page = page("<script>", &table(&["a & b"], [vec![escaped("\"<i>\"")]]));
        assert!(page.contains("<h1>&lt;script&gt;</h1>"), "{page}");
        assert!(page.contains("<td>&quot;&lt;i&gt;&quot;</td>") && page.contains("a &amp; b"), "{page}");
    }
}
