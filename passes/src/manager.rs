//! Runs passes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use skipc_ir::legal::LegalError;
use skipc_ir::text::{Numbering, parse, print};
use skipc_ir::verify::VerifyError;
use skipc_ir::{Facts, Graph, Value, verify};

use crate::patch::{self, Applied, PatchError};
use crate::rewrite::explain::Rewritten;
use crate::rewrite::{RewriteError, Rewrites};
use crate::table::{self, PassInfo, Run};
use crate::{Options, Patch, TABLE};

/// Rounds after which a pass that still has edits is at fault. A round of `canonicalize` halves every chain that it
/// shortens, so the longest chain of the largest graph takes 20.
const MAX_ROUNDS: usize = 64;

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Each pass that ran, in order.
    pub passes: Vec<PassReport>,
    /// What rules rewrote: each distinct region once.
    pub rewrites: Vec<Rewritten>,
}

/// What one pass did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassReport {
    /// Its name.
    pub name: &'static str,
    /// How often each kind of edit was made.
    pub edits: BTreeMap<&'static str, u64>,
    /// Nodes before it.
    pub nodes_before: usize,
    /// Nodes after it.
    pub nodes_after: usize,
    /// How long it took, verification included. Differs from run to run: not for outputs that are compared.
    pub wall: Duration,
}

/// Why passes did not run to their end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No pass has this name: the fault of who wrote the list.
    #[error("unknown pass `{name}`{}; there are {}", did_you_mean(name), names())]
    UnknownPass {
        /// The name.
        name: String,
    },
    /// The graph that passes should start from is not well-formed.
    #[error("the graph is not well-formed\n{}", lines(errors))]
    Input {
        /// What is wrong with it.
        errors: Vec<VerifyError>,
    },
    /// A pass returned an edit that cannot be made: its own fault.
    #[error("pass `{pass}`: {error}")]
    Patch {
        /// The pass.
        pass: &'static str,
        /// What is wrong with the edit.
        error: Box<PatchError>,
    },
    /// A rule of a pass is wrong: its own fault.
    #[error("pass `{pass}`: {error}")]
    Rewrite {
        /// The pass.
        pass: &'static str,
        /// What is wrong.
        error: RewriteError,
    },
    /// A pass made a graph that is not well-formed: its own fault.
    #[error("pass `{pass}` broke the graph\n{}", lines(errors))]
    Broken {
        /// The pass.
        pass: &'static str,
        /// What is wrong with the graph.
        errors: Vec<VerifyError>,
    },
    /// A pass always finds something to do: its own fault.
    #[error("pass `{pass}` did not converge in {MAX_ROUNDS} rounds of edits")]
    Restless {
        /// The pass.
        pass: &'static str,
    },
    /// The text form of a graph reads back as another: a fault of printer or parser.
    #[error("after pass `{pass}` the text form does not read back: {what}")]
    Text {
        /// The pass.
        pass: &'static str,
        /// What the parser says, or the text that is not the same.
        what: String,
    },
    /// A gate refused the graph: the model asks for what the backends cannot do.
    #[error("`{pass}` refused the graph\n{}", lines(errors))]
    Refused {
        /// The gate.
        pass: &'static str,
        /// Why.
        errors: Vec<LegalError>,
    },
}

impl Error {
    /// The word in `error[…]`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::UnknownPass { .. } => "passes::unknown",
            Error::Input { errors } | Error::Broken { errors, .. } => {
                errors.first().map_or("passes::broken", VerifyError::code)
            }
            Error::Patch { .. } => "passes::patch",
            Error::Rewrite { .. } => "passes::rewrite",
            Error::Restless { .. } => "passes::restless",
            Error::Text { .. } => "passes::text",
            Error::Refused { errors, .. } => errors.first().map_or("passes::broken", LegalError::code),
        }
    }
}

