//! Caches: what a step finds of the tokens before it, and leaves of its own. Each is a state with a row for every token, at
//! the place that the caller gives it, so that it is a function of the tokens alone: pages can be shared, and tokens taken
//! back.

use std::collections::BTreeMap;

use skipc_artifact::program::PAGE_ROWS;
use skipc_ir::{Binary, Dim, Elem, Op, Port, Scoring, SetSym, Type, Value, port};

use super::{Ctx, KeyValues, LowerError, pending_set};
use crate::frontend::build::{Build, Heads, LayerInput, TokenRows};

/// Where the tokens of a step lie in the caches.
pub(super) struct Cache {
    /// Row of each token.
    places: Value,
    /// Pages of each sequence.
    pages: Value,
    /// Number of each token's request.
    requests: Value,
    /// When keys and values are computed.
    key_values: KeyValues,
    /// What waits in each sequence, and the positions of all tokens in the cache, if a layer has asked for rows that wait.
    waiting: Option<[Value; 2]>,
    /// Where the stream waits that layers of the last routers saw.
    stream: Option<StreamCache>,
    /// By how much scores have to be above thresholds, once a router has asked.
    margins: Option<Value>,
    /// What was decided about each token, by the set that executes.
    decisions: BTreeMap<Value, Decided>,
    /// The last value of each state.
    pub(super) states: BTreeMap<port::Role, Value>,
}

/// A cache of the stream, which the layers of two routers in a row can share: a token that executes what the first decides
/// about leaves nothing to wait there, and one that skips it comes to the second as it was. The second has one layer that
/// looks at it: a later one would leave there what the first has made of a token that still waits for the first router.
struct StreamCache {
    /// The routers, the same if it is one.
    first: usize,
    last: usize,
    /// The stream behind what the last one decides about.
    behind: Option<Value>,
}

/// What was decided about a set of tokens.
struct Decided {
    /// The name of the cache that says which tokens are in the set.
    name: String,
    /// The router whose executed tokens they are; none if they are those that it leaves out.
    router: Option<usize>,
    /// One layer at most looks at other tokens: all that is asked for to wait is the stream in front of the decision.
    mixes_once: bool,
    /// Of the tokens of this step, `mask[n]`.
    executed: Value,
    /// Of all tokens in the cache, if something has looked at them.
    cached: Option<Value>,
    /// The rows of the cache whose keys and values may not wait longer, if a layer has asked for them.
    pending: Option<Value>,
}

