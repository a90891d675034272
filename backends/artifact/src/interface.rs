//! What a function takes, keeps and gives: its ports, each with a role.
//!
//! A role says what a value means, so nobody finds one by an index or by the spelling of a name. The IR gives the
//! values of a function's signature roles; the planner binds each to a buffer, and from then on the list of
//! [`Bound`] ports is the one place that says which buffer is what: the verifier, the checker, the kernel interpreter
//! and the runtime all read it.
//!
//! | role | who writes it | shape |
//! | --- | --- | --- |
//! | [`Role::Tokens`], [`Role::Positions`], [`Role::Sequences`] | the caller | `u32 [n, 1]` |
//! | [`Role::Requests`], [`Role::Places`] | the caller, of functions with a cache | `u32 [n, 1]` |
//! | [`Role::Margins`] | the caller, if not 0, of functions that have it | `f32 [n, 1]` |
//! | [`Role::Pages`] | the caller, of functions with a cache | `u32 [n, pages of a sequence]` |
//! | [`Role::Pending`] | the caller, of functions whose keys wait | `u32 [n, routers + 1]` |
//! | [`Role::LogitRows`] | the caller, of functions that have it | `u32 [n, 1]` |
//! | [`Role::Rows`] | the caller, of functions that take them in place of [`Role::Tokens`] | numbers `[n, columns]` |
//! | [`Role::Input`] | the caller | any; a set of tokens is the list of its rows, `u32 [n, 1]` |
//! | [`Role::SetCount`] | the runtime, of an input that is a set | `u32 [1, 1]` |
//! | [`Role::SetMask`] | the runtime, of an input that is a set | `u8 [n, 1]` |
//! | [`Role::Logits`] | the step | `f32 [n, columns of the logits]` |
//! | [`Role::Decision`] | the step | `u8 [n, 1]`, 1 where the token executes |
//! | [`Role::Wanted`] | the step | `u32 [1, 1]` |
//! | [`Role::WantedMask`] | the step, of functions of training | `u8 [n, 1]`, 1 where the token would execute |
//! | [`Role::Choices`] | the step | `f32 [n, choices of a token]`, −1 where there is none |
//! | [`Role::Result`] | the step | any |
//! | [`Role::State`] | the step; kept until the next one | any, with a fixed number of rows or those of a cache |
//! | [`Role::PromptState`] | the step that begins a sequence; kept for all that go on with it | any, with the rows of a cache |
//! | [`Role::Parameter`] | the compile | any |
//! | [`Role::TokenCount`], [`Role::UseForced`] | the runtime | `u32 [1, 1]` |
//! | [`Role::Forced`], [`Role::ForcedWanted`] | the caller, if it replays decisions | `u8 [n, 1]` |
//! | [`Role::UseForcedChoices`] | the runtime | `u32 [1, 1]` |
//! | [`Role::ForcedChoices`] | the caller, if it replays choices | as [`Role::Choices`] |
//! | [`Role::LogitCount`] | the runtime | `u32 [1, 1]` |
//! | [`Role::Executed`] | the step | `u32 [1, 1]` |

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::program::{PAGE_ROWS, RowBound};
use crate::target::DType;

