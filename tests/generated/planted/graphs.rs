//! Wrong graphs of plain models.

use skipc::frontend::spec::skip::{Kv, Skip};
use skipc::frontend::spec::skip_table::SkipTable;
use skipc_ir::attr::F64;
use skipc_ir::{Binary, Graph, Op, Unary, Value, text};

use super::{Does, Fault, edit, rewrite, with_number};
use crate::model::map_skips;

/// Faults of graphs.
pub(super) fn faults() -> Vec<Fault> {
    let of = |name, does| Fault::new(name, 0, does);
    vec![
        of("no causal mask", Does::Lowered(|graph| attention(graph, [4, 4, 6, 6]))),
        of("other sequences in sight", Does::Lowered(|graph| attention(graph, [3, 3, 5, 5]))),
        of("threshold > instead of >=", Does::Lowered(strict_thresholds)),
        of("capacity counted in the wrong groups", Does::Lowered(wider_groups)),
        of(
            "keys of skipped tokens lost",
            Does::Model(|model| {
                let active = |skip: &Skip| Some(SkipTable { kv: Kv::Active, ..SkipTable::of(skip) }.skip());
                *model = map_skips(model, &mut { active });
            }),
        ),
        of("random router with the seed of another", Does::Passed(other_seed)),
        of("gate and up projection swapped", Does::Passed(swapped_projections)),
        of("base not kept for skipped rows", Does::Passed(lost_base)),
        of("norm over the wrong operand", Does::Passed(wrong_norm)),
        of("softmax scale missing", Does::Passed(unscaled_scores)),
        of("window one position too wide", Does::Passed(wider_windows)),
        of("scores without their cap", Does::Passed(|graph| without_attribute(graph, "cap"))),
        of("frequencies not scaled", Does::Passed(|graph| without_attribute(graph, "scaling"))),
        of("all columns of a head turned", Does::Passed(|graph| without_attribute(graph, "turned"))),
        of("offset of a gain forgotten", Does::Passed(forgotten_offset)),
    ]
}

/// Gives attention other operands as positions and sequences.
fn attention(graph: &mut Graph, pick: [usize; 4]) {
    rewrite(graph, &|graph, value| {
        let Op::Attention { .. } = graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        let old = operands.clone();
        // Missing: the sequence in place of the position. In sight: the position in place of the sequence.
        let places = if pick[0] == 4 { [3, 3, 5, 5] } else { [4, 4, 6, 6] };
        for (place, from) in places.into_iter().zip(pick) {
            operands[place] = old[from];
        }
        graph.add(op, &operands, &origin).ok()
    });
}

fn wider_windows(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "window=", &|number| (number.parse::<u32>().expect("a number") + 1).to_string())
    });
}

/// Leaves an attribute out wherever it may be.
fn without_attribute(graph: &mut Graph, name: &str) {
    edit(graph, &|line| {
        let key = format!(", {name}=");
        let Some(at) = line.find(&key) else { return line.to_owned() };
        let (head, rest) = (&line[..at], &line[at + key.len()..]);
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        format!("{head}{}", &rest[end..])
    });
}

fn forgotten_offset(graph: &mut Graph) {
    edit(graph, &|line| {
        if !line.contains("offset_gain") {
            return line.to_owned();
        }
        with_number(line, "by=", &|_| "0.0".to_owned())
    });
}

fn strict_thresholds(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "at_least=", &|number| {
            format!("{:?}", number.parse::<f64>().expect("a number").next_up())
        })
    });
}

fn wider_groups(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "group_size=", &|number| (number.parse::<u32>().expect("a number") + 1).to_string())
    });
}

fn other_seed(graph: &mut Graph) {
    edit(graph, &|line| {
        with_number(line, "{set=c0, seed=", &|number| {
            (number.parse::<u64>().expect("a number") + 1).to_string()
        })
    });
}

fn swapped_projections(graph: &mut Graph) {
    if !text::print(graph).contains("gate_proj") {
        return;
    }
    edit(graph, &|line| {
        let is_gated = line.contains("up_proj") || line.contains("gate_proj");
        match is_gated {
            true => line
                .replace("gate_proj", "none_proj")
                .replace("up_proj", "gate_proj")
                .replace("none_proj", "up_proj"),
            false => line.to_owned(),
        }
    });
}

fn lost_base(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Scatter {} = graph.op(value) else { return None };
        let (operands, origin) = (graph.operands(value), graph.origin(value).clone());
        let zero = graph.add(Binary::Sub.into(), &[operands[0], operands[0]], &origin).ok()?;
        graph.add(Op::Scatter {}, &[zero, operands[1], operands[2]], &origin).ok()
    });
}

/// The last norm of all rows, or what it scales them by, reads the embedding.
fn wrong_norm(graph: &mut Graph) {
    let order = graph.order();
    let Some(embed) = order.iter().find(|value| matches!(graph.op(**value), Op::Embed {})).copied() else {
        return;
    };
    let is_norm = |value: &&Value| {
        matches!(graph.op(**value), Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::InvRms { .. })
            && graph.operands(**value).first().is_some_and(|x| graph.ty(*x) == graph.ty(embed))
    };
    let Some(norm) = order.iter().rev().find(is_norm).copied() else { return };
    let (op, origin) = (graph.op(norm).clone(), graph.origin(norm).clone());
    let mut operands = graph.operands(norm);
    if operands[0] != embed {
        operands[0] = embed;
        let new = graph.add(op, &operands, &origin).expect("of the same type");
        graph.replace(norm, new).expect("of the same type");
        graph.remove_unused(norm);
    }
}

fn unscaled_scores(graph: &mut Graph) {
    rewrite(graph, &|graph, value| {
        let Op::Attention { heads, .. } = *graph.op(value) else { return None };
        let (op, origin) = (graph.op(value).clone(), graph.origin(value).clone());
        let mut operands = graph.operands(value);
        let skipc_ir::Type::Tensor { dims, .. } = graph.ty(operands[0]) else { return None };
        let skipc_ir::Dim::Fixed(cols) = *dims.get(1)? else { return None };
        let by = F64::from(f64::from(cols / heads).sqrt());
        operands[0] = graph.add(Unary::Scale(by).into(), &[operands[0]], &origin).ok()?;
        if by.0 == 1.0 { None } else { graph.add(op, &operands, &origin).ok() }
    });
}