impl Ctx<'_> {
    /// The inputs that a step has beside those of all functions.
    pub(super) fn cache(&mut self, key_values: KeyValues) -> Result<Cache, LowerError> {
        let n_pages = u32::try_from(self.model.stream.max_positions).unwrap_or(u32::MAX).div_ceil(PAGE_ROWS);
        let ty = Type::tensor(Elem::Int, &[Dim::Tokens, Dim::Fixed(n_pages)]);
        Ok(Cache {
            places: self.input(Port::of_tokens(port::Role::Places))?,
            pages: self.input(Port { role: port::Role::Pages, ty })?,
            requests: self.input(Port::of_tokens(port::Role::Requests))?,
            key_values,
            waiting: None,
            stream: None,
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
        let name = format!("decision.{router}");
        if let Some(cache) = &mut self.cache {
            let router = Some(router);
            cache.decisions.insert(
                set,
                Decided { name, router, mixes_once: true, executed, cached: None, pending: None },
            );
        }
    }

    /// Notes how many of the layers that the router of this set decides about look at other tokens.
    pub(super) fn note_mixing(&mut self, set: Value, layers: usize) {
        let decided = self.cache.as_mut().and_then(|cache| cache.decisions.get_mut(&set));
        if let Some(decided) = decided {
            decided.mixes_once = layers < 2;
        }
    }

    /// Notes the tokens that the last router leaves out.
    pub(super) fn note_left_out(&mut self, set: Value) -> Result<(), LowerError> {
        if self.cache.is_none() {
            return Ok(());
        }
        let executed = self.add(Op::Executed {}, &[set])?;
        let name = format!("left_out.{}", self.gates.len().saturating_sub(1));
        if let Some(cache) = &mut self.cache {
            cache.decisions.insert(
                set,
                Decided { name, router: None, mixes_once: true, executed, cached: None, pending: None },
            );
        }
        Ok(())
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

    /// The rows of the stream `x` of all tokens whose keys and values a layer has to compute now, if tokens that skip it may
    /// leave theirs for later: those that have waited in the sequences that execute, and these sequences' own. `set` is of
    /// the tokens that execute.
    pub(super) fn pending(&mut self, x: Value, set: Value) -> Result<Option<TokenRows<Value>>, LowerError> {
        let lazy = self.cache.as_ref().filter(|cache| cache.key_values == KeyValues::Lazy);
        let decided = lazy.and_then(|cache| cache.decisions.get(&set));
        let Some((router, mixes_once)) = decided.and_then(|of| Some((of.router?, of.mixes_once))) else {
            return Ok(None);
        };
        let first = self.stream_cache((router, mixes_once), x);
        let [_, stream] = self.stored(&format!("stream.{first}"), x, None)?;
        let [waiting, all_positions] = self.waiting()?;
        let Some(rows) = self.pending_rows(set, stream, waiting)? else { return Ok(None) };
        Ok(Some(TokenRows {
            stream: self.add(Op::Gather {}, &[stream, rows])?,
            positions: self.add(Op::Gather {}, &[all_positions, rows])?,
            sequences: None,
            set: Some(rows),
        }))
    }

    /// The router that the cache is named for in which `x` waits, the stream that a layer of this router sees.
    fn stream_cache(&mut self, (router, mixes_once): (usize, bool), x: Value) -> usize {
        let Some(cache) = &mut self.cache else { return router };
        match &mut cache.stream {
            Some(stream) if stream.last == router => {}
            Some(stream) if mixes_once && stream.first == stream.last && stream.behind == Some(x) => {
                stream.last = router;
            }
            stream => *stream = Some(StreamCache { first: router, last: router, behind: None }),
        }
        cache.stream.as_ref().map_or(router, |stream| stream.first)
    }

    /// Notes the stream behind what the router of this set decides about.
    pub(super) fn note_stream_behind(&mut self, set: Value, x: Value) {
        let Some(cache) = &mut self.cache else { return };
        let router = cache.decisions.get(&set).and_then(|decided| decided.router);
        if let Some(stream) = cache.stream.as_mut().filter(|stream| Some(stream.last) == router) {
            stream.behind = Some(x);
        }
    }

    /// What waits in each sequence, and the positions of all tokens in the cache.
    fn waiting(&mut self) -> Result<[Value; 2], LowerError> {
        if let Some(waiting) = self.cache.as_ref().and_then(|cache| cache.waiting) {
            return Ok(waiting);
        }
        let ty = Type::tensor(Elem::Int, &[Dim::Tokens, Dim::Fixed(self.n_routers + 1)]);
        let table = self.input(Port { role: port::Role::Pending, ty })?;
        let [_, positions] = self.stored("positions", self.all.positions, None)?;
        if let Some(cache) = &mut self.cache {
            cache.waiting = Some([table, positions]);
        }
        Ok([table, positions])
    }

    /// The rows that wait for the router of this set, which all its layers share.
    fn pending_rows(
        &mut self,
        set: Value,
        cache: Value,
        waiting: Value,
    ) -> Result<Option<Value>, LowerError> {
        let decided = self.cache.as_ref().and_then(|cache| Some((cache.pages, cache.decisions.get(&set)?)));
        let Some((pages, &Decided { router: Some(router), pending, .. })) = decided else { return Ok(None) };
        if pending.is_some() {
            return Ok(pending);
        }
        let (router, own) = (router as u32, pending_set(self.n_routers, router as u32));
        let operands = [set, self.all.positions, self.all.sequences, pages, waiting, cache];
        let rows = self.add(Op::Pending { set: own, router }, &operands)?;
        if let Some(decided) = self.cache.as_mut().and_then(|cache| cache.decisions.get_mut(&set)) {
            decided.pending = Some(rows);
        }
        Ok(Some(rows))
    }

    /// Attention over the keys and values of all tokens so far, those of this step included.
    pub(super) fn attend_cached(
        &mut self,
        name: &str,
        heads: Heads,
        [q, k, v]: [Value; 3],
        LayerInput { rows, seen, .. }: LayerInput<Value>,
    ) -> Result<Value, LowerError> {
        let [k, v] = self.cached_keys(name, [k, v], seen.set)?;
        let present = seen.set.map(|set| self.present(set)).transpose()?.flatten();
        let Some(pages) = self.cache.as_ref().map(|cache| cache.pages) else { return Ok(q) };
        let Heads { queries, keys, scoring: Scoring { scale, cap, window, .. } } = heads;
        let (heads, kv_heads) = (queries as u32, keys as u32);
        let op = Op::CachedAttention { heads, kv_heads, scale, cap, window };
        let mut operands = vec![q, k, v, rows.positions, rows.sequences.unwrap_or(self.all.sequences), pages];
        operands.extend(present);
        self.add(op, &operands)
    }

    /// The choices of experts of all tokens so far, in a cache named for the place where the layer runs, with its pages and which
    /// tokens have choices. Nothing of a graph that runs whole sequences.
    pub(super) fn cached_choices(
        &mut self,
        index: Value,
        set: Option<Value>,
    ) -> Result<Option<Vec<Value>>, LowerError> {
        let Some(pages) = self.pages() else { return Ok(None) };
        let name = format!("{}.choices", self.origin);
        let [_, choices] = self.stored(&name, index, set)?;
        let present = set.map(|set| self.present(set)).transpose()?.flatten();
        Ok(Some([choices, pages].into_iter().chain(present).collect()))
    }

    /// The convolution of the inputs of all tokens so far, those of this step, `x`, included. Caches are named for the place where
    /// the layer runs, as those of keys are.
    pub(super) fn convolve_cached(
        &mut self,
        [x, weight]: [Value; 2],
        LayerInput { rows, seen, .. }: LayerInput<Value>,
    ) -> Result<Value, LowerError> {
        let name = format!("{}.inputs", self.origin);
        let [_, x] = self.stored(&name, x, seen.set)?;
        let present = seen.set.map(|set| self.present(set)).transpose()?.flatten();
        let Some(pages) = self.pages() else { return Ok(x) };
        let sequences = rows.sequences.unwrap_or(self.all.sequences);
        let mut operands = vec![x, weight, rows.positions, sequences, pages];
        operands.extend(present);
        self.add(Op::CachedConv {}, &operands)
    }

    /// The caches of keys and values of the layer `name` with these, which are of a set or of all tokens. Caches are named for
    /// the place where the layer runs: a layer that runs again, with the same weights, has others. Those that an earlier
    /// repetition keeps for all are these themselves.
    fn cached_keys(
        &mut self,
        name: &str,
        [k, v]: [Value; 2],
        set: Option<Value>,
    ) -> Result<[Value; 2], LowerError> {
        if self.kept(name).is_some() {
            return Ok([k, v]);
        }
        let place = self.origin.clone();
        let [_, k] = self.stored(&format!("{place}.keys"), k, set)?;
        let [_, v] = self.stored(&format!("{place}.values"), v, set)?;
        if let Some(kept) = &mut self.kept {
            kept.insert(name.to_owned(), [k, v]);
        }
        Ok([k, v])
    }

    /// The cache of this name, as it is so far and with these rows, which are those of a set or of all tokens.
    pub(super) fn stored(
        &mut self,
        name: &str,
        rows: Value,
        set: Option<Value>,
    ) -> Result<[Value; 2], LowerError> {
        self.stored_as(Port::state, name, rows, set)
    }

    /// The same of a cache that is such a port.
    pub(super) fn stored_as(
        &mut self,
        port: impl Fn(&str, Type) -> Port,
        name: &str,
        rows: Value,
        set: Option<Value>,
    ) -> Result<[Value; 2], LowerError> {
        let ty = self.graph.ty(rows);
        let (elem, cols) = ty.as_tensor().map_or((Elem::Real, 1), |(elem, _)| (elem, ty.cols()));
        let (dims, is_column) = ([Dim::Cached, Dim::Fixed(cols)], matches!(elem, Elem::Mask | Elem::Int));
        let ty = Type::State { elem, dims: if is_column { &dims[..1] } else { &dims }.into() };
        let port = port(name, ty);
        let role = port.role.clone();
        let so_far = self.cache.as_ref().and_then(|cache| cache.states.get(&role)).copied();
        let before = so_far.map_or_else(|| self.input(port), Ok)?;
        let Some(places) = self.cache.as_ref().map(|cache| cache.places) else { return Ok([before; 2]) };
        let places = match set {
            // The set says itself which rows of the cache it has.
            Some(set) if matches!(self.graph.ty(set), Type::Set { of: Dim::Cached, .. }) => set,
            Some(set) => self.add(Op::Gather {}, &[places, set])?,
            None => places,
        };
        let after = self.add(Op::StoreRows {}, &[before, rows, places])?;
        if let Some(cache) = &mut self.cache {
            cache.states.insert(role, after);
        }
        Ok([before, after])
    }

    /// The pages of each sequence.
    pub(super) fn pages(&self) -> Option<Value> {
        self.cache.as_ref().map(|cache| cache.pages)
    }

    /// Which tokens so far executed what the router of this set decides about.
    fn present(&mut self, set: Value) -> Result<Option<Value>, LowerError> {
        let decided = self.cache.as_ref().and_then(|cache| cache.decisions.get(&set));
        let Some(Decided { name, executed, cached, .. }) = decided else { return Ok(None) };
        if cached.is_some() {
            return Ok(*cached);
        }
        let (name, executed) = (name.clone(), *executed);
        let [_, after] = self.stored(&name, executed, None)?;
        if let Some(decided) = self.cache.as_mut().and_then(|cache| cache.decisions.get_mut(&set)) {
            decided.cached = Some(after);
        }
        Ok(Some(after))
    }
}