/// What a value at the border of a function means. Routers are numbered in model order, from 0 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Role {
    /// Token ids, all sequences one after the other.
    Tokens,
    /// Numbers in place of token ids, a row for each token.
    Rows,
    /// Position of each token in its sequence.
    Positions,
    /// Index of each token's sequence, ascending.
    Sequences,
    /// The number of each token's request, which random decisions are drawn for: what a sequence is called to all steps.
    Requests,
    /// The row of the caches at which each token lies.
    Places,
    /// The pages of the caches in which the tokens of each sequence lie, in order: a row for each sequence of the step,
    /// [`PAGE_ROWS`] tokens a page. Rows past the last sequence mean nothing.
    Pages,
    /// What waits in each sequence, a row for each of the step as for [`Role::Pages`]: for each router the first position whose
    /// keys and values its layers have not computed, and last how many positions may wait before they are.
    Pending,
    /// What each token's score has to be above a router's threshold for the token to execute: 0 for what the model means, more for a
    /// draft of it with fewer layers.
    Margins,
    /// The rows whose logits are wanted, ascending.
    LogitRows,
    /// A tensor of this name from the caller.
    Input {
        /// Its name.
        name: String,
    },
    /// How many rows the set has that the input of this name is. Only compiled functions have it.
    SetCount {
        /// The input.
        name: String,
    },
    /// 1 for each token of the set that the input of this name is. Only compiled functions have it, if they need it.
    SetMask {
        /// The input.
        name: String,
    },
    /// A row for each token: scores over the vocabulary, or the stream itself of a model without a head.
    Logits,
    /// Whether each token executes what this router decides about.
    Decision {
        /// The router.
        router: u32,
    },
    /// How many tokens this router would have let execute but for its capacity; routers without one have none.
    Wanted {
        /// The router.
        router: u32,
    },
    /// Whether each token would execute but for the router's capacity; routers without one have none. Functions of training have
    /// it, which need to know which tokens they are.
    WantedMask {
        /// The router.
        router: u32,
    },
    /// Which choices each token got in a layer of experts, in ascending order: whole numbers below `of`, and −1 in places that
    /// are empty. Layers are numbered in the order in which they run, each repetition for itself.
    Choices {
        /// The layer.
        layer: u32,
        /// How many choices it has.
        of: u32,
    },
    /// Choices to replay in a layer of experts, as [`Role::Choices`] gives them; compiled functions read it where
    /// [`Role::UseForcedChoices`] is 1.
    ForcedChoices {
        /// The layer.
        layer: u32,
        /// How many choices it has.
        of: u32,
    },
    /// 1 if choices of experts are replayed, else 0. Only compiled functions have it.
    UseForcedChoices,
    /// A tensor of this name for the caller.
    Result {
        /// Its name.
        name: String,
    },
    /// A value that one step leaves for the next.
    State {
        /// Its name.
        name: String,
    },
    /// What the step that begins a sequence leaves for all later tokens of it: that step has to have the whole prompt.
    PromptState {
        /// Its name.
        name: String,
    },
    /// A weight of the model.
    Parameter {
        /// Its name.
        name: String,
    },
    /// How many rows' logits are wanted. Only compiled functions have it.
    LogitCount,
    /// N, the number of tokens of the step. Only compiled functions have it: the runtime knows it from the inputs.
    TokenCount,
    /// 1 if decisions are replayed, else 0. Only compiled functions have it.
    UseForced,
    /// Decisions to replay, read where [`Role::UseForced`] is 1. Only compiled functions have it.
    Forced {
        /// The router. Routers that were found equal share a buffer.
        router: u32,
    },
    /// What a router wanted, to be replayed beside [`Role::Forced`]. Only compiled functions have it.
    ForcedWanted {
        /// The router.
        router: u32,
    },
    /// How many tokens execute. Only compiled functions have it.
    Executed {
        /// The router.
        router: u32,
    },
}

/// Who writes the value of a port, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The caller or the runtime, before the step.
    In,
    /// The step, for the caller.
    Out,
    /// The step, for the next step: it is read before it is written.
    Kept,
    /// The compile: it never changes.
    Constant,
}

/// Type and size of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Type of its elements.
    pub dtype: DType,
    /// Its rows.
    pub rows: RowBound,
    /// Its columns.
    pub cols: u32,
}

/// What the shapes of ports depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Columns of the logits.
    pub logits: u32,
    /// Largest length of a sequence.
    pub max_positions: u32,
}

