//! Random legal graphs: all ops but those of training and [`NOT_DRAWN`], views of views, sets side by side, values with many users.

use std::collections::BTreeSet;
use std::fmt::Write;

use skipc_artifact::target::DType;
use skipc_ir::Training;
use skipc_ir::ops::table;
use skipc_plan::{Options, build, build_unfused};

use crate::{HEAD, check, legal, options};

/// Graphs that are planned and run. Each takes about 2 ms.
const N_GRAPHS: u64 = 300;

/// Ops that these graphs lack: constants that rules make, what takes states, experts, and ops of deciders. The cases of the
/// planner's other tests have them, and generated models.
const NOT_DRAWN: [&str; 31] = [
    "weight_stack",
    "fill",
    "weight_rows",
    "fold_gain",
    "fold_linear",
    "fold_bias",
    "offset_gain",
    "grouped_matmul",
    "inv_rms",
    "cached_attention",
    "conv",
    "cached_conv",
    "sequence_mean",
    "scale_elements",
    "widen",
    "force_first",
    "class_token",
    "repeat_row",
    "choose",
    "choose_or_replay",
    "hash_choice",
    "limit_choices",
    "limit_choices_after",
    "share_choices",
    "partition",
    "route_topk_among",
    "limit_first_after",
    "pending",
    "store_rows",
    "add_rows",
    "fill_mask",
];

#[test]
fn random_graphs() {
    let mut drawn = BTreeSet::new();
    for seed in 0..N_GRAPHS {
        let lines = Lines::new(seed).graph();
        let legal = legal(&lines);
        drawn.extend(legal.graph().values().map(|value| legal.graph().op(value).name()));
        for plan in [build_unfused(&legal, &options()), build(&legal, &options())] {
            check::check_once(&legal, &plan.unwrap_or_else(|error| panic!("{error}\n{lines}")), seed);
        }
        // Numbers in bf16 depend on where values are rounded; that the plan is right does not.
        let bf16 = build(&legal, &Options { dtype: DType::Bf16, ..options() }).expect("a plan");
        skipc_plan::verify(&bf16).unwrap_or_else(|errors| panic!("{}\n{bf16}", errors[0]));
    }
    let training: BTreeSet<&str> = Training::rows().map(|info| info.name).collect();
    let expected = table().into_iter().map(|info| info.name);
    let expected = expected.filter(|name| !training.contains(name) && !NOT_DRAWN.contains(name));
    assert_eq!(drawn, expected.collect());
}

/// The text of a graph while it grows.
struct Lines {
    text: String,
    seed: u64,
    n_draws: u64,
    n_values: usize,
    n_sets: usize,
    /// The value of which rows were gathered last.
    gathered: usize,
    /// Whether each set has a gate.
    seen: Vec<bool>,
    /// Values `[rows, 4]`: their rows (0: all tokens, else the number of a set) and their numbers.
    values: Vec<(usize, usize)>,
}

impl Lines {
    fn new(seed: u64) -> Lines {
        Lines {
            text: HEAD.to_owned(),
            seed,
            n_draws: 0,
            n_values: 0,
            n_sets: 0,
            gathered: 0,
            seen: Vec::new(),
            values: Vec::new(),
        }
    }

    fn graph(mut self) -> String {
        self.text += "  %w = weight {name=\"w\", shape=[4, 4]}\n  %w8 = weight {name=\"w8\", shape=[8, 4]}\n";
        self.text +=
            "  %b = weight {name=\"b\", shape=[4]}\n  %wr = weight {name=\"router\", shape=[1, 4]}\n";
        self.text += "  %v0 = gelu %x\n";
        self.values.push((0, 0));
        self.n_values = 1;
        for _ in 0..4 + self.below(28) {
            self.step();
        }
        // Much would be dead if one value alone were the result.
        for set in 1..=self.n_sets {
            if !self.values.iter().any(|(rows, _)| *rows == set) {
                continue;
            }
            let (base, rows) = (self.of_rows(0), self.of_rows(set));
            self.push(0, &format!("scatter %v{base}, %v{rows}, %set{set}"));
        }
        for _ in 0..self.below(3) {
            let (a, b) = (self.of_rows(0), self.of_rows(0));
            self.push(0, &format!("add %v{a}, %v{b}"));
        }
        let last = self.n_values - 1;
        let last = if self.values[last].0 == 0 { last } else { self.of_rows(0) };
        // A norm keeps the numbers of long chains in a range where f32 is near to f64.
        _ = writeln!(self.text, "  %n = rms_norm %v{last}, %b {{eps=1e-3}}\n  %logits = matmul %n, %table");
        self.text += "  return logits = %logits";
        let mut n_gates = 0;
        for set in 1..=self.n_sets {
            if self.seen[set - 1] {
                _ = write!(self.text, ", decision {n_gates} = %gate{set}");
                n_gates += 1;
            }
        }
        self.text
    }

    fn below(&mut self, n: usize) -> usize {
        self.n_draws += 1;
        skipc_ir::random_score(self.seed, 0, 0, self.n_draws) as usize % n
    }

    /// A value of these rows, later ones likelier.
    fn of_rows(&mut self, rows: usize) -> usize {
        let found: Vec<usize> =
            self.values.iter().filter(|(known, _)| *known == rows).map(|(_, value)| *value).collect();
        found[self.below(found.len()).max(self.below(found.len()))]
    }

    fn push(&mut self, rows: usize, line: &str) {
        _ = writeln!(self.text, "  %v{} = {line}", self.n_values);
        self.values.push((rows, self.n_values));
        self.n_values += 1;
    }

