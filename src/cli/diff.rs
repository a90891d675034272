//! `skipc diff`: what is different between two specs, artefacts or graphs.

use std::path::{Path, PathBuf};

use clap::Args;
use skipc_artifact::regular;
use skipc_ir::text::{MAX_TEXT, parse};
use skipc_runtime::words::counted;

use super::trace::is_artifact;
use super::{CpuBackendArg, open_index, to_json};
use crate::diagnostic::Diagnostic;
use crate::driver::pipeline::Request;
use crate::driver::targets::Targets;
use crate::error::{Error, ErrorKind};
use crate::frontend::source::Source;
use crate::report::diff::{Diff, html, text};
use crate::report::{Subject, html as pages};

/// Arguments of `skipc diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The first: an artefact, a model spec (TOML), a directory as Hugging Face has them, or a graph (.sir).
    #[arg(value_name = "A")]
    pub before: PathBuf,

    /// The second, of any of these kinds; a graph is compared with a graph.
    #[arg(value_name = "B")]
    pub after: PathBuf,

    /// Targets that specs are compiled for; artefacts have their own.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    pub target: Vec<String>,

    /// What generates code of specs for `cpu` [default: llvm, or cranelift in a build without LLVM].
    #[arg(long, value_enum, value_name = "B", default_value_t = CpuBackendArg::default(), hide_default_value = true)]
    pub cpu_backend: CpuBackendArg,

    /// End with exit code 4 if memory, predicted cost or size of code grows by more than this share: `5%`, or `0.05`.
    #[arg(long, value_name = "SHARE")]
    pub fail_over: Option<String>,

    /// Also write the difference as a page to this folder.
    #[arg(long, value_name = "DIR")]
    pub html: Option<PathBuf>,
}

/// What `skipc diff` prints, and whether a figure grew by more than is allowed.
pub(super) fn run(args: &DiffArgs, json: bool, out: &mut dyn std::io::Write) -> Result<String, Error> {
    let limit = args.fail_over.as_deref().map(share).transpose()?;
    let request = || -> Result<Request, Error> {
        let dtypes = ["cpu=f32".to_owned(), "cuda=bf16".to_owned()];
        let Targets { list, in_8_bits } = Targets::parse(&args.target, &dtypes)?;
        Ok(Request { targets: list, in_8_bits, cpu_backend: args.cpu_backend.into(), ..Request::host() })
    };
    let [before, after] = [&args.before, &args.after].map(|path| subject(path, &request));
    let (before, after) = (before?, after?);
    if before.model.is_some() != after.model.is_some() {
        let message = format!("{} and {}: a graph has no model to compare", before.name, after.name);
        let help =
            "compare a graph with a graph; `skipc inspect M.skp --section ir/score/legal.sir` prints one";
        return Err(Error::new(ErrorKind::Request, Diagnostic::new("usage::diff", message).help(help)));
    }
    let diff = Diff::of(&before, &after)?;
    if let Some(dir) = &args.html {
        pages::write(dir, &[("index.html".to_owned(), html::html(&diff))])?;
    }
    let shown = if json { to_json(&diff)? } else { text::text(&diff) };
    let worse = limit.map_or_else(Vec::new, |limit| diff.worse_by(limit));
    if worse.is_empty() {
        return Ok(shown);
    }
    let lines: Vec<String> = worse.into_iter().map(text::figure).collect();
    let message = format!(
        "{} grew by more than --fail-over {}:\n{}",
        counted(lines.len() as u64, "figure"),
        args.fail_over.as_deref().unwrap_or_default(),
        lines.join("\n")
    );
    // The difference itself is the output; what is worse is the error, which with `--json` stands behind it.
    out.write_all(shown.as_bytes()).map_err(|error| Error::io(Path::new("standard output"), &error))?;
    Err(Error::new(ErrorKind::Regression, Diagnostic::new("diff::worse", message)))
}

/// An artefact, a graph, or a spec, which is compiled for it.
pub(super) fn subject(path: &Path, request: &dyn Fn() -> Result<Request, Error>) -> Result<Subject, Error> {
    if path.extension().is_some_and(|extension| extension == "sir") {
        let text = regular::read_text(path, MAX_TEXT as u64).map_err(|error| Error::io(path, &error))?;
        let graph = parse(&text).map_err(|errors| {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            Diagnostic::new("sir::syntax", format!("{}: {first}", path.display()))
                .help("`skipc opt` shows where")
        })?;
        return Ok(Subject::of_graph(graph, path));
    }
    if is_artifact(path)? {
        return Subject::of_artifact(&open_index(path)?, path);
    }
    Subject::of_source(Source::open(path, None)?, path, request()?)
}

/// `5%` or `0.05`.
fn share(text: &str) -> Result<f64, Error> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().ok().map(|number| number * unit);
    share.filter(|share| share.is_finite() && *share >= 0.0).ok_or_else(|| {
        let message = format!("--fail-over: `{text}` is not a share");
        let help = "write a share such as `5%` or `0.05`";
        Error::new(ErrorKind::Request, Diagnostic::new("usage::diff", message).help(help))
    })
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_are_read() {
        assert_eq!(share("5%").ok(), Some(0.05));
        assert_eq!(share("0.25").ok(), Some(0.25));
        assert_eq!(share("0").ok(), Some(0.0));
        for text in ["", "%", "-1%", "five", "inf", "nan%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
