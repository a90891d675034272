//! The backward pass of attention, in three kernels: what the weights of each query's keys are, then the gradient of queries,
//! and that of keys and values. Rows of queries and of keys are ordered by sequence and position, so that the keys that a
//! query sees are one range, and so are the queries that see a key.

use skipc_ir::{Scoring, Value};

use super::super::Ctx;
use super::{Draft, LEAST, Matrix, store};
use crate::error::PlanError;
use crate::fuse::Group;
use crate::loops::{Expr, Function, Index, Local, Stmt, Usage, number};

/// Heads, and how their scores are made.
#[derive(Clone, Copy)]
struct Heads {
    heads: u32,
    kv_heads: u32,
    width: u32,
    scoring: Scoring,
}

/// The operands that all three kernels have.
#[derive(Clone, Copy)]
struct Operands {
    q: Matrix,
    k: Matrix,
    v: Matrix,
    q_pos: Matrix,
    q_seq: Matrix,
    k_pos: Matrix,
    k_seq: Matrix,
    dy: Matrix,
}

/// A query with one of its heads: its row, and the first columns of the head in queries and in keys.
struct OfHead<'i> {
    query: &'i Index,
    q_at: &'i Index,
    kv_at: &'i Index,
}

fn plus(first: &Index, col: &Index) -> Index {
    first.clone() + col.clone()
}

impl Heads {
    /// Heads of queries for each of keys.
    fn share(&self) -> u32 {
        (self.heads / self.kv_heads.max(1)).max(1)
    }

    /// What is done for each head of keys, which `body` gets with its first column.
    fn each_of_keys(&self, draft: &mut Draft, body: impl FnOnce(&Index, &Index, &mut Draft) -> Stmt) -> Stmt {
        draft.each_below(Index::Is(self.kv_heads), |kv, draft| {
            let (named, kv_at) = scaled(draft, kv, self.width);
            vec![named, body(kv, &kv_at, draft)]
        })
    }

    /// What is done for each head of queries that looks at a head of keys; `body` gets its first columns in queries and in
    /// sums.
    fn each_of_queries(
        &self,
        draft: &mut Draft,
        kv: &Index,
        body: impl FnOnce(&Index, &Index, &mut Draft) -> Vec<Stmt>,
    ) -> Stmt {
        draft.each_below(Index::Is(self.share()), |of_kv, draft| {
            let head = Index::Times(Box::new(kv.clone()), self.share()) + of_kv.clone();
            let (q_named, q_at) = scaled(draft, &head, self.width);
            let (first_named, first) = scaled(draft, &head, 3);
            let mut code = vec![q_named, first_named];
            code.extend(body(&q_at, &first, draft));
            code
        })
    }

    /// Of a query and a key: statements, and the variables that hold score and what its product's gradient is multiplied by.
    fn score(
        &self,
        draft: &mut Draft,
        of: &Operands,
        head: &OfHead<'_>,
        key: &Index,
    ) -> (Vec<Stmt>, Expr, Expr) {
        let Heads { width, scoring, .. } = *self;
        let (sum, product) = draft.sum(width, |col| {
            of.q.at(head.query, plus(head.q_at, col)) * of.k.at(key, plus(head.kv_at, col))
        });
        let scale = scoring.scale(width);
        let Some(cap) = scoring.cap else {
            let (named, score) = draft.named(product * number(scale));
            return (vec![sum, named], score, number(scale));
        };
        let (bent, t) = draft.named((product * number(scale) * number(1.0 / cap.0)).call(Function::Tanh));
        let (named, score) = draft.named(t.clone() * number(cap.0));
        let (sloped, slope) = draft.named((number(1.0) - t.clone() * t) * number(scale));
        (vec![sum, bent, named, sloped], score, slope)
    }

    /// `⟨dy, v⟩` of a query and a key.
    fn gain(&self, draft: &mut Draft, of: &Operands, head: &OfHead<'_>, key: &Index) -> (Stmt, Expr) {
        draft.sum(self.width, |col| {
            of.dy.at(head.query, plus(head.q_at, col)) * of.v.at(key, plus(head.kv_at, col))
        })
    }

