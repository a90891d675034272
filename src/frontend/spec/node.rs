//! A block as a tree: sequences, layers with their residuals, and routes around either.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::skip::Skip;
use super::skip_table::SkipTable;
use crate::frontend::build::{Build, LayerInput};
use crate::frontend::language::words::{Word, words};
use crate::frontend::layer::Layer;

/// A part of the model under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Name in the spec; blocks of one name in one model are equal.
    pub name: String,
    /// What it does with the stream: layers in order, under one decision or with decisions of their own.
    pub body: Node,
}

/// What becomes of the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// One after the other.
    Sequence(Vec<Node>),
    /// Each looks at the stream as it comes, and all that they change is added.
    Parallel(Vec<Node>),
    /// The stream and what a sub-layer makes of it.
    Residual(SubLayer),
    /// A choice for each token whether a node runs for it.
    Route(Route),
}

/// A layer with its norms: `x + post(layer(pre(x)))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubLayer {
    /// What it computes.
    pub layer: Layer,
    /// The layer of its list whose norm stands before it: its own, or one that several share; `None` if there is none.
    pub pre: Option<usize>,
    /// A norm stands behind it.
    pub post: bool,
}

/// Where the norms of a layer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before it.
    Pre,
    /// Behind it, before the residual is added.
    Post,
    /// Both.
    Both,
}

/// How the layers of a block follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each looks at what the one before it left.
    Sequence,
    /// All look at what came into the block.
    Parallel,
    /// The same, through the norm of the first.
    ParallelOneNorm,
}

words! {
    Norms { Pre = "pre", Post = "post", Both = "both" }
    Layout { Sequence = "sequence", Parallel = "parallel", ParallelOneNorm = "parallel_one_norm" }
}

impl SubLayer {
    /// A layer with these norms, the layer of this index in its list.
    pub fn new(layer: Layer, norms: Norms, idx: usize) -> SubLayer {
        SubLayer { layer, pre: (norms != Norms::Post).then_some(idx), post: norms != Norms::Pre }
    }

    /// Where its norms stand.
    pub fn norms(&self) -> Norms {
        match (self.pre, self.post) {
            (Some(_), true) => Norms::Both,
            (None, true) => Norms::Post,
            (_, false) => Norms::Pre,
        }
    }

    /// The name of the norm before it, in the block of this index.
    pub(in crate::frontend) fn pre_norm(&self, layers: Layers, block: usize) -> Option<String> {
        self.pre.map(|idx| format!("{}.norm", layers.name(block, idx)))
    }

    /// What it adds to the stream, `[rows, D]`, as the layer `idx` of these layers of a block.
    pub(in crate::frontend) fn build<B: Build>(
        &self,
        b: &mut B,
        (layers, block, idx): (Layers, usize, usize),
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error> {
        let (name, pre) = (layers.name(block, idx), self.pre_norm(layers, block));
        let change = self.layer.build(b, &name, pre.as_deref(), input)?;
        match self.post {
            true => b.norm(change, &format!("{name}.post_norm")),
            false => Ok(change),
        }
    }
}

/// A choice for each token whether a node runs for it. A token for which neither this nor another node runs keeps its very
/// bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Who decides, and what becomes of the decision.
    pub skip: Skip,
    /// What runs for the tokens that execute. It holds no route: exactly one decision governs a row.
    pub executed: Box<Node>,
    /// What runs for the others, a sequence of layers.
    pub otherwise: Option<Box<Node>>,
}

/// A list of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Those of a block.
    Block,
    /// Those of the tokens that do not execute this unit of it.
    Otherwise(Unit),
}

impl Layers {
    /// The name of the layer of this index in a block: what the names of its tensors begin with.
    pub fn name(self, block: usize, layer: usize) -> String {
        match self {
            Layers::Block => Unit::Layer(layer).name(block),
            Layers::Otherwise(Unit::Block) => format!("blocks.{block}.otherwise.{layer}"),
            Layers::Otherwise(Unit::Layer(of)) => format!("blocks.{block}.layer_otherwise.{of}.{layer}"),
        }
    }
}

/// What a route wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The whole block.
    Block,
    /// The sub-layer of this index in its block.
    Layer(usize),
}

