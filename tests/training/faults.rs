//! Faults planted in the kernels of the backward pass, each of which has to be caught.

use std::collections::BTreeMap;

use skipc::frontend::lower::Skipping;
use skipc_artifact::target::DType;
use skipc_ir::interp::Gf61;
use skipc_plan::interp::States;
use skipc_plan::kernel::{Body, Kernel, Rows};
use skipc_plan::loops::{Expr, Index, Operator, Stmt};

use crate::call::{EVERY_THIRD, Forced};
use crate::cases;
use crate::forms::with_setting;

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
