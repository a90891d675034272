//! A graph whose inputs have names of their own, and values for them: one of each type and kind of rows that the planner
//! gives memory to.

use std::collections::BTreeMap;

use skipc_artifact::interface::Role;
use skipc_ir::interp::{Datum, Number};
use skipc_plan::interp::Tensor;

/// The text form. Kernels read numbers alone; the others have a place all the same, and are asked for.
pub const TEXT: &str = r#"graph "given" {
  %x = input {port=input "x"} : real[n, 4]
  %more = input {port=input "more"} : real[n, 4]
  %scores = input {port=input "scores"} : f32[n, 1]
  %ids = input {port=input "ids"} : int[n]
  %flags = input {port=input "flags"} : mask[n]
  %table = input {port=input "table"} : f32[3, 2]
  %w = weight {name="embed.weight", shape=[5, 4]}
  %set = route %scores {set=c0, at_least=0.0}
  %gate = executed %set
  %own = gather %x, %set
  %added = gather %more, %set
  %sum = add %own, %added
  %out = scatter %x, %sum, %set
  %logits = matmul %out, %w
  return logits = %logits, decision 0 = %gate
}"#;

/// Tokens of the runs: none, one, and those around a tile of 16 rows.
pub const SIZES: [usize; 6] = [0, 1, 15, 16, 17, 33];

/// Every how many-th row executes; 0 for none.
pub const EVERY: [usize; 4] = [0, 1, 2, 17];

/// Values of all inputs for so many tokens.
pub fn tensors(n: usize, every: usize) -> BTreeMap<String, Tensor> {
    // Quarters from -4 to 4: f32 holds them and their sums.
    let numbers = |len: usize, seed: usize| {
        let quarter = |idx: usize| ((idx * idx * 7 + idx * seed) % 33) as f64 / 4.0 - 4.0;
        Tensor::Reals((0..len).map(quarter).collect())
    };
    let score = |row: usize| if every != 0 && row.is_multiple_of(every) { 0.25 } else { -0.25 };
    BTreeMap::from([
        ("x".to_owned(), numbers(n * 4, 3)),
        ("more".to_owned(), numbers(n * 4, 5)),
        ("scores".to_owned(), Tensor::Reals((0..n).map(score).collect())),
        ("ids".to_owned(), Tensor::Ints((0..n as u32).collect())),
        ("flags".to_owned(), Tensor::Mask((0..n).map(|row| row % 3 == 0).collect())),
        ("table".to_owned(), numbers(6, 11)),
    ])
}

/// The same for the reference interpreter; numbers have the columns of [`TEXT`].
pub fn data<N: Number>(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<Role, Datum<N>> {
    let cols = |name: &str| match name {
        "scores" => 1,
        "table" => 2,
        _ => 4,
    };
    let datum = |(name, tensor): (&String, &Tensor)| {
        let datum = match tensor {
            Tensor::Reals(values) => Datum::Real {
                cols: cols(name),
                data: values.iter().map(|value| N::from_f64(*value)).collect(),
            },
            Tensor::Ints(words) => Datum::Ints(words.iter().map(|word| i64::from(*word)).collect()),
            Tensor::Mask(bits) => Datum::Mask(bits.clone()),
        };
        (Role::Input { name: name.clone() }, datum)
    };
    tensors.iter().map(datum).collect()
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
