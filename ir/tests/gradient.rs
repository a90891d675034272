//! Gradients against differences: every op with a derivative, in f64.

use std::collections::BTreeMap;

use skipc_ir::gradient::{GradientError, gradients};
use skipc_ir::interp::{Datum, Env, FlatBatch, Free, Weights};
use skipc_ir::text::parse;
use skipc_ir::{Graph, Op, Role, Type, Value, verify};

/// Half of a difference.
const STEP: f64 = 1e-5;

type Given = BTreeMap<String, Datum<f64>>;

struct Tensors<'a>(&'a Given);

impl Weights<f64> for Tensors<'_> {
    fn weight(&self, name: &str) -> Option<Vec<f64>> {
        Some(self.0.get(name)?.real().ok()?.1.to_vec())
    }
}

/// The inputs and weights of numbers, by name.
fn differentiable(graph: &Graph) -> Vec<(String, Value)> {
    let name = |value: Value| match graph.op(value) {
        Op::Input { port } if matches!(graph.ty(value), Type::Tensor { elem: skipc_ir::Elem::Real, .. }) => {
            if let Role::Input { name } = &port.role {
                Some(name.clone())
            } else {
                None
            }
        }
        op => {
            if let Op::Weight { name, .. } = op {
                Some(name.0.to_string())
            } else {
                None
            }
        }
    };
    graph.values().filter_map(|value| Some((name(value)?, value))).collect()
}

fn run(graph: &Graph, given: &Given) -> Vec<(Role, Datum<f64>)> {
    let batch = FlatBatch::from_sequences([&[3i64, 1, 0, 2][..], &[1, 4, 2]]);
    let inputs = given.iter().map(|(name, datum)| (Role::Input { name: name.clone() }, datum.clone()));
    let env = Env { batch: &batch, tensors: inputs.collect(), weights: &Tensors(given), routing: &Free };
    skipc_ir::run(graph, &env).unwrap()
}

/// Numbers without a pattern, of the type of a value for 7 tokens.
fn numbers(ty: &Type, name: &str) -> Datum<f64> {
    let rows = match ty.rows() {
        skipc_ir::Dim::Fixed(rows) => rows as usize,
        _ => 7,
    };
    let cols = ty.cols() as usize;
    let of = |at: u64| skipc_ir::draws::uniform(skipc_ir::draws::word(5, name, at)) * 2.0 - 1.0;
    Datum::Real { cols, data: (0..(rows * cols) as u64).map(of).collect() }
}

fn loss(results: &[(Role, Datum<f64>)]) -> f64 {
    let loss = results.iter().find(|(role, _)| *role == Role::Result { name: "loss".to_owned() });
    loss.unwrap().1.real().unwrap().1[0]
}