impl Role {
    /// Who writes it.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self {
            Role::Tokens
            | Role::Rows
            | Role::Positions
            | Role::Sequences
            | Role::Requests
            | Role::Places
            | Role::Pages
            | Role::Pending
            | Role::Margins
            | Role::LogitRows
            | Role::LogitCount
            | Role::Input { .. }
            | Role::SetCount { .. }
            | Role::SetMask { .. }
            | Role::TokenCount
            | Role::UseForced
            | Role::UseForcedChoices
            | Role::ForcedChoices { .. }
            | Role::Forced { .. }
            | Role::ForcedWanted { .. } => Direction::In,
            Role::Logits
            | Role::Decision { .. }
            | Role::Wanted { .. }
            | Role::WantedMask { .. }
            | Role::Choices { .. }
            | Role::Result { .. }
            | Role::Executed { .. } => Direction::Out,
            Role::State { .. } | Role::PromptState { .. } => Direction::Kept,
            Role::Parameter { .. } => Direction::Constant,
        }
    }

    /// The shape that a compiled function gives this role; `None` if any will do.
    #[must_use]
    pub fn shape(&self, sizes: Sizes) -> Option<Shape> {
        let Sizes { logits, max_positions } = sizes;
        let (dtype, rows, cols) = match self {
            Role::Tokens
            | Role::Positions
            | Role::Sequences
            | Role::Requests
            | Role::Places
            | Role::LogitRows => (DType::U32, RowBound::Tokens, 1),
            Role::Margins => (DType::F32, RowBound::Tokens, 1),
            Role::Pages => (DType::U32, RowBound::Tokens, max_positions.div_ceil(PAGE_ROWS)),
            Role::Logits => (DType::F32, RowBound::Tokens, logits),
            Role::Decision { .. }
            | Role::Forced { .. }
            | Role::SetMask { .. }
            | Role::WantedMask { .. }
            | Role::ForcedWanted { .. } => (DType::U8, RowBound::Tokens, 1),
            Role::TokenCount
            | Role::UseForced
            | Role::UseForcedChoices
            | Role::LogitCount
            | Role::SetCount { .. }
            | Role::Wanted { .. }
            | Role::Executed { .. } => (DType::U32, RowBound::Fixed(1), 1),
            Role::Pending
            | Role::Rows
            | Role::Input { .. }
            | Role::Choices { .. }
            | Role::ForcedChoices { .. }
            | Role::Result { .. }
            | Role::State { .. }
            | Role::PromptState { .. }
            | Role::Parameter { .. } => return None,
        };
        Some(Shape { dtype, rows, cols })
    }

    /// The name of the state that it is; `None` if it is none.
    #[must_use]
    pub fn state_name(&self) -> Option<&str> {
        match self {
            Role::State { name } | Role::PromptState { name } => Some(name),
            _ => None,
        }
    }
}

/// As messages name it, such as `decision of router 3`.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Tokens => f.write_str("tokens"),
            Role::Rows => f.write_str("rows"),
            Role::Positions => f.write_str("positions"),
            Role::Sequences => f.write_str("sequences"),
            Role::Requests => f.write_str("requests"),
            Role::Places => f.write_str("places"),
            Role::Pages => f.write_str("pages"),
            Role::Pending => f.write_str("pending"),
            Role::Margins => f.write_str("margins"),
            Role::LogitRows => f.write_str("logit rows"),
            Role::LogitCount => f.write_str("n_logit_rows"),
            Role::Input { name } => write!(f, "input {name}"),
            Role::SetCount { name } => write!(f, "rows of set {name}"),
            Role::SetMask { name } => write!(f, "mask of set {name}"),
            Role::Logits => f.write_str("logits"),
            Role::Decision { router } => write!(f, "decision of router {router}"),
            Role::Wanted { router } => write!(f, "wanted of router {router}"),
            Role::WantedMask { router } => write!(f, "wanted mask of router {router}"),
            Role::Choices { layer, of } => write!(f, "choices of layer {layer} of {of}"),
            Role::ForcedChoices { layer, of } => write!(f, "forced choices of layer {layer} of {of}"),
            Role::UseForcedChoices => f.write_str("use_forced_choices"),
            Role::Result { name } => write!(f, "result {name}"),
            Role::State { name } => write!(f, "state {name}"),
            Role::PromptState { name } => write!(f, "prompt state {name}"),
            Role::Parameter { name } => write!(f, "parameter {name}"),
            Role::TokenCount => f.write_str("n_tokens"),
            Role::UseForced => f.write_str("use_forced"),
            Role::Forced { router } => write!(f, "forced decision of router {router}"),
            Role::ForcedWanted { router } => write!(f, "forced wanted mask of router {router}"),
            Role::Executed { router } => write!(f, "executed of router {router}"),
        }
    }
}

/// What stands behind a port of a compiled function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// A buffer, by its index.
    Buffer(u32),
    /// The same decision for every token (`always`, `never`, `highway`): no code asks.
    Always(bool),
}

