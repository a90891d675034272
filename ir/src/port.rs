//! Ports: what a graph takes, keeps and gives, each with a role.
//!
//! Roles are those of compiled functions ([`skipc_artifact::interface`]), so that the word for a value at the border is
//! one from the spec's graph to the runtime. A graph has no port of what only the runtime knows ([`Role::TokenCount`],
//! [`Role::SetCount`], [`Role::SetMask`],
//! [`Role::UseForced`], [`Role::Forced`], [`Role::ForcedWanted`], [`Role::UseForcedChoices`], [`Role::Executed`]), and [`Role::Wanted`] is the mask that its planned form
//! counts.

use std::fmt;

pub use skipc_artifact::interface::{Direction, Role};

use crate::attr::{Attr, Literal};
use crate::ty::{Dim, Elem, SetSym, Type};

/// A value at the border of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// What it means.
    pub role: Role,
    /// Its type.
    pub ty: Type,
}

impl Port {
    /// Token ids, positions or sequence indices, `int[n]`.
    pub fn of_tokens(role: Role) -> Port {
        Port { role, ty: Type::tensor(Elem::Int, &[Dim::Tokens]) }
    }

    /// Margins of all tokens, `f32[n, 1]`.
    pub fn margins() -> Port {
        Port { role: Role::Margins, ty: Type::tensor(Elem::F32, &[Dim::Tokens, Dim::Fixed(1)]) }
    }

    /// The token set that it is, if it is one.
    pub(crate) fn set(&self) -> Option<SetSym> {
        match self.ty {
            Type::Set { sym, .. } => Some(sym),
            Type::Tensor { .. } | Type::Partition { .. } | Type::State { .. } => None,
        }
    }

    pub(crate) fn set_mut(&mut self) -> Option<&mut SetSym> {
        match &mut self.ty {
            Type::Set { sym, .. } => Some(sym),
            Type::Tensor { .. } | Type::Partition { .. } | Type::State { .. } => None,
        }
    }

    /// Whether its role leaves its type open.
    pub(crate) fn has_own_type(&self) -> bool {
        matches!(
            self.role,
            Role::Pages
                | Role::Pending
                | Role::LogitRows
                | Role::ForcedChoices { .. }
                | Role::Rows
                | Role::Input { .. }
                | Role::State { .. }
                | Role::PromptState { .. }
        )
    }

    /// A state of this name.
    pub fn state(name: &str, ty: Type) -> Port {
        Port { role: Role::State { name: name.to_owned() }, ty }
    }

    /// A state of this name that the step which begins a sequence leaves for all later tokens of it.
    pub fn prompt_state(name: &str, ty: Type) -> Port {
        Port { role: Role::PromptState { name: name.to_owned() }, ty }
    }

    /// An input of this name.
    pub fn input(name: &str, ty: Type) -> Port {
        Port { role: Role::Input { name: name.to_owned() }, ty }
    }
}

/// A role in the text form: a word, and behind it a name in quotes or the number of a router.
pub struct RoleText<'a>(pub &'a Role);

