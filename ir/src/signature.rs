//! The interface of a graph: all its ports.

use crate::graph::{Graph, Value};
use crate::ops::Op;
use crate::port::{Direction, Port, Role};

/// The ports of a graph, each list in the order of the text form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// What the caller gives.
    pub inputs: Vec<Port>,
    /// The weights.
    pub parameters: Vec<Port>,
    /// What a step leaves for the next one: in once, out once, under the name.
    pub states: Vec<Port>,
    /// What the caller gets.
    pub results: Vec<Port>,
}

impl Graph {
    /// Its ports; an input or weight that two nodes read is one port.
    pub fn signature(&self) -> Signature {
        let mut signature = Signature::default();
        for value in self.order() {
            let (ports, port) = if let Op::Input { port } = self.op(value) {
                let is_state = port.role.direction() == Direction::Kept;
                (if is_state { &mut signature.states } else { &mut signature.inputs }, port.clone())
            } else if let Op::Weight { name, .. } = self.op(value) {
                let role = Role::Parameter { name: name.0.to_string() };
                (&mut signature.parameters, Port { role, ty: self.ty(value).clone() })
            } else {
                continue;
            };
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let port = |(role, value): (&Role, Value)| Port { role: role.clone(), ty: self.ty(value).clone() };
        let results = self.results().filter(|(role, _)| role.direction() == Direction::Out);
        signature.results = results.map(port).collect();
        signature
    }
}