/// A port of a compiled function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// What it means.
    pub role: Role,
    /// Where it is.
    pub to: Binding,
    /// The buffer that counts its rows, `u32 [1, 1]`, if they are those of a set: the rows of the buffer past them mean nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// The ports of one router, looked up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterPorts {
    /// The same for every token: no code asks.
    Constant(bool),
    /// Decided by a kernel. All numbers are indices of buffers.
    Routed {
        /// [`Role::Decision`].
        decision: u32,
        /// [`Role::Forced`].
        forced: u32,
        /// [`Role::Executed`].
        executed: u32,
        /// [`Role::Wanted`], if the router has a capacity.
        wanted: Option<u32>,
    },
}

/// The port of a layer of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChoicePort {
    /// How many choices the layer has.
    pub of: u32,
    /// Where those stand that tokens got: `f32`, a column for each that a token can have at once.
    pub buffer: u32,
    /// Where those stand that are replayed; `None` if a hash of token ids chooses.
    pub forced: Option<u32>,
}

/// All ports of a compiled function, each role at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Interface {
    /// The ports: those of the runtime and the caller first, then results, routers in model order.
    pub ports: Vec<Bound>,
}

impl Interface {
    /// Where the value of a role is.
    #[must_use]
    pub fn binding(&self, role: &Role) -> Option<Binding> {
        self.ports.iter().find(|port| port.role == *role).map(|port| port.to)
    }

    /// The buffer that holds the value of a role.
    #[must_use]
    pub fn buffer(&self, role: &Role) -> Option<u32> {
        match self.binding(role)? {
            Binding::Buffer(idx) => Some(idx),
            Binding::Always(_) => None,
        }
    }

    /// The buffer that counts the rows of a role's value, if they are those of a set.
    #[must_use]
    pub fn count(&self, role: &Role) -> Option<u32> {
        self.ports.iter().find(|port| port.role == *role)?.count
    }

    /// The buffer of the count of the set that this role is; `None` if it is no set that the caller gives.
    #[must_use]
    pub fn given_set(&self, role: &Role) -> Option<u32> {
        let Role::Input { name } = role else { return None };
        self.buffer(&Role::SetCount { name: name.clone() })
    }

    /// The ports in this direction that have a buffer, with it.
    pub fn buffers(&self, direction: Direction) -> impl Iterator<Item = (&Role, u32)> {
        self.ports.iter().filter(move |port| port.role.direction() == direction).filter_map(|port| match port
            .to
        {
            Binding::Buffer(idx) => Some((&port.role, idx)),
            Binding::Always(_) => None,
        })
    }

    /// All buffers behind ports, and those that count their rows.
    pub fn all_buffers(&self) -> impl Iterator<Item = u32> {
        let of_port = |port: &Bound| match port.to {
            Binding::Buffer(idx) => [Some(idx), port.count],
            Binding::Always(_) => [None; 2],
        };
        self.ports.iter().flat_map(of_port).flatten()
    }

    /// The routers in model order. One that lacks a port which routers have is left out; the checker refuses it.
    #[must_use]
    pub fn routers(&self) -> Vec<RouterPorts> {
        let mut decisions = Vec::new();
        let [mut forced, mut executed, mut wanted] = [const { BTreeMap::new() }; 3];
        for port in &self.ports {
            match (&port.role, port.to) {
                (Role::Decision { router }, to) => decisions.push((*router, to)),
                (Role::Forced { router }, to) => {
                    forced.entry(*router).or_insert(to);
                }
                (Role::Executed { router }, to) => {
                    executed.entry(*router).or_insert(to);
                }
                (Role::Wanted { router }, to) => {
                    wanted.entry(*router).or_insert(to);
                }
                _ => {}
            }
        }
        let buffer = |of: &BTreeMap<u32, Binding>, router: u32| match of.get(&router) {
            Some(Binding::Buffer(idx)) => Some(*idx),
            _ => None,
        };
        let ports = |(router, to): (u32, Binding)| match to {
            Binding::Always(executes) => Some(RouterPorts::Constant(executes)),
            Binding::Buffer(decision) => Some(RouterPorts::Routed {
                decision,
                forced: buffer(&forced, router)?,
                executed: buffer(&executed, router)?,
                wanted: buffer(&wanted, router),
            }),
        };
        decisions.sort_by_key(|(router, _)| *router);
        decisions.into_iter().filter_map(ports).collect()
    }