/// Compares the gradient of `loss` by everything that the lines name with differences.
fn check(lines: &str) {
    let text = format!(
        "graph \"g\" {{
  %ids = input {{port=tokens}}
  %pos = input {{port=positions}}
  %seq = input {{port=sequences}}
  %targets = input {{port=input \"targets\"}} : int[n]
  %tokens = input {{port=input \"tokens\"}} : f32[1, 1]
  %x = input {{port=input \"x\"}} : real[n, 8]
{lines}
  %loss = cross_entropy %y, %targets, %tokens
  return result \"loss\" = %loss
}}"
    );
    let forward = parse(&text).unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]));
    let by = differentiable(&forward);
    let mut given: Given =
        by.iter().map(|(name, value)| (name.clone(), numbers(forward.ty(*value), name))).collect();
    given.insert("targets".to_owned(), Datum::Ints(vec![0, 3, 1, 2, 0, 1, 3]));
    given.insert("tokens".to_owned(), Datum::Real { cols: 1, data: vec![7.0] });
    let mut graph = forward.clone();
    let values: Vec<Value> = by.iter().map(|(_, value)| *value).collect();
    let start = graph.result(&Role::Result { name: "loss".to_owned() }).unwrap();
    let found = gradients(&mut graph, start, &values).unwrap();
    for ((name, _), gradient) in by.iter().zip(&found) {
        let gradient = gradient.unwrap_or_else(|| panic!("`{name}` has no gradient:\n{lines}"));
        graph.set_result(Role::Result { name: format!("by {name}") }, gradient);
    }
    verify(&graph).unwrap_or_else(|errors| panic!("{}\n{lines}", errors[0]));
    let results = run(&graph, &given);
    for (name, _) in &by {
        let role = Role::Result { name: format!("by {name}") };
        let (_, exact) = results.iter().find(|(of, _)| *of == role).unwrap();
        for (idx, exact) in exact.real().unwrap().1.iter().enumerate() {
            let at = |by: f64| {
                let mut given = given.clone();
                if let Some(Datum::Real { data, .. }) = given.get_mut(name) {
                    data[idx] += by;
                }
                loss(&run(&forward, &given))
            };
            let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let off = (difference - exact).abs();
            assert!(off < 1e-8, "{name}[{idx}]: {exact} instead of {difference}\n{lines}");
        }
    }
}

#[test]
fn matmuls_embeddings_and_biases() {
    check(
        "  %t = weight {name=\"t\", shape=[5, 8]}\n  %e = embed %t, %ids\n  %s = add %x, %e\n  %w = weight {name=\"w\", shape=[4, 8]}\n  %m = matmul %s, %w\n  %b = weight {name=\"b\", shape=[4]}\n  %y = add_bias %m, %b",
    );
    check(
        "  %t = weight {name=\"t\", shape=[4, 8]}\n  %p = embed %t, %pos\n  %s = mul %x, %p\n  %w = weight {name=\"w\", shape=[4, 8]}\n  %z = router_logits %s, %w\n  %z2 = scale %z {by=0.3}\n  %y = sub %z, %z2",
    );
}

#[test]
fn functions_of_elements() {
    for function in ["gelu", "gelu_erf", "silu", "sigmoid", "tanh", "relu", "relu2", "one_minus", "scale"] {
        let attrs = if function == "scale" { " {by=-0.7}" } else { "" };
        check(&format!("  %y = {function} %x{attrs}"));
    }
    check(
        "  %a = slice %x {start=0, len=4}\n  %b = slice %x {start=3, len=4}\n  %m = mul %a, %b\n  %y = add %m, %b",
    );
}

#[test]
fn norms_with_and_without_groups() {
    for groups in ["", ", groups=2"] {
        let width = if groups.is_empty() { 8 } else { 4 };
        let gain =
            format!("  %g = weight {{name=\"g\", shape=[{width}]}}\n  %go = offset_gain %g {{by=1.0}}\n");
        check(&format!("{gain}  %y = rms_norm %x, %go {{eps=1e-5{groups}}}"));
        let bias = format!("  %b = weight {{name=\"b\", shape=[{width}]}}\n");
        check(&format!("{gain}{bias}  %y = layer_norm %x, %go, %b {{eps=1e-5{groups}}}"));
    }
}

#[test]
fn attention_with_its_options() {
    for options in ["", ", scale=0.9", ", cap=1.5", ", window=2", ", scale=0.7, cap=2.0, window=3"] {
        let lines = format!(
            "  %wk = weight {{name=\"wk\", shape=[4, 8]}}
  %k0 = matmul %x, %wk
  %k = rope %k0, %pos {{heads=2, theta=100.0}}
  %wv = weight {{name=\"wv\", shape=[4, 8]}}
  %v = matmul %x, %wv
  %q = rope %x, %pos {{heads=4, theta=100.0}}
  %y = attention %q, %k, %v, %pos, %seq, %pos, %seq {{heads=4, kv_heads=2{options}}}"
        );
        check(&lines);
    }
    check("  %y = rope %x, %pos {heads=2, theta=10.0, turned=2}");
}

/// A set that holds some rows of each sequence, whatever the differences do to the numbers.
const SET: &str =
    "  %s = route_random %pos, %seq {set=c0, seed=3, block=0, limit=2147483648}\n  %xs = gather %x, %s\n";

#[test]
fn sets_of_rows() {
    let lines = "  %w = weight {name=\"w\", shape=[8, 8]}
  %h = matmul %xs, %w
  %rw = weight {name=\"rw\", shape=[1, 8]}
  %z = router_logits %x, %rw
  %p = sigmoid %z
  %ps = gather %p, %s
  %hs = scale_rows %h, %ps
  %y = scatter %x, %hs, %s";
    check(&format!("{SET}{lines}"));
    let attends = "  %ps = gather %pos, %s
  %ss = gather %seq, %s
  %a = attention %xs, %x, %x, %ps, %ss, %pos, %seq {heads=2, kv_heads=2}
  %active = attention %a, %xs, %xs, %ps, %ss, %ps, %ss {heads=2, kv_heads=2}
  %y = scatter %x, %active, %s";
    check(&format!("{SET}{attends}"));
}

#[test]
fn a_straight_through_value_has_the_gradient_of_its_stand_in() {
    let text = "graph \"g\" {
  %targets = input {port=input \"targets\"} : int[n]
  %tokens = input {port=input \"tokens\"} : f32[1, 1]
  %x = input {port=input \"x\"} : real[n, 8]
  %v = input {port=input \"v\"} : real[n, 8]
  %w = weight {name=\"w\", shape=[1, 8]}
  %z = router_logits %x, %w
  %p = sigmoid %z
  %t = straight_through %x, %p, %v
  %loss = cross_entropy %t, %targets, %tokens
  return result \"loss\" = %loss
}";
    let mut graph = parse(text).unwrap();
    let by = differentiable(&graph);
    let start = graph.result(&Role::Result { name: "loss".to_owned() }).unwrap();
    let of = |wanted: &str| by.iter().find(|(name, _)| name == wanted).unwrap().1;
    let found = gradients(&mut graph, start, &[of("x"), of("v"), of("w")]).unwrap();
    assert!(found[0].is_some() && found[1].is_none() && found[2].is_some());
}

#[test]
fn an_op_without_a_derivative_is_named() {
    let text = "graph \"g\" {
  %targets = input {port=input \"targets\"} : int[n]
  %tokens = input {port=input \"tokens\"} : f32[1, 1]
  %x = input {port=input \"x\"} : real[n, 8]
  %r = inv_rms %x {eps=1e-5} @\"blocks.0\"
  %y = scale_rows %x, %r
  %loss = cross_entropy %y, %targets, %tokens
  return result \"loss\" = %loss
}";
    let mut graph = parse(text).unwrap();
    let start = graph.result(&Role::Result { name: "loss".to_owned() }).unwrap();
    let by: Vec<Value> = differentiable(&graph).into_iter().map(|(_, value)| value).collect();
    let error = gradients(&mut graph, start, &by).expect_err("`inv_rms` has no derivative");
    assert!(
        matches!(&error, GradientError::NoDerivative { op: "inv_rms", origin } if origin == "blocks.0"),
        "{error}"
    );
}