/// Code and explanation of the errors of this crate, sorted by code, for `skipc explain`. What a gate or the verifier
/// finds has its own code, see [`skipc_ir::codes`].
pub const CODES: &[(&str, &str)] = &[
    (
        "passes::broken",
        "A pass made a graph that is not well-formed. This is a fault of the compiler; `--fuel` finds the edit.",
    ),
    ("passes::patch", "A pass wanted an edit that cannot be made. This is a fault of the compiler."),
    (
        "passes::restless",
        "A pass did not converge: it always finds something to do. This is a fault of the compiler.",
    ),
    (
        "passes::rewrite",
        "A rule of `saturate` equates what is not equal: types differ, or values where nothing rounds. This is a fault of the compiler; passes without `saturate` do not have it.",
    ),
    ("passes::text", "A graph printed as text reads back as another. This is a fault of the compiler."),
    ("passes::unknown", "The list of passes names one that does not exist; `skipc passes` lists them."),
];

/// Runs the passes of this list, in order. After each of them, `dump` gets its name and the graph.
///
/// # Errors
/// If a name is unknown (nothing has run then), the graph is not well-formed, a gate refuses it, or a pass is at fault.
pub fn run(
    graph: Graph,
    names: &[impl AsRef<str>],
    options: &Options,
    dump: &mut dyn FnMut(&str, &Graph),
) -> Result<Graph, Error> {
    run_reported(graph, names, options, dump).map(|(graph, _)| graph)
}

/// As [`run`], and says what each pass did.
///
/// # Errors
/// As [`run`].
pub fn run_reported(
    graph: Graph,
    names: &[impl AsRef<str>],
    options: &Options,
    dump: &mut dyn FnMut(&str, &Graph),
) -> Result<(Graph, Report), Error> {
    let passes: Vec<&PassInfo> = names
        .iter()
        .map(|name| {
            let name = name.as_ref();
            table::find(name).ok_or_else(|| Error::UnknownPass { name: name.to_owned() })
        })
        .collect::<Result<_, _>>()?;
    let facts = verify(&graph).map_err(|errors| Error::Input { errors })?;
    let mut ctx = Ctx { graph, facts, fuel: options.fuel, rewrites: Vec::new(), tracked: Vec::new() };
    let mut report = Report::default();
    for pass in passes {
        let (started, nodes_before) = (Instant::now(), ctx.graph.len());
        let edits = match pass.run {
            Run::Edit(find) => ctx.edit(pass.name, find)?,
            Run::Rewrite(find) => {
                let rewrites = find(&ctx.graph, &ctx.facts, options)
                    .map_err(|error| Error::Rewrite { pass: pass.name, error })?;
                ctx.rewrite(pass.name, rewrites)?
            }
            Run::Gate(check) => {
                check(&ctx.graph).map_err(|errors| Error::Refused { pass: pass.name, errors })?;
                BTreeMap::new()
            }
        };
        if options.verify_each {
            check_text(pass.name, &ctx.graph)?;
        }
        let (wall, nodes_after) = (started.elapsed(), ctx.graph.len());
        report.passes.push(PassReport { name: pass.name, edits, nodes_before, nodes_after, wall });
        dump(pass.name, &ctx.graph);
    }
    report.rewrites = ctx.numbered_rewrites();
    Ok((ctx.graph, report))
}

struct Ctx {
    graph: Graph,
    facts: Facts,
    fuel: Option<u64>,
    rewrites: Vec<Rewritten>,
    /// Where values are that rules made.
    tracked: Vec<Tracked>,
}

/// The values of the chains of one place.
struct Tracked {
    rewritten: usize,
    place: usize,
    values: Vec<Option<Value>>,
}