    /// The layers of experts in the order in which they run: how many choices each has, and the buffer of those that tokens got.
    #[must_use]
    pub fn choices(&self) -> Vec<(Role, ChoicePort)> {
        let port = |bound: &Bound| match (&bound.role, bound.to) {
            (Role::Choices { layer, of }, Binding::Buffer(buffer)) => {
                let forced = self.buffer(&Role::ForcedChoices { layer: *layer, of: *of });
                Some((bound.role.clone(), ChoicePort { of: *of, buffer, forced }))
            }
            _ => None,
        };
        let mut ports: Vec<(Role, ChoicePort)> = self.ports.iter().filter_map(port).collect();
        ports.sort_by(|(a, _), (b, _)| a.cmp(b));
        ports
    }

    /// Binds a role to a buffer, in the place where it was bound before or at the end.
    pub fn bind(&mut self, role: Role, to: Binding) {
        match self.ports.iter_mut().find(|port| port.role == role) {
            Some(port) => (port.to, port.count) = (to, None),
            None => self.ports.push(Bound { role, to, count: None }),
        }
    }

    /// Binds a role to a buffer that holds the rows of a set, which another one counts.
    pub fn bind_rows(&mut self, role: Role, buffer: u32, count: u32) {
        self.bind(role.clone(), Binding::Buffer(buffer));
        if let Some(port) = self.ports.iter_mut().find(|port| port.role == role) {
            port.count = Some(count);
        }
    }

    /// Binds all ports of a router; those that it no longer has go.
    pub fn bind_router(&mut self, router: u32, ports: RouterPorts) {
        let of_router = [Role::Forced { router }, Role::Executed { router }, Role::Wanted { router }];
        self.ports.retain(|port| !of_router.contains(&port.role));
        match ports {
            RouterPorts::Constant(executes) => {
                self.bind(Role::Decision { router }, Binding::Always(executes));
            }
            RouterPorts::Routed { decision, forced, executed, wanted } => {
                self.bind(Role::Decision { router }, Binding::Buffer(decision));
                self.bind(Role::Forced { router }, Binding::Buffer(forced));
                self.bind(Role::Executed { router }, Binding::Buffer(executed));
                if let Some(wanted) = wanted {
                    self.bind(Role::Wanted { router }, Binding::Buffer(wanted));
                }
            }
        }
    }
}

/// Roles with the buffers that they are bound to.
impl<const N: usize> From<[(Role, u32); N]> for Interface {
    fn from(ports: [(Role, u32); N]) -> Interface {
        let bound = ports.map(|(role, idx)| Bound { role, to: Binding::Buffer(idx), count: None });
        Interface { ports: bound.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_come_in_model_order_with_all_their_ports() {
        let mut interface = Interface::from([(Role::TokenCount, 0), (Role::Logits, 1)]);
        let routed = RouterPorts::Routed { decision: 5, forced: 6, executed: 7, wanted: Some(8) };
        interface.bind_router(1, routed);
        interface.bind_router(0, RouterPorts::Constant(true));
        assert_eq!(interface.routers(), [RouterPorts::Constant(true), routed]);
        assert_eq!(interface.buffer(&Role::Wanted { router: 1 }), Some(8));
        assert_eq!(interface.binding(&Role::Decision { router: 0 }), Some(Binding::Always(true)));
        assert_eq!(interface.buffer(&Role::Decision { router: 0 }), None);
        let outs: Vec<u32> = interface.buffers(Direction::Out).map(|(_, idx)| idx).collect();
        assert_eq!(outs, [1, 5, 7, 8]);
        interface.bind_router(1, RouterPorts::Constant(false));
        assert_eq!(interface.routers(), [RouterPorts::Constant(true), RouterPorts::Constant(false)]);
        assert_eq!(interface.ports.len(), 4);
    }

    #[test]
    fn ports_are_the_same_after_json() {
        let mut interface = Interface::from([(Role::State { name: "kv".into() }, 3)]);
        interface.bind_router(0, RouterPorts::Constant(false));
        let text = serde_json::to_string(&interface).unwrap();
        assert_eq!(serde_json::from_str::<Interface>(&text).unwrap(), interface);
        assert!(text.contains(r#"{"role":{"state":{"name":"kv"}},"to":{"buffer":3}}"#), "{text}");
        assert!(serde_json::from_str::<Interface>(r#"[{"role":"other","to":{"buffer":3}}]"#).is_err());
    }
}