    /// The weight of a key, and the gradient of its product with the query.
    fn weighed(
        &self,
        draft: &mut Draft,
        (of, sums): (&Operands, Matrix),
        (head, first): (&OfHead<'_>, &Index),
        key: &Index,
    ) -> (Vec<Stmt>, Expr, Expr) {
        let sum = |idx: u32| sums.at(head.query, first.clone() + Index::Is(idx));
        let (mut code, score, slope) = self.score(draft, of, head, key);
        let (gained, gain) = self.gain(draft, of, head, key);
        let (named, weight) = draft.named((score - sum(0)).call(Function::Exp) / sum(1));
        let change = (gain - sum(2) / sum(1)) * weight.clone() * slope;
        let (changed, change) = draft.named(change);
        code.extend([gained, named, changed]);
        (code, weight, change)
    }

    /// Of a query with a head: its largest score, the sum of its weights, and theirs times `⟨dy, v⟩`.
    fn sums(
        &self,
        draft: &mut Draft,
        of: &Operands,
        head: &OfHead<'_>,
        range: &(Index, Index),
    ) -> (Vec<Stmt>, [Expr; 3]) {
        let (largest, most) = draft.fold(range.clone(), number(LEAST), |key, most, draft| {
            let (code, score, _) = self.score(draft, of, head, key);
            (code, most.max(score))
        });
        let (named, most) = draft.named(most.call(Function::Largest));
        let (idx, total, gained) = (draft.local(), draft.local(), draft.local());
        let key = Index::Of(idx);
        let (mut body, score, _) = self.score(draft, of, head, &key);
        let (gain_stmt, gain) = self.gain(draft, of, head, &key);
        let (weighs, weight) = draft.named((score - most.clone()).call(Function::Exp));
        body.extend([gain_stmt, weighs]);
        let carried = vec![
            (total, number(0.0), Expr::Of(total) + weight.clone()),
            (gained, number(0.0), Expr::Of(gained) + weight * gain),
        ];
        let sums = Stmt::For { idx, from: range.0.clone(), to: range.1.clone(), carried, body };
        (vec![largest, named, sums], [most, Expr::Of(total), Expr::Of(gained)])
    }

    /// The rows of keys that a query sees: the first, and the one behind the last.
    fn seen(&self, draft: &mut Draft, of: &Operands, query: &Index) -> (Vec<Stmt>, (Index, Index)) {
        let (sequence, position) = (of.q_seq.word(query), of.q_pos.word(query));
        let first = match self.scoring.window {
            Some(window) => Index::Less(Box::new(position.clone()), window - 1),
            None => Index::Is(0),
        };
        let (from, begin) = search(draft, (of.k_seq, of.k_pos), (sequence.clone(), first));
        let behind = Index::Is(self.scoring.ahead.unwrap_or(0) + 1);
        let (to, end) = search(draft, (of.k_seq, of.k_pos), (sequence, position + behind));
        (vec![from, to], (begin, end))
    }

    /// The rows of queries that see a key.
    fn seeing(&self, draft: &mut Draft, of: &Operands, key: &Index) -> (Vec<Stmt>, (Index, Index)) {
        let (sequence, position) = (of.k_seq.word(key), of.k_pos.word(key));
        let first = Index::Less(Box::new(position.clone()), self.scoring.ahead.unwrap_or(0));
        let (from, begin) = search(draft, (of.q_seq, of.q_pos), (sequence.clone(), first));
        let end = match self.scoring.window {
            Some(window) => (sequence, position + Index::Is(window)),
            None => (sequence + Index::Is(1), Index::Is(0)),
        };
        let (to, end) = search(draft, (of.q_seq, of.q_pos), end);
        (vec![from, to], (begin, end))
    }
}

fn search(
    draft: &mut Draft,
    (sequences, positions): (Matrix, Matrix),
    place: (Index, Index),
) -> (Stmt, Index) {
    let to = draft.local();
    let rows = positions.rows();
    let (sequences, positions) = (sequences.view, positions.view);
    (Stmt::Search { to, sequences, positions, rows, place }, Index::Of(to))
}

/// Names the product of an index.
fn scaled(draft: &mut Draft, index: &Index, by: u32) -> (Stmt, Index) {
    let local: Local = draft.local();
    (Stmt::LetIndex(local, Index::Times(Box::new(index.clone()), by)), Index::Of(local))
}

impl Ctx<'_> {
    fn heads(
        &self,
        value: Value,
        (heads, kv_heads): (u32, u32),
        scoring: Scoring,
    ) -> Result<Heads, PlanError> {
        let Some(q) = self.graph.operands(value).first().copied() else {
            return Err(self.internal("attention has queries", value));
        };
        let width = self.graph.ty(q).cols() / heads.max(1);
        Ok(Heads { heads, kv_heads, width, scoring })
    }

    fn attended(&mut self, draft: &mut Draft, operands: &[Value]) -> Result<Operands, PlanError> {
        let mut read = |draft: &mut Draft, name, idx: usize| self.reads(draft, name, operands[idx]);
        Ok(Operands {
            q: read(draft, "q", 0)?,
            k: read(draft, "k", 1)?,
            v: read(draft, "v", 2)?,
            q_pos: read(draft, "q_pos", 3)?,
            q_seq: read(draft, "q_seq", 4)?,
            k_pos: read(draft, "k_pos", 5)?,
            k_seq: read(draft, "k_seq", 6)?,
            dy: read(draft, "dy", 7)?,
        })
    }

