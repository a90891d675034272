//! What is different between two models: options, spec, graphs by phase, kernels, memory, predicted cost, size of code.

pub mod figures;
pub mod graph;
pub mod html;
pub mod kernels;
pub mod text;
pub mod tree;

use serde::Serialize;
use serde_json::Value;

use self::figures::Figure;
use self::graph::NodeChange;
use self::kernels::KernelChange;
use self::tree::Change;
use super::Subject;
use crate::error::Error;

/// How two subjects differ. Everything that is the same is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// The first, as users call it.
    pub before: String,
    /// The second.
    pub after: String,
    /// Whether nothing differs.
    pub same: bool,
    /// Options of the compile, each on the side that has it.
    pub options: Vec<Change>,
    /// Other facts about where they come from: versions, weights, promises.
    pub provenance: Vec<Change>,
    /// The resolved models.
    pub model: Vec<Change>,
    /// Graphs, by function and phase.
    pub graphs: Vec<GraphDiff>,
    /// Kernels, by kind of target and precision.
    pub kernels: Vec<KernelsDiff>,
    /// Memory, predicted cost and measured size of code.
    pub figures: Vec<Figure>,
}

/// How a function's graph differs after a phase.
#[derive(Clone, Debug, Serialize)]
pub struct GraphDiff {
    /// The function.
    pub function: String,
    /// The phase.
    pub phase: String,
    /// Nodes before and after; none where there is no such graph.
    pub nodes: [Option<usize>; 2],
    /// What differs.
    pub changes: Vec<NodeChange>,
}

/// How the kernels of a kind of target differ.
#[derive(Clone, Debug, Serialize)]
pub struct KernelsDiff {
    /// Such as `cpu-f32`, or what both are called, as `cpu-f32 → cpu-bf16`.
    pub plan: String,
    /// Kernels before and after.
    pub kernels: [Option<usize>; 2],
    /// What differs.
    pub changes: Vec<KernelChange>,
}

impl Diff {
    /// Compares two subjects.
    ///
    /// # Errors
    /// A cost model without the machine that a program is for: a fault of skipc.
    pub fn of(before: &Subject, after: &Subject) -> Result<Diff, Error> {
        let mut diff = Diff {
            before: before.name.clone(),
            after: after.name.clone(),
            same: false,
            options: options(before, after),
            provenance: tree::changes(&provenance(before), &provenance(after)),
            model: tree::changes(&model(before)?, &model(after)?),
            graphs: graphs(before, after),
            kernels: kernels::changes(before, after),
            figures: figures::changes(before, after),
        };
        diff.same = diff.options.is_empty()
            && diff.provenance.is_empty()
            && diff.model.is_empty()
            && diff.graphs.is_empty()
            && diff.kernels.is_empty()
            && diff.figures.is_empty();
        Ok(diff)
    }

    /// The figures that grew by more than this share.
    pub fn worse_by(&self, share: f64) -> Vec<&Figure> {
        self.figures.iter().filter(|figure| figure.growth().is_some_and(|growth| growth > share)).collect()
    }
}

/// Options by their names, so that one with another value is one change.
fn options(before: &Subject, after: &Subject) -> Vec<Change> {
    let tree = |subject: &Subject| {
        let mut tree = serde_json::Map::new();
        for option in &subject.options {
            // `--target cpu --dtype f32` is two options of one target.
            let words: Vec<&str> = option.split(' ').collect();
            let (name, value) = match words.as_slice() {
                ["--target", target, "--dtype", dtype] => {
                    (format!("--target {target}"), format!("--dtype {dtype}"))
                }
                [name, rest @ ..] => ((*name).to_owned(), rest.join(" ")),
                [] => continue,
            };
            tree.insert(name, Value::String(value));
        }
        Value::Object(tree)
    };
    tree::changes(&tree(before), &tree(after))
}

/// What a manifest says but for what is compared elsewhere: options, and the spec, of which the hash is one.
fn provenance(subject: &Subject) -> Value {
    let mut manifest = serde_json::to_value(&subject.manifest).unwrap_or_default();
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("flags");
        fields.remove("spec_hash");
        fields.remove("targets");
        fields.remove("model");
    }
    if manifest.is_null() { Value::Object(serde_json::Map::new()) } else { manifest }
}

fn model(subject: &Subject) -> Result<Value, Error> {
    let text = subject.model.as_ref().map(ToString::to_string).unwrap_or_default();
    toml_edit::de::from_str(&text).map_err(|error| Error::internal("report::spec", &error))
}

/// Graphs of the same function and phase; phases that only one side has are named alone.
fn graphs(before: &Subject, after: &Subject) -> Vec<GraphDiff> {
    let places = |subject: &Subject| -> Vec<(String, String)> {
        let functions = subject.functions.iter();
        let of =
            functions.flat_map(|of| of.phases.iter().map(move |phase| (of.name.clone(), phase.name.clone())));
        of.collect()
    };
    let mut all = places(before);
    all.extend(places(after).into_iter().filter(|place| !places(before).contains(place)));
    let diff = |(function, phase): (String, String)| {
        let sides = [before, after].map(|subject| subject.graph(&function, &phase));
        let changes = match sides {
            [Some(before), Some(after)] => graph::changes(before, after),
            _ => Vec::new(),
        };
        let nodes = sides.map(|graph| graph.map(skipc_ir::Graph::len));
        let differs = !changes.is_empty() || nodes[0].is_none() || nodes[1].is_none();
        differs.then_some(GraphDiff { function, phase, nodes, changes })
    };
    all.into_iter().filter_map(diff).collect()
}