impl fmt::Display for RoleText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Role::Tokens => f.write_str("tokens"),
            Role::Rows => f.write_str("rows"),
            Role::Positions => f.write_str("positions"),
            Role::Sequences => f.write_str("sequences"),
            Role::Requests => f.write_str("requests"),
            Role::Places => f.write_str("places"),
            Role::Pages => f.write_str("pages"),
            Role::Pending => f.write_str("pending"),
            Role::Margins => f.write_str("margins"),
            Role::LogitRows => f.write_str("logit_rows"),
            Role::LogitCount => f.write_str("logit_count"),
            Role::Logits => f.write_str("logits"),
            Role::TokenCount => f.write_str("token_count"),
            Role::UseForced => f.write_str("use_forced"),
            Role::Input { name } => write!(f, "input {name:?}"),
            Role::SetCount { name } => write!(f, "set_count {name:?}"),
            Role::SetMask { name } => write!(f, "set_mask {name:?}"),
            Role::Result { name } => write!(f, "result {name:?}"),
            Role::State { name } => write!(f, "state {name:?}"),
            Role::PromptState { name } => write!(f, "prompt_state {name:?}"),
            Role::Parameter { name } => write!(f, "parameter {name:?}"),
            Role::Decision { router } => write!(f, "decision {router}"),
            Role::Wanted { router } => write!(f, "wanted {router}"),
            Role::WantedMask { router } => write!(f, "wanted_mask {router}"),
            Role::Forced { router } => write!(f, "forced {router}"),
            Role::ForcedWanted { router } => write!(f, "forced_wanted {router}"),
            Role::Executed { router } => write!(f, "executed {router}"),
            Role::Choices { layer, of } => write!(f, "choices {layer} of {of}"),
            Role::ForcedChoices { layer, of } => write!(f, "forced_choices {layer} of {of}"),
            Role::UseForcedChoices => f.write_str("use_forced_choices"),
        }
    }
}

/// The role of a word that has nothing behind it; `None` if there is none that a graph can have.
pub(crate) fn role(word: &str) -> Option<Role> {
    match word {
        "tokens" => Some(Role::Tokens),
        "rows" => Some(Role::Rows),
        "positions" => Some(Role::Positions),
        "sequences" => Some(Role::Sequences),
        "requests" => Some(Role::Requests),
        "places" => Some(Role::Places),
        "pages" => Some(Role::Pages),
        "pending" => Some(Role::Pending),
        "margins" => Some(Role::Margins),
        "logit_rows" => Some(Role::LogitRows),
        "logits" => Some(Role::Logits),
        _ => None,
    }
}

/// The role of a word with a name behind it.
pub(crate) fn role_named(word: &str, name: &str) -> Option<Role> {
    let name = name.to_owned();
    match word {
        "input" => Some(Role::Input { name }),
        "result" => Some(Role::Result { name }),
        "state" => Some(Role::State { name }),
        "prompt_state" => Some(Role::PromptState { name }),
        _ => None,
    }
}

/// The role of a word with the number of a router behind it.
pub(crate) fn role_of_router(word: &str, router: u32) -> Option<Role> {
    match word {
        "decision" => Some(Role::Decision { router }),
        "wanted" => Some(Role::Wanted { router }),
        "wanted_mask" => Some(Role::WantedMask { router }),
        _ => None,
    }
}

/// The role of a word with the number of a layer and how many choices it has behind it.
pub(crate) fn role_of_layer(word: &str, layer: u32, of: u32) -> Option<Role> {
    match word {
        "choices" => Some(Role::Choices { layer, of }),
        "forced_choices" => Some(Role::ForcedChoices { layer, of }),
        _ => None,
    }
}

/// As an attribute a port is its role: its type stands behind the line's colon.
impl Attr for Port {
    const KIND: &'static str = "tokens | rows | positions | sequences | requests | places | pages | pending | margins | logit_rows | forced_choices 0 of 8 | input \"name\" | state \"name\" | prompt_state \"name\"";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", RoleText(&self.role))
    }

    /// A port whose role leaves its type open gets one without dimensions, which no port has: the parser puts the line's
    /// type in its place.
    fn read(literal: &Literal) -> Option<Port> {
        let role = match literal {
            Literal::Word(word) => role(word)?,
            Literal::Role(role) => role.clone(),
            _ => return None,
        };
        match role {
            Role::Tokens | Role::Positions | Role::Sequences | Role::Requests | Role::Places => {
                Some(Port::of_tokens(role))
            }
            Role::Margins => Some(Port::margins()),
            Role::Pages
            | Role::Pending
            | Role::LogitRows
            | Role::ForcedChoices { .. }
            | Role::Rows
            | Role::Input { .. }
            | Role::State { .. }
            | Role::PromptState { .. } => Some(Port { role, ty: Type::tensor(Elem::Real, &[]) }),
            _ => None,
        }
    }
}
