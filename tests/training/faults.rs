//! Faults planted in the kernels of the backward pass, each of which has to be caught.

use std::collections::BTreeMap;

use skipc::frontend::lower::Skipping;
use skipc_artifact::target::DType;
use skipc_ir::interp::Gf61;
use skipc_ir::{Dim, Graph, Op, Training, Type, Value};
use skipc_plan::interp::States;
use skipc_plan::kernel::{Body, Kernel, Rows};
use skipc_plan::loops::{Expr, Index, Operator, Stmt};

use crate::call::Forced;
use crate::forms::{EVERY_THIRD, with_setting};
use crate::runs::cases;

/// A fault in a kernel of the backward pass; whether it changed something.
type Fault = fn(&mut Kernel) -> bool;

/// The statements of kernels whose names begin like this.
fn code<'k>(kernel: &'k mut Kernel, name: &str) -> Option<&'k mut Vec<Stmt>> {
    match &mut kernel.body {
        Body::Loops(loops) if loops.name.starts_with(name) => Some(&mut loops.code),
        _ => None,
    }
}

/// `change` of every statement, also within loops; whether one did.
fn each(code: &mut [Stmt], change: &mut dyn FnMut(&mut Stmt) -> bool) -> bool {
    let mut changed = false;
    for stmt in code {
        changed |= change(stmt);
        if let Stmt::For { body, .. } | Stmt::Columns { body, .. } = stmt {
            changed |= each(body, change);
        }
    }
    changed
}

/// The first operator of this kind in an expression becomes another.
fn swapped(expr: &mut Expr, from: Operator, to: Operator) -> bool {
    match expr {
        Expr::Both(operator, ..) if *operator == from => {
            *operator = to;
            true
        }
        Expr::Both(_, a, b) => swapped(a, from, to) || swapped(b, from, to),
        Expr::Call(_, x) => swapped(x, from, to),
        Expr::Is(_) | Expr::Of(_) | Expr::Load(_) | Expr::Count(_) | Expr::Slope(..) => false,
    }
}

/// The operators of a kernel's stores.
fn stores_swapped(kernel: &mut Kernel, name: &str, from: Operator, to: Operator) -> bool {
    let change = &mut |stmt: &mut Stmt| match stmt {
        Stmt::Store(_, value) => swapped(value, from, to),
        _ => false,
    };
    code(kernel, name).is_some_and(|code| each(code, change))
}

const FAULTS: [(&str, Fault); 13] = [
    ("the adjoint of a set takes the first rows in place of its own", |kernel| match &mut kernel.body {
        Body::WeightGradient(gradient) if gradient.dy.rows != Rows::Dense => {
            gradient.dy.rows = Rows::Dense;
            true
        }
        _ => false,
    }),
    ("the gradient of keys before a query is lost", |kernel| {
        code(kernel, "key_value_gradient").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                // The queries that see a key begin one later: its own is left out.
                Stmt::For { from: from @ Index::Of(_), .. } => {
                    *from = from.clone() + Index::Is(1);
                    true
                }
                _ => false,
            })
        })
    }),
    ("the gradient of queries sees one key less", |kernel| {
        code(kernel, "query_gradient").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::For { from: Index::Of(_), to, .. } => {
                    *to = Index::Less(Box::new(to.clone()), 1);
                    true
                }
                _ => false,
            })
        })
    }),
    ("the mean of a softmax's gradient is added", |kernel| {
        code(kernel, "query_gradient").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::Let(_, value @ Expr::Both(Operator::Mul, ..)) => {
                    swapped(value, Operator::Sub, Operator::Add)
                }
                _ => false,
            })
        })
    }),
    ("rotations turn on in place of back", |kernel| {
        stores_swapped(kernel, "rope_gradient", Operator::Add, Operator::Sub)
    }),
    ("the target keeps its probability", |kernel| {
        code(kernel, "cross_entropy_gradient").is_some_and(|code| code.pop().is_some())
    }),
    ("the last token with an id decides its gradient", |kernel| {
        stores_swapped(kernel, "embed_gradient", Operator::Add, Operator::Mul)
    }),
    ("the gradient of a norm lacks what its scale gets", |kernel| {
        stores_swapped(kernel, "rms_norm_gradient", Operator::Sub, Operator::Add)
    }),
    ("gains get the gradient of the first row twice", |kernel| {
        code(kernel, "rms_gain_gradient").is_some_and(|code| {
            let first = code.clone();
            code.extend(first.into_iter().skip(1));
            true
        })
    }),
    ("the rates' gradient lacks its factor", |kernel| {
        code(kernel, "rate_loss_gradient").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::Store(_, value) => swapped(value, Operator::Sub, Operator::Add),
                _ => false,
            })
        })
    }),
    ("a decision gets the gradient of half of its columns", |kernel| {
        code(kernel, "row_dot").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::Reduce { cols, .. } => {
                    *cols /= 2;
                    true
                }
                _ => false,
            })
        })
    }),
    ("gradients replace those of the parts before", |kernel| {
        stores_swapped(kernel, "accumulate", Operator::Add, Operator::Sub)
    }),
    ("an activation has the slope of its input", |kernel| {
        code(kernel, "derivative").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::Store(_, value) => swapped(value, Operator::Mul, Operator::Add),
                _ => false,
            })
        })
    }),
];