/// A route or a layer of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'b> {
    /// A decision over what comes behind it.
    Route(Unit, &'b Skip),
    /// A layer with its index in its list.
    Layer(Layers, usize, &'b SubLayer),
}

impl Unit {
    /// Its name in the model whose block of this index it is or is in, such as `blocks.3.layers.1`: what the names of its
    /// tensors begin with.
    pub fn name(self, block: usize) -> String {
        match self {
            Unit::Block => format!("blocks.{block}"),
            Unit::Layer(layer) => format!("blocks.{block}.layers.{layer}"),
        }
    }

    /// The name of its router, such as `blocks.3.router`.
    pub fn router(self, block: usize) -> String {
        match self {
            Unit::Block => format!("blocks.{block}.router"),
            Unit::Layer(layer) => format!("blocks.{block}.layer_routers.{layer}"),
        }
    }
}

impl Block {
    /// Its routes and layers, in the order in which they run: a route stands before what it wraps, and that before what runs
    /// otherwise.
    pub fn parts(&self) -> Vec<Part<'_>> {
        let mut found = Parts { list: Vec::new(), layers: Layers::Block, n_layers: 0 };
        match &self.body {
            Node::Route(route) => found.route(Unit::Block, route),
            body => found.node(body),
        }
        found.list
    }

    /// How its layers follow each other.
    pub fn layout(&self) -> Layout {
        let body = match &self.body {
            Node::Route(route) => &*route.executed,
            body => body,
        };
        match body {
            Node::Parallel(_) if self.layers().skip(1).any(|layer| layer.pre == Some(0)) => {
                Layout::ParallelOneNorm
            }
            Node::Parallel(_) => Layout::Parallel,
            Node::Sequence(_) | Node::Residual(_) | Node::Route(_) => Layout::Sequence,
        }
    }

    /// Its decision over this unit, if there is one.
    pub fn skip_of(&self, unit: Unit) -> Option<&Skip> {
        self.routes().find(|(of, _)| *of == unit).map(|(_, skip)| skip)
    }

    /// Its decisions, in the order of the routers.
    pub fn skips(&self) -> impl Iterator<Item = &Skip> {
        self.routes().map(|(_, skip)| skip)
    }

    /// Its decisions with what they are over, in the order of the routers.
    pub fn routes(&self) -> impl Iterator<Item = (Unit, &Skip)> {
        self.parts().into_iter().filter_map(|part| match part {
            Part::Route(unit, skip) => Some((unit, skip)),
            Part::Layer(..) => None,
        })
    }

    /// Its layers, in order.
    pub fn layers(&self) -> impl Iterator<Item = &SubLayer> {
        self.layers_in(Layers::Block)
    }

    /// The layers of one of its lists, in order.
    pub fn layers_in(&self, layers: Layers) -> impl Iterator<Item = &SubLayer> {
        self.parts().into_iter().filter_map(move |part| match part {
            Part::Layer(of, _, layer) if of == layers => Some(layer),
            Part::Layer(..) | Part::Route(..) => None,
        })
    }
}

/// Parts of a block as they are found.
struct Parts<'b> {
    list: Vec<Part<'b>>,
    layers: Layers,
    n_layers: usize,
}

impl<'b> Parts<'b> {
    fn node(&mut self, node: &'b Node) {
        match node {
            Node::Sequence(nodes) | Node::Parallel(nodes) => {
                nodes.iter().for_each(|node| self.node(node));
            }
            Node::Residual(layer) => {
                self.list.push(Part::Layer(self.layers, self.n_layers, layer));
                self.n_layers += 1;
            }
            Node::Route(route) => self.route(Unit::Layer(self.n_layers), route),
        }
    }

    fn route(&mut self, unit: Unit, route: &'b Route) {
        self.list.push(Part::Route(unit, &route.skip));
        self.node(&route.executed);
        if let Some(otherwise) = &route.otherwise {
            let (layers, n_layers) = (self.layers, self.n_layers);
            (self.layers, self.n_layers) = (Layers::Otherwise(unit), 0);
            self.node(otherwise);
            (self.layers, self.n_layers) = (layers, n_layers);
        }
    }
}

impl Node {
    /// The first layer of it.
    pub fn first_layer(&self) -> Option<&SubLayer> {
        match self {
            Node::Sequence(nodes) | Node::Parallel(nodes) => nodes.first().and_then(Node::first_layer),
            Node::Residual(layer) => Some(layer),
            Node::Route(route) => route.executed.first_layer(),
        }
    }

    /// How many of its layers look at other tokens.
    pub fn n_mixing(&self) -> usize {
        match self {
            Node::Sequence(nodes) | Node::Parallel(nodes) => nodes.iter().map(Node::n_mixing).sum(),
            Node::Residual(of) => usize::from(of.layer.mixes_tokens()),
            Node::Route(route) => route.executed.n_mixing(),
        }
    }

    /// How many layers of its block it has; those that run otherwise are not among them.
    pub fn n_layers(&self) -> usize {
        match self {
            Node::Sequence(nodes) | Node::Parallel(nodes) => nodes.iter().map(Node::n_layers).sum(),
            Node::Residual(_) => 1,
            Node::Route(route) => route.executed.n_layers(),
        }
    }
}

/// A skip as its table in a spec.
#[derive(serde::Serialize)]
struct SkipShown<'b> {
    #[serde(flatten)]
    table: SkipTable,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    otherwise: Vec<LayerShown<'b>>,
}

/// A layer as its table in a spec.
#[derive(serde::Serialize)]
struct LayerShown<'b> {
    #[serde(flatten)]
    layer: &'b Layer,
    #[serde(skip_serializing_if = "Option::is_none")]
    norms: Option<&'static str>,
}

impl LayerShown<'_> {
    fn of(of: &SubLayer) -> LayerShown<'_> {
        LayerShown { layer: &of.layer, norms: (of.norms() != Norms::Pre).then(|| of.norms().word()) }
    }
}

/// A block as its table in a spec, which is what `--json` shows of it.
impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct InList<'b> {
            #[serde(flatten)]
            layer: LayerShown<'b>,
            skip: Option<SkipShown<'b>>,
        }
        let of_unit = |unit| {
            self.skip_of(unit).map(|skip| SkipShown {
                table: SkipTable::of(skip),
                otherwise: self.layers_in(Layers::Otherwise(unit)).map(LayerShown::of).collect(),
            })
        };
        let layers = self.layers().enumerate();
        let layers: Vec<InList<'_>> = layers
            .map(|(idx, of)| InList { layer: LayerShown::of(of), skip: of_unit(Unit::Layer(idx)) })
            .collect();
        let mut table = serializer.serialize_struct("Block", 4)?;
        table.serialize_field("name", &self.name)?;
        match self.layout() {
            Layout::Sequence => table.skip_field("layout")?,
            layout => table.serialize_field("layout", layout.word())?,
        }
        table.serialize_field("skip", &of_unit(Unit::Block))?;
        table.serialize_field("layers", &layers)?;
        table.end()
    }
}