    fn step(&mut self) {
        let idx = self.below(self.values.len()).max(self.below(self.values.len()));
        let (rows, _) = self.values[idx];
        let (a, b) = (self.of_rows(rows), self.of_rows(rows));
        let unary = self.below(7);
        let binary = ["add", "sub", "mul"][self.below(3)];
        match self.below(14) {
            0 | 1 if unary == 6 => self.push(rows, &format!("scale %v{a} {{by=-0.7}}")),
            0 | 1 => {
                let more = ["relu2", "tanh", "gelu_erf"][self.below(3)];
                let unary = ["relu", "sigmoid", "silu", "gelu", more, "one_minus"][unary];
                self.push(rows, &format!("{unary} %v{a}"));
            }
            2 | 3 => self.push(rows, &format!("{binary} %v{a}, %v{b}")),
            4 | 5 => {
                let normed = self.n_values;
                self.push(rows, &format!("rms_norm %v{a}, %b {{eps=1e-3}}"));
                self.push(rows, &format!("matmul %v{normed}, %w"));
            }
            6 => {
                let id = self.n_values;
                _ = writeln!(self.text, "  %m{id} = matmul %v{a}, %w8");
                let start = self.below(5);
                self.push(rows, &format!("slice %m{id} {{start={start}, len=4}}"));
            }
            7 if self.below(2) == 0 => self.push(rows, &format!("add_bias %v{a}, %b")),
            7 => self.push(rows, &format!("matmul %v{a}, %w")),
            8 => {
                let id = self.n_values;
                _ = writeln!(self.text, "  %r{id} = router_logits %v{a}, %wr");
                let scale = ["sigmoid", "one_minus"][self.below(2)];
                _ = writeln!(self.text, "  %g{id} = sigmoid %r{id}\n  %f{id} = {scale} %g{id}");
                self.push(rows, &format!("scale_rows %v{b}, %f{id}"));
            }
            9 => self.attention(rows, a, b),
            10 => self.open_set(),
            11 | 12 if self.n_sets > 0 => self.gather(),
            _ if rows > 0 => {
                // What was gathered last is what models scatter into.
                let base = if self.below(2) == 0 { self.gathered } else { self.of_rows(0) };
                self.push(0, &format!("scatter %v{base}, %v{a}, %set{rows}"));
            }
            _ => self.push(rows, &format!("layer_norm %v{a}, %b, %b {{eps=1e-3}}")),
        }
    }

    fn gather(&mut self) {
        let set = 1 + self.below(self.n_sets);
        let value = self.of_rows(0);
        self.gathered = value;
        self.push(set, &format!("gather %v{value}, %set{set}"));
    }

    /// A set of all tokens by score, by rank, at random, or out of another. The weights are such that no score comes near the threshold.
    fn open_set(&mut self) {
        self.n_sets += 1;
        let is_seen = self.below(4) > 0;
        let (set, sym) = (self.n_sets, self.n_sets - 1);
        let group_size = 1 + self.below(6);
        let limit = format!("{{set=c{sym}, group_size={group_size}, slots={}}}", self.below(4));
        let wanted = 1 + self.below(self.n_sets);
        // Scores of token ids are exact, so that they rank alike in f32 and in f64.
        _ = writeln!(self.text, "  %e{set} = router_logits %x, %wr");
        let route = match self.below(9) {
            0 | 1 => format!("route_random %p, %s {{set=c{sym}, seed={set}, block={sym}, limit=2147483648}}"),
            2 => format!("route_topk %e{set}, %s {{set=c{sym}, share=0.3}}"),
            3 if wanted < set => format!("limit_first %set{wanted}, %p, %s {limit}"),
            4 if wanted < set => format!("limit_best %set{wanted}, %e{set}, %p, %s {limit}"),
            5 if wanted < set => format!("complement %set{wanted} {{set=c{sym}}}"),
            6 if wanted < set => format!("with_first %set{wanted}, %p {{set=c{sym}, first=2}}"),
            7 if wanted < set => {
                let outer = 1 + self.below(self.n_sets - 1);
                format!("within %set{wanted}, %set{outer} {{set=c{sym}}}")
            }
            _ => {
                let value = self.of_rows(0);
                _ = writeln!(self.text, "  %z{set} = router_logits %v{value}, %wr");
                format!("route %z{set} {{set=c{sym}, at_least=0.123}}")
            }
        };
        // Nobody decides who is in a complement.
        self.seen.push(is_seen && !route.starts_with("complement"));
        _ = writeln!(self.text, "  %set{set} = {route}\n  %gate{set} = executed %set{set}");
        _ = writeln!(self.text, "  %p{set} = gather %p, %set{set}\n  %s{set} = gather %s, %set{set}");
        self.gather();
    }

    fn attention(&mut self, rows: usize, q: usize, rotated: usize) {
        let keys = if self.below(2) == 0 { 0 } else { rows };
        let (k, v) = (self.of_rows(keys), self.of_rows(keys));
        let name = |rows: usize| if rows == 0 { String::new() } else { rows.to_string() };
        let (row, key) = (name(rows), name(keys));
        let id = self.n_values;
        _ = writeln!(self.text, "  %q{id} = rope %v{rotated}, %p{row} {{heads=2, theta=100.0}}");
        _ = writeln!(self.text, "  %qq{id} = add %q{id}, %v{q}");
        let attrs = "{heads=2, kv_heads=2}";
        self.push(
            rows,
            &format!("attention %qq{id}, %v{k}, %v{v}, %p{row}, %s{row}, %p{key}, %s{key} {attrs}"),
        );
    }
}
