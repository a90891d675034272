//! Caches: what a step finds of the tokens before it, and leaves of its own. Each is a state with a row for every token, at
//! the place that the caller gives it, so that it is a function of the tokens alone: pages can be shared, and tokens taken
//! back.

use std::collections::BTreeMap;

use skipc_artifact::program::PAGE_ROWS;
use skipc_ir::{Binary, Dim, Elem, Op, Port, SetSym, Type, Value, port};

use super::{Ctx, LowerError};
use crate::frontend::build::{Build, Heads, LayerInput};

/// Where the tokens of a step lie in the caches.
pub(super) struct Cache {
    /// Row of each token.
    places: Value,
    /// Pages of each sequence.
    pages: Value,
    /// Number of each token's request.
    requests: Value,
    /// By how much scores have to be above thresholds, once a router has asked.
    margins: Option<Value>,
    /// What was decided about each token, by the set that executes.
    decisions: BTreeMap<Value, Decided>,
    /// The last value of each state.
    pub(super) states: BTreeMap<port::Role, Value>,
}

/// The decisions of a router.
struct Decided {
    router: usize,
    /// Of the tokens of this step, `mask[n]`.
    executed: Value,
    /// Of all tokens in the cache, if something has looked at them.
    cached: Option<Value>,
}

impl Ctx<'_> {
    /// The inputs that a step has beside those of all functions.
    pub(super) fn cache(&mut self) -> Result<Cache, LowerError> {
        let n_pages = u32::try_from(self.model.stream.max_positions).unwrap_or(u32::MAX).div_ceil(PAGE_ROWS);
        let ty = Type::tensor(Elem::Int, &[Dim::Tokens, Dim::Fixed(n_pages)]);
        Ok(Cache {
            places: self.input(Port::of_tokens(port::Role::Places))?,
            pages: self.input(Port { role: port::Role::Pages, ty })?,
            requests: self.input(Port::of_tokens(port::Role::Requests))?,
            margins: None,
            decisions: BTreeMap::new(),
            states: BTreeMap::new(),
        })
    }

    fn input(&mut self, port: Port) -> Result<Value, LowerError> {
        self.add(Op::Input { port }, &[])
    }

    /// What random decisions are drawn for, beside positions.
    pub(super) fn drawn_for(&self) -> Value {
        self.cache.as_ref().map_or(self.all.sequences, |cache| cache.requests)
    }

    /// A score as a threshold sees it: less the margin of its token, which a caller moves to draft with fewer layers.
    pub(super) fn less_margin(&mut self, score: Value) -> Result<Value, LowerError> {
        let Some(known) = self.cache.as_ref().map(|cache| cache.margins) else { return Ok(score) };
        let margins = match known {
            Some(margins) => margins,
            None => self.input(Port::margins())?,
        };
        if let Some(cache) = &mut self.cache {
            cache.margins = Some(margins);
        }
        self.add(Binary::Sub, &[score, margins])
    }

    /// The rows whose logits are wanted.
    pub(super) fn wanted_rows(&mut self, x: Value) -> Result<Value, LowerError> {
        if self.cache.is_none() {
            return Ok(x);
        }
        // Behind the sets of all routers.
        let sym = SetSym(2 * self.n_routers);
        let role = port::Role::LogitRows;
        let set = self.input(Port { role, ty: Type::Set { sym, of: Dim::Tokens } })?;
        self.add(Op::Gather {}, &[x, set])
    }

    /// Notes the decisions of the router that comes next.
    pub(super) fn note_decisions(&mut self, set: Value, executed: Value) {
        let router = self.gates.len();
        if let Some(cache) = &mut self.cache {
            cache.decisions.insert(set, Decided { router, executed, cached: None });
        }
    }

    /// What the router of this set wanted of earlier tokens, and the pages in which they lie; leaves what it wants of these.
    /// Nothing of a graph that runs whole sequences.
    pub(super) fn wanted_before(&mut self, wanted: Value) -> Result<Option<[Value; 2]>, LowerError> {
        let Some(pages) = self.cache.as_ref().map(|cache| cache.pages) else { return Ok(None) };
        let name = format!("wanted.{}", self.gates.len());
        let decisions = self.add(Op::Executed {}, &[wanted])?;
        let [before, _] = self.stored(&name, decisions, None)?;
        Ok(Some([before, pages]))
    }

    /// Attention over the keys and values of all tokens so far, those of this step included.
    pub(super) fn attend_cached(
        &mut self,
        name: &str,
        heads: Heads,
        [q, k, v]: [Value; 3],
        LayerInput { rows, seen }: LayerInput<Value>,
    ) -> Result<Value, LowerError> {
        let [_, k] = self.stored(&format!("{name}.keys"), k, seen.set)?;
        let [_, v] = self.stored(&format!("{name}.values"), v, seen.set)?;
        let present = seen.set.map(|set| self.present(set)).transpose()?.flatten();
        let Some(pages) = self.cache.as_ref().map(|cache| cache.pages) else { return Ok(q) };
        let op = Op::CachedAttention { heads: heads.queries as u32, kv_heads: heads.keys as u32 };
        let mut operands = vec![q, k, v, rows.positions, rows.sequences, pages];
        operands.extend(present);
        self.add(op, &operands)
    }

    /// The cache of this name, as the step finds it and with these rows, which are those of a set or of all tokens.
    fn stored(&mut self, name: &str, rows: Value, set: Option<Value>) -> Result<[Value; 2], LowerError> {
        let ty = self.graph.ty(rows);
        let (elem, cols) = ty.as_tensor().map_or((Elem::Real, 1), |(elem, _)| (elem, ty.cols()));
        let dims = [Dim::Cached, Dim::Fixed(cols)];
        let ty = Type::State { elem, dims: if elem == Elem::Mask { &dims[..1] } else { &dims }.into() };
        let port = Port::state(name, ty);
        let role = port.role.clone();
        let before = self.input(port)?;
        let Some(places) = self.cache.as_ref().map(|cache| cache.places) else { return Ok([before; 2]) };
        let places = match set {
            Some(set) => self.add(Op::Gather {}, &[places, set])?,
            None => places,
        };
        let after = self.add(Op::StoreRows {}, &[before, rows, places])?;
        if let Some(cache) = &mut self.cache {
            cache.states.insert(role, after);
        }
        Ok([before, after])
    }

    /// Which tokens so far executed what the router of this set decides about.
    fn present(&mut self, set: Value) -> Result<Option<Value>, LowerError> {
        let decided = self.cache.as_ref().and_then(|cache| cache.decisions.get(&set));
        let Some(Decided { router, executed, cached }) = decided else { return Ok(None) };
        if cached.is_some() {
            return Ok(*cached);
        }
        let (name, executed) = (format!("decision.{router}"), *executed);
        let [_, after] = self.stored(&name, executed, None)?;
        if let Some(decided) = self.cache.as_mut().and_then(|cache| cache.decisions.get_mut(&set)) {
            decided.cached = Some(after);
        }
        Ok(Some(after))
    }
}
