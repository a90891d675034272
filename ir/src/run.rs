//! The reference interpreter: evaluates a verified graph op by op, in one number domain. Slow and obvious on purpose.

use std::collections::BTreeMap;

use petgraph::graph::NodeIndex;

use crate::graph::{Graph, Value};
use crate::interp::{Datum, Env, EvalError, Gf61, Number, Results, Ring32};
use crate::op;
use crate::ops::Op;
use crate::port::Port;
use crate::ty::{Dim, SetSym, Type};

/// A number domain in which a graph is evaluated.
pub trait Domain: Number {
    /// [`run`] in this domain. The domains of this crate have it as a method of their own, so that the interpreter's
    /// code is made here, where it is optimised in every profile.
    #[doc(hidden)]
    fn run_graph(graph: &Graph, env: &Env<'_, Self>) -> Result<Results<Self>, EvalError> {
        run_in(graph, env)
    }
}

macro_rules! domains {
    ($($N:ty),*) => {$(
        impl Domain for $N {
            fn run_graph(graph: &Graph, env: &Env<'_, Self>) -> Result<Results<Self>, EvalError> {
                run_in(graph, env)
            }
        }
    )*};
}

domains!(f32, f64, Ring32, Gf61);

/// Evaluates the graph and returns its results by role, in the graph's order.
///
/// # Errors
/// If the environment does not have what the graph asks for.
pub fn run<N: Domain>(graph: &Graph, env: &Env<'_, N>) -> Result<Results<N>, EvalError> {
    N::run_graph(graph, env)
}

/// What every domain's [`Domain::run_graph`] calls.
fn run_in<N: Number>(graph: &Graph, env: &Env<'_, N>) -> Result<Results<N>, EvalError> {
    let (positions, sequences) = (env.batch.positions.len(), env.batch.sequences.len());
    let tokens = if env.batch.rows.is_empty() { env.batch.tokens.len() } else { positions };
    if (positions, sequences) != (tokens, tokens) {
        return Err(EvalError::Batch { tokens, positions, sequences });
    }
    let order = graph.order();
    let mut counts = Counts::default();
    let mut uses_left = vec![0usize; graph.bound()];
    for value in &order {
        for operand in graph.operands(*value) {
            uses_left[operand.index()] += 1;
        }
    }
    for (_, value) in graph.results() {
        uses_left[value.index()] += 1;
    }
    let mut data: Vec<Option<Datum<N>>> = vec![None; graph.bound()];
    // A weight is read where it is used and goes at once: all of them together may be more than there is memory.
    let read = |value: Value| {
        let weight = Some(graph.op(value)).filter(|op| matches!(op, Op::Weight { .. }));
        weight.map(|weight| op::eval(weight, &[], env)).transpose()
    };
    for value in order {
        if matches!(graph.op(value), Op::Weight { .. }) {
            continue;
        }
        let operands = graph.operands(value);
        let result = {
            let weights = operands.iter().map(|operand| read(*operand)).collect::<Result<Vec<_>, _>>()?;
            let refs = operands.iter().zip(&weights).map(|(operand, weight)| match weight {
                Some(weight) => Ok(weight),
                None => held(&data, *operand),
            });
            op::eval(graph.op(value), &refs.collect::<Result<Vec<_>, _>>()?, env)?
        };
        if let Op::Input { port } = graph.op(value) {
            counts.check(port, &result)?;
        }
        for operand in operands {
            uses_left[operand.index()] -= 1;
            if uses_left[operand.index()] == 0 {
                data[operand.index()] = None;
            }
        }
        data[value.index()] = Some(result);
    }
    let result = |value| {
        Ok(match read(value)? {
            Some(weight) => weight,
            None => held(&data, value)?.clone(),
        })
    };
    graph.results().map(|(role, value)| Ok((role.clone(), result(value)?))).collect()
}

/// How many rows the sets have that the caller gives, or whose rows it does.
#[derive(Default)]
struct Counts(BTreeMap<SetSym, usize>);

impl Counts {
    /// A set and all inputs with its rows have as many.
    fn check<N: Copy>(&mut self, port: &Port, datum: &Datum<N>) -> Result<(), EvalError> {
        let (sym, got) = match (&port.ty, datum) {
            (Type::Set { sym, .. }, Datum::Set { rows, .. }) => (*sym, rows.len()),
            (ty @ Type::Tensor { .. }, Datum::Ints(ints)) => match ty.rows() {
                Dim::Count(sym) => (sym, ints.len() / ty.cols() as usize),
                _ => return Ok(()),
            },
            (ty @ Type::Tensor { .. }, datum) => match ty.rows() {
                Dim::Count(sym) => (sym, datum.n_rows()),
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        match *self.0.entry(sym).or_insert(got) == got {
            true => Ok(()),
            false => Err(EvalError::Input { role: port.role.clone(), ty: port.ty.clone() }),
        }
    }
}

fn held<N>(data: &[Option<Datum<N>>], value: Value) -> Result<&Datum<N>, EvalError> {
    let idx: NodeIndex = value.node();
    data[idx.index()].as_ref().ok_or(EvalError::Kind("evaluated before its use"))
}