    /// For each head of each query its largest score, the sum of its weights, and theirs times `⟨dy, v⟩`.
    pub(super) fn attention_sums(
        &mut self,
        group: &Group,
        value: Value,
        heads: (u32, u32),
        scoring: Scoring,
    ) -> Result<(), PlanError> {
        let of_heads = self.heads(value, heads, scoring)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let operands = self.graph.operands(value);
        let of = self.attended(&mut draft, &operands)?;
        let out = self.makes(&mut draft, value, Usage::Write)?;
        let query = Index::Row;
        let (mut code, range) = of_heads.seen(&mut draft, &of, &query);
        code.push(of_heads.each_of_keys(&mut draft, |kv, kv_at, draft| {
            of_heads.each_of_queries(draft, kv, |q_at, first, draft| {
                let head = OfHead { query: &query, q_at, kv_at };
                let (mut code, values) = of_heads.sums(draft, &of, &head, &range);
                for (idx, value) in (0..).zip(values) {
                    code.push(store(out, &query, first.clone() + Index::Is(idx), value));
                }
                code
            })
        }));
        let name = format!("attention_sums_{}x{}x{}", heads.0, heads.1, of_heads.width);
        self.finish_draft(group, name, draft, code);
        Ok(())
    }

    pub(super) fn query_gradient(
        &mut self,
        group: &Group,
        value: Value,
        heads: (u32, u32),
        scoring: Scoring,
    ) -> Result<(), PlanError> {
        let of_heads = self.heads(value, heads, scoring)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let operands = self.graph.operands(value);
        let of = self.attended(&mut draft, &operands)?;
        let sums = self.reads(&mut draft, "weights", operands[8])?;
        let (out, round) = self.sums_up(&mut draft, value)?;
        let query = Index::Row;
        let (mut code, range) = of_heads.seen(&mut draft, &of, &query);
        code.push(draft.each(out.cols, |col, _| vec![store(out, &query, col.clone(), number(0.0))]));
        code.push(of_heads.each_of_keys(&mut draft, |kv, kv_at, draft| {
            of_heads.each_of_queries(draft, kv, |q_at, first, draft| {
                vec![draft.each_from(range.clone(), |key, draft| {
                    let head = OfHead { query: &query, q_at, kv_at };
                    let (mut code, _, change) = of_heads.weighed(draft, (&of, sums), (&head, first), key);
                    code.push(draft.each(of_heads.width, |col, _| {
                        let at = plus(q_at, col);
                        let more = change.clone() * of.k.at(key, plus(kv_at, col));
                        vec![store(out, &query, at.clone(), out.at(&query, at) + more)]
                    }));
                    code
                })]
            })
        }));
        code.extend(round);
        let name = format!("query_gradient_{}x{}x{}", heads.0, heads.1, of_heads.width);
        self.finish_draft(group, name, draft, code);
        Ok(())
    }

    pub(super) fn key_value_gradient(
        &mut self,
        group: &Group,
        value: Value,
        heads: (u32, u32),
        scoring: Scoring,
    ) -> Result<(), PlanError> {
        let of_heads = self.heads(value, heads, scoring)?;
        let mut draft = self.draft(self.graph.ty(value).rows(), value)?;
        let operands = self.graph.operands(value);
        let of = self.attended(&mut draft, &operands)?;
        let sums = self.reads(&mut draft, "weights", operands[8])?;
        let (out, round) = self.sums_up(&mut draft, value)?;
        let (key, kv_cols) = (Index::Row, of.k.cols);
        let (mut code, range) = of_heads.seeing(&mut draft, &of, &key);
        code.push(draft.each(out.cols, |col, _| vec![store(out, &key, col.clone(), number(0.0))]));
        code.push(of_heads.each_of_keys(&mut draft, |kv, kv_at, draft| {
            of_heads.each_of_queries(draft, kv, |q_at, first, draft| {
                vec![draft.each_from(range.clone(), |query, draft| {
                    let head = OfHead { query, q_at, kv_at };
                    let (mut code, weight, change) =
                        of_heads.weighed(draft, (&of, sums), (&head, first), &key);
                    code.push(draft.each(of_heads.width, |col, _| {
                        let (at, at_q) = (plus(kv_at, col), plus(q_at, col));
                        let of_value = at.clone() + Index::Is(kv_cols);
                        let of_key = change.clone() * of.q.at(query, at_q.clone());
                        let more = weight.clone() * of.dy.at(query, at_q);
                        vec![
                            store(out, &key, at.clone(), out.at(&key, at) + of_key),
                            store(out, &key, of_value.clone(), out.at(&key, of_value) + more),
                        ]
                    }));
                    code
                })]
            })
        }));
        code.extend(round);
        let name = format!("key_value_gradient_{}x{}x{}", heads.0, heads.1, of_heads.width);
        self.finish_draft(group, name, draft, code);
        Ok(())
    }
}