impl Ctx {
    /// Asks the pass for edits until it has none.
    fn edit(
        &mut self,
        pass: &'static str,
        find: fn(&Graph, &Facts) -> Vec<Patch>,
    ) -> Result<BTreeMap<&'static str, u64>, Error> {
        let mut edits = BTreeMap::new();
        for _ in 0..MAX_ROUNDS {
            let patches = find(&self.graph, &self.facts);
            if self.apply(pass, &patches, &mut edits)?.is_none() {
                return Ok(edits);
            }
        }
        Err(Error::Restless { pass })
    }

    /// Makes the edits of rules, and keeps what they say of themselves.
    fn rewrite(
        &mut self,
        pass: &'static str,
        rewrites: Rewrites,
    ) -> Result<BTreeMap<&'static str, u64>, Error> {
        let Rewrites { patches, regions, made } = rewrites;
        let mut edits = BTreeMap::new();
        let Some(applied) = self.apply(pass, &patches, &mut edits)? else { return Ok(edits) };
        let first = self.rewrites.len();
        self.rewrites.extend(regions);
        // The fuel may not have been enough for all places.
        let n_made = edits.values().sum::<u64>() as usize;
        for (patch, (region, place, operands)) in made.into_iter().enumerate() {
            let rewritten = first + region;
            if patch < n_made {
                let values = operands.into_iter().map(|operand| applied.value(patch, operand)).collect();
                self.tracked.push(Tracked { rewritten, place, values });
            } else {
                self.rewrites[rewritten].places.truncate(place);
            }
        }
        Ok(edits)
    }

    /// Makes these edits, or as many as the fuel is for; returns what they did, if there were any.
    fn apply(
        &mut self,
        pass: &'static str,
        patches: &[Patch],
        edits: &mut BTreeMap<&'static str, u64>,
    ) -> Result<Option<Applied>, Error> {
        let mut patches = patches;
        if let Some(fuel) = &mut self.fuel {
            patches = &patches[..patches.len().min(usize::try_from(*fuel).unwrap_or(usize::MAX))];
            *fuel -= patches.len() as u64;
        }
        if patches.is_empty() {
            return Ok(None);
        }
        let applied = patch::apply(&mut self.graph, patches)
            .map_err(|error| Error::Patch { pass, error: error.into() })?;
        self.facts = verify(&self.graph).map_err(|errors| Error::Broken { pass, errors })?;
        for patch in patches {
            *edits.entry(patch.why()).or_default() += 1;
        }
        // The graph gives the number of a node that has gone to the next new one, so this is the time to forget it.
        for value in self.tracked.iter_mut().flat_map(|tracked| &mut tracked.values) {
            *value = value.map(|value| applied.now(value)).filter(|value| self.graph.contains(*value));
        }
        Ok(Some(applied))
    }

    /// The rewrites, with the numbers that their values have in the graph as it is now.
    fn numbered_rewrites(&mut self) -> Vec<Rewritten> {
        let mut rewrites = std::mem::take(&mut self.rewrites);
        if rewrites.is_empty() {
            return rewrites;
        }
        let numbering = Numbering::new(&self.graph);
        for Tracked { rewritten, place, values } in &self.tracked {
            let number = |value: &Option<Value>| {
                value.filter(|value| self.graph.contains(*value)).map(|value| numbering.number(value))
            };
            rewrites[*rewritten].places[*place].results = values.iter().map(number).collect();
        }
        rewrites.retain(|rewritten| !rewritten.places.is_empty());
        rewrites
    }
}

fn check_text(pass: &'static str, graph: &Graph) -> Result<(), Error> {
    let text = print(graph);
    let what = match parse(&text) {
        Ok(read) if print(&read) == text => return Ok(()),
        Ok(read) => print(&read),
        Err(errors) => lines(&errors),
    };
    Err(Error::Text { pass, what })
}

fn lines<E: std::fmt::Display>(errors: &[E]) -> String {
    errors.iter().map(E::to_string).collect::<Vec<_>>().join("\n")
}

fn names() -> String {
    TABLE.iter().map(|info| info.name).collect::<Vec<_>>().join(", ")
}

fn did_you_mean(name: &str) -> String {
    skipc_ir::text::nearest(name, TABLE.iter().map(|info| info.name))
        .map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default()
}
