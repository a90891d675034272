//! Which choices tokens got in layers of experts, as results.

use skipc_ir::attr::{F64, Shape};
use skipc_ir::interp::functions::NO_CHOICE;
use skipc_ir::{Dim, Elem, Op, Port, Role, Type, Value};

use super::nodes::Placed;
use super::{Ctx, LowerError};
use crate::frontend::build::{Build, LayerInput};
use crate::frontend::layer::Layer;
use crate::frontend::spec::node::Node;

impl Ctx<'_> {
    /// Notes which of so many choices the rows of a layer got.
    pub(super) fn note_choices(
        &mut self,
        of: usize,
        (index, start, len): (Value, u32, u32),
        LayerInput { rows, executed, .. }: LayerInput<Value>,
    ) -> Result<(), LowerError> {
        let is_all = start == 0 && self.graph.ty(index).cols() == len;
        let index = if is_all { index } else { self.add(Op::Slice { start, len }, &[index])? };
        let index = match (rows.set, executed) {
            (None, None) => index,
            (Some(set), _) => self.spread(index, set)?,
            (None, Some(set)) => {
                let rows = self.add(Op::Gather {}, &[index, set])?;
                self.spread(rows, set)?
            }
        };
        self.choices.push((u32::try_from(of).unwrap_or(u32::MAX), index));
        Ok(())
    }

    /// What replays the choices of the next layer.
    pub(super) fn input_of_choices(
        &mut self,
        of: usize,
        places: usize,
        set: Option<Value>,
    ) -> Result<Value, LowerError> {
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let role = Role::ForcedChoices { layer: number(self.choices.len()), of: number(of) };
        let ty = Type::tensor(Elem::F32, &[Dim::Tokens, Dim::Fixed(number(places))]);
        let choices = self.add(Op::Input { port: Port { role, ty } }, &[])?;
        set.map_or(Ok(choices), |set| self.add(Op::Gather {}, &[choices, set]))
    }

    /// Notes that nobody has a choice in the layers of experts among these.
    pub(super) fn note_no_choices(&mut self, nodes: &[Placed<'_>]) -> Result<(), LowerError> {
        for (node, _) in nodes {
            self.note_none(node)?;
        }
        Ok(())
    }

    fn note_none(&mut self, node: &Node) -> Result<(), LowerError> {
        match node {
            Node::Sequence(nodes) | Node::Parallel(nodes) => {
                nodes.iter().try_for_each(|node| self.note_none(node))
            }
            Node::Residual(of) => match of.layer {
                Layer::Experts(experts) => {
                    let none = self.no_choices(u32::try_from(experts.places()).unwrap_or(u32::MAX))?;
                    self.choices.push((u32::try_from(experts.choices()).unwrap_or(u32::MAX), none));
                    Ok(())
                }
                Layer::Attention(_) | Layer::Ffn(_) | Layer::Conv(_) | Layer::Linear(_) => Ok(()),
            },
            Node::Route(route) => {
                self.note_none(&route.executed)?;
                route.otherwise.iter().try_for_each(|otherwise| self.note_none(otherwise))
            }
        }
    }

    /// The choices of the rows of a set, and none of others.
    fn spread(&mut self, index: Value, set: Value) -> Result<Value, LowerError> {
        let none = self.no_choices(self.graph.ty(index).cols())?;
        self.add(Op::Scatter {}, &[none, index, set])
    }

    /// No choice for every token.
    fn no_choices(&mut self, len: u32) -> Result<Value, LowerError> {
        let none = self.add(Op::Fill { value: F64::from(NO_CHOICE), shape: Shape(vec![len]) }, &[])?;
        self.add(Op::RepeatRow {}, &[none, self.all.positions])
    }
}
