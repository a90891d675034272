//! Graphs whose inputs and results have names of their own, and values for the inputs: one of each type and kind of rows.

use std::collections::BTreeMap;

use skipc_artifact::interface::Role;
use skipc_ir::interp::{Datum, Number};
use skipc_ir::{Elem, Graph, Type};
use skipc_plan::interp::Tensor;

/// Rows of tokens, of a number and of a set that the step decides. Kernels read numbers alone; the others have a place all the
/// same, and are asked for.
pub const TEXT: &str = r#"graph "given" {
  %x = input {port=input "x"} : real[n, 4]
  %more = input {port=input "more"} : real[n, 4]
  %scores = input {port=input "scores"} : f32[n, 1]
  %ids = input {port=input "ids"} : int[n]
  %pairs = input {port=input "pairs"} : int[n, 2]
  %flags = input {port=input "flags"} : mask[n]
  %table = input {port=input "table"} : f32[3, 2]
  %w = weight {name="embed.weight", shape=[5, 4]}
  %set = route %scores {set=c0, at_least=0.0}
  %gate = executed %set
  %own = gather %x, %set
  %added = gather %more, %set
  %sum = add %own, %added
  %out = scatter %x, %sum, %set
  %part = slice %out {start=1, len=2}
  %logits = matmul %out, %w
  return logits = %logits, decision 0 = %gate, result "sum" = %sum, result "own" = %own, result "out" = %out, result "part" = %part, result "scores" = %scores, result "ids" = %ids, result "pairs" = %pairs, result "flags" = %flags, result "table" = %table, result "gate" = %gate
}"#;

/// Rows of a set that the caller chooses, and of all others.
pub const SET: &str = r#"graph "chosen" {
  %x = input {port=input "x"} : real[n, 4]
  %set = input {port=input "set"} : tokens<c0 <= n>
  %added = input {port=input "added"} : real[c0, 4]
  %marks = input {port=input "marks"} : int[c0, 3]
  %w = weight {name="embed.weight", shape=[5, 4]}
  %own = gather %x, %set
  %sum = add %own, %added
  %some = scatter %x, %sum, %set
  %rest = complement %set {set=c1}
  %others = gather %x, %rest
  %doubled = add %others, %others
  %out = scatter %some, %doubled, %rest
  %chosen = executed %set
  %logits = matmul %out, %w
  return logits = %logits, result "sum" = %sum, result "marks" = %marks, result "chosen" = %chosen, result "doubled" = %doubled
}"#;

/// The set alone, as rows: a function without scores and without a mask.
pub const ROWS_OF_SET: &str = r#"graph "rows" {
  %x = input {port=input "x"} : real[n, 4]
  %set = input {port=input "set"} : tokens<c0 <= n>
  %own = gather %x, %set
  %out = scatter %x, %own, %set
  return result "own" = %own, result "out" = %out
}"#;

/// Tokens of the runs: none, one, and those around a tile of 16 rows.
pub const SIZES: [usize; 6] = [0, 1, 15, 16, 17, 33];

/// Every how many-th row executes, or is in the set; 0 for none.
pub const EVERY: [usize; 4] = [0, 1, 2, 17];

/// Values of all inputs of a graph for so many tokens.
pub fn tensors(graph: &Graph, n: usize, every: usize) -> BTreeMap<String, Tensor> {
    let is_chosen = |row: &usize| every != 0 && row.is_multiple_of(every);
    let chosen: Vec<usize> = (0..n).filter(is_chosen).collect();
    // Quarters from -4 to 4: f32 holds them and their sums.
    let numbers = |len: usize, seed: usize| {
        let quarter = |idx: usize| ((idx * idx * 7 + idx * seed) % 33) as f64 / 4.0 - 4.0;
        Tensor::Reals((0..len).map(quarter).collect())
    };
    let words = |len: usize| Tensor::Ints((0..len as u32).map(|idx| idx * 3 + 1).collect());
    let of = |name: &str, ty: &Type| match ty {
        _ if name == "scores" => {
            let score = |row: usize| if is_chosen(&row) { 0.25 } else { -0.25 };
            Tensor::Reals((0..n).map(score).collect())
        }
        Type::Set { .. } => Tensor::Ints(chosen.iter().map(|row| *row as u32).collect()),
        ty => {
            let rows = match ty.rows() {
                skipc_ir::Dim::Tokens => n,
                skipc_ir::Dim::Fixed(rows) => rows as usize,
                skipc_ir::Dim::Count(_) | skipc_ir::Dim::Cached => chosen.len(),
            };
            match ty.as_tensor().map(|(elem, _)| elem) {
                Some(Elem::Mask) => Tensor::Mask((0..rows).map(|row| row % 3 == 0).collect()),
                Some(Elem::Int) => words(rows * ty.cols() as usize),
                _ => numbers(rows * ty.cols() as usize, name.len() + 2),
            }
        }
    };
    let ports = graph.signature().inputs.into_iter();
    let named = ports.filter_map(|port| match port.role {
        Role::Input { name } => Some((name, port.ty)),
        _ => None,
    });
    named.map(|(name, ty)| (name.clone(), of(&name, &ty))).collect()
}

/// The same for the reference interpreter.
pub fn data<N: Number>(
    graph: &Graph,
    n: usize,
    tensors: &BTreeMap<String, Tensor>,
) -> BTreeMap<Role, Datum<N>> {
    let datum = |(ty, tensor): (&Type, &Tensor)| match tensor {
        Tensor::Reals(values) => Datum::Real {
            cols: ty.cols() as usize,
            data: values.iter().map(|value| N::from_f64(*value)).collect(),
        },
        Tensor::Ints(words) if matches!(ty, Type::Set { .. }) => {
            Datum::Set { rows: words.iter().map(|word| *word as usize).collect(), of: n }
        }
        Tensor::Ints(words) => Datum::Ints(words.iter().map(|word| i64::from(*word)).collect()),
        Tensor::Mask(bits) => Datum::Mask(bits.clone()),
    };
    let ports = graph.signature().inputs.into_iter();
    let given = ports.filter_map(|port| match &port.role {
        Role::Input { name } => Some((port.role.clone(), datum((&port.ty, tensors.get(name)?)))),
        _ => None,
    });
    given.collect()
}

/// The same for compiled functions, in f32.
pub fn bytes(tensors: &BTreeMap<String, Tensor>) -> Vec<(Role, Vec<u8>)> {
    let of = |(name, tensor): (&String, &Tensor)| {
        let bytes = match tensor {
            Tensor::Reals(values) => values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect(),
            Tensor::Ints(words) => words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            Tensor::Mask(bits) => bits.iter().map(|bit| u8::from(*bit)).collect(),
        };
        (Role::Input { name: name.clone() }, bytes)
    };
    tensors.iter().map(of).collect()
}
