//! The language of the e-graph: the ops of the table, attributes included, and values from outside of the region.

use egg::{Analysis, DidMerge, Id, Language};
use skipc_ir::{Op, Type, infer};
use smallvec::SmallVec;

/// What an e-node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Head {
    /// A value that the region takes from outside, by number.
    Outside {
        /// Its number.
        idx: u32,
        /// Its type.
        ty: Type,
    },
    /// An op with its attributes.
    Op(Op),
}

/// An e-node: attributes are part of it, so that rules match them as Rust values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) head: Head,
    pub(crate) operands: SmallVec<[Id; 4]>,
}

impl Node {
    /// Op and operands, if it is no value from outside.
    pub(crate) fn view(&self) -> Option<(&Op, &[Id])> {
        match &self.head {
            Head::Op(op) => Some((op, &self.operands)),
            Head::Outside { .. } => None,
        }
    }
}

impl Language for Node {
    type Discriminant = std::mem::Discriminant<Head>;

    fn discriminant(&self) -> Self::Discriminant {
        std::mem::discriminant(&self.head)
    }

    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.operands.len() == other.operands.len()
    }

    fn children(&self) -> &[Id] {
        &self.operands
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.operands
    }
}

/// The type of each class, by the one [`infer`]. A node that has no type is never added (see [`typed`]), so a class
/// without one is a fault of a rule, as is a class of two types: the first of these is kept for the error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Typing {
    /// The two types of a class that should have had one.
    pub(crate) torn: Option<(Type, Type)>,
}

/// An e-graph of typed values.
pub(crate) type EGraph = egg::EGraph<Node, Typing>;

/// The type that a node has, or would have.
pub(crate) fn typed(egraph: &EGraph, node: &Node) -> Result<Type, String> {
    match &node.head {
        Head::Outside { ty, .. } => Ok(ty.clone()),
        Head::Op(op) => {
            let operands: Option<SmallVec<[&Type; 8]>> =
                node.operands.iter().map(|operand| egraph[*operand].data.as_ref()).collect();
            let operands = operands.ok_or_else(|| "an operand has no type".to_owned())?;
            infer(op, &operands).map_err(|error| error.to_string())
        }
    }
}

impl Analysis<Node> for Typing {
    type Data = Option<Type>;

    fn make(egraph: &mut EGraph, node: &Node, _: Id) -> Option<Type> {
        typed(egraph, node).ok()
    }

    fn merge(&mut self, kept: &mut Option<Type>, other: Option<Type>) -> DidMerge {
        if let (Some(kept), Some(other)) = (&*kept, &other)
            && kept != other
        {
            self.torn.get_or_insert_with(|| (kept.clone(), other.clone()));
        }
        DidMerge(false, false)
    }
}