/// Each fault changes a gradient of one of the cases, over a field where nothing else can.
#[test]
fn planted_faults_of_the_backward_pass_are_caught() {
    let mut left: BTreeMap<&str, Fault> = FAULTS.into_iter().collect();
    for case in cases() {
        with_setting(&case, 0.5, |setting| {
            let call = setting.call(Skipping::Gathered);
            let right = call.interpreted::<Gf61>(&Forced(EVERY_THIRD));
            left.retain(|_, fault| {
                let mut is_there = false;
                let in_f32 = (setting.model, DType::F32);
                let wrong = call.planned_with::<Gf61>(in_f32, EVERY_THIRD, &mut |plan| {
                    plan.kernels.iter_mut().for_each(|(_, kernel)| is_there |= fault(kernel));
                });
                let is_same = |states: States<Gf61>| {
                    right.iter().all(|(state, theirs)| states.reals(state) == Some(theirs))
                };
                // What reads where nothing is, is caught by the interpreter itself.
                !is_there || wrong.is_ok_and(is_same)
            });
        });
    }
    assert!(left.is_empty(), "not caught: {:?}", left.keys());
}

/// A fault in the graph of a backward pass; whether it changed something.
type GraphFault = fn(&mut Graph) -> bool;

/// A set of tokens that a router decides.
fn decided(graph: &Graph) -> Option<Value> {
    graph.values().find(|value| matches!(graph.ty(*value), Type::Set { of: Dim::Tokens, .. }))
}

const GRAPH_FAULTS: [(&str, GraphFault); 3] = [
    ("the gradient of the keys of skipped tokens is lost", |graph| {
        let is_dense = |value: &Value| {
            matches!(graph.op(*value), Op::Training(Training::KeyValueGradient { .. }))
                && graph.ty(*value).rows() == Dim::Tokens
        };
        let (Some(all), Some(set)) = (graph.values().find(is_dense), decided(graph)) else { return false };
        let (op, operands) = (graph.op(all).clone(), graph.operands(all));
        let mut add = |op: Op, operands: &[Value]| graph.add(op, operands, &"fault".into()).unwrap();
        let again = add(op, &operands);
        let zeros = add(Training::ZerosLike {}.into(), &[again]);
        let kept = add(Op::Gather {}, &[again, set]);
        let lost = add(Op::Scatter {}, &[zeros, kept, set]);
        graph.replace(all, lost).unwrap();
        true
    }),
    ("executed rows get the gradient of what they replace", |graph| {
        let is_zeros = |value: Value| matches!(graph.op(value), Op::Training(Training::ZerosLike {}));
        let is_of_base =
            |value: &Value| matches!(graph.op(*value), Op::Scatter {}) && is_zeros(graph.operands(*value)[1]);
        let Some(of_base) = graph.values().find(is_of_base) else { return false };
        let dy = graph.operands(of_base)[0];
        graph.replace(of_base, dy).unwrap();
        true
    }),
    ("a decision gets the size of a gradient in place of its share in the change", |graph| {
        let is_passage = |value: &Value| matches!(graph.op(*value), Op::Training(Training::RowDot {}));
        let Some(dot) = graph.values().find(is_passage) else { return false };
        let operands = graph.operands(dot);
        let swapped = graph.add(Training::RowDot {}.into(), &[operands[0], operands[0]], &"fault".into());
        graph.replace(dot, swapped.unwrap()).unwrap();
        true
    }),
];

#[test]
fn planted_faults_of_backward_graphs_are_caught() {
    let mut left: BTreeMap<&str, GraphFault> = GRAPH_FAULTS.into_iter().collect();
    for case in cases() {
        with_setting(&case, 0.5, |setting| {
            let right = setting.call(Skipping::Gathered).interpreted::<Gf61>(&Forced(EVERY_THIRD));
            left.retain(|_, fault| {
                let mut call = setting.call(Skipping::Gathered);
                !fault(&mut call.graph) || call.interpreted::<Gf61>(&Forced(EVERY_THIRD)) == right
            });
        });
    }
    assert!(left.is_empty(), "not caught: {:?}", left.keys());
}
