//! A block as a tree: sequences, layers with their residuals, and routes around either.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::skip::Skip;
use super::skip_table::SkipTable;
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
    /// The stream and what a layer makes of it: `x + layer(norm(x))`.
    Residual(Layer),
    /// A choice for each token whether a node runs for it.
    Route(Route),
}

/// A choice for each token whether a node runs for it. A token for which it does not run keeps its very bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Who decides, and what becomes of the decision.
    pub skip: Skip,
    /// What runs for the tokens that execute. It holds no route: exactly one decision governs a row.
    pub executed: Box<Node>,
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
    /// A layer with its index in the block.
    Layer(usize, &'b Layer),
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
    /// Its routes and layers, in the order in which they run: a route stands before what it wraps.
    pub fn parts(&self) -> Vec<Part<'_>> {
        let mut found = Parts { list: Vec::new(), n_layers: 0 };
        match &self.body {
            Node::Route(route) => found.route(Unit::Block, route),
            body => found.node(body),
        }
        found.list
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
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.parts().into_iter().filter_map(|part| match part {
            Part::Layer(_, layer) => Some(layer),
            Part::Route(..) => None,
        })
    }
}

/// Parts of a block as they are found.
struct Parts<'b> {
    list: Vec<Part<'b>>,
    n_layers: usize,
}

impl<'b> Parts<'b> {
    fn node(&mut self, node: &'b Node) {
        match node {
            Node::Sequence(nodes) => nodes.iter().for_each(|node| self.node(node)),
            Node::Residual(layer) => {
                self.list.push(Part::Layer(self.n_layers, layer));
                self.n_layers += 1;
            }
            Node::Route(route) => self.route(Unit::Layer(self.n_layers), route),
        }
    }

    fn route(&mut self, unit: Unit, route: &'b Route) {
        self.list.push(Part::Route(unit, &route.skip));
        self.node(&route.executed);
    }
}

impl Node {
    /// How many layers it has.
    pub fn n_layers(&self) -> usize {
        match self {
            Node::Sequence(nodes) => nodes.iter().map(Node::n_layers).sum(),
            Node::Residual(_) => 1,
            Node::Route(route) => route.executed.n_layers(),
        }
    }
}

/// A block as its table in a spec, which is what `--json` shows of it.
impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct InList<'b> {
            #[serde(flatten)]
            layer: &'b Layer,
            skip: Option<SkipTable>,
        }
        let of_unit = |unit| self.skip_of(unit).map(SkipTable::of);
        let layers = self.layers().enumerate();
        let layers: Vec<InList<'_>> =
            layers.map(|(idx, layer)| InList { layer, skip: of_unit(Unit::Layer(idx)) }).collect();
        let mut table = serializer.serialize_struct("Block", 3)?;
        table.serialize_field("name", &self.name)?;
        table.serialize_field("skip", &of_unit(Unit::Block))?;
        table.serialize_field("layers", &layers)?;
        table.end()
    }
}
