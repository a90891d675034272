//! What layers of experts are equal to at their ends: all of them taken, and none that does anything.

use skipc::frontend::layer::{Choosing, Experts, Layer, Score};
use skipc::frontend::lower::Function;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::SubLayer;
use skipc::frontend::spec::tensors::tensors;
use skipc_ir::interp::Ring32;

use crate::check::Checker;
use crate::forms::{Until, compile};
use crate::model::{map_bodies, map_sub_layers};
use crate::subject::Subject;

/// Models are compiled anew for one subject in so many.
const EVERY: u64 = 4;

const SUM: &str = "all experts = the sum of all by score";

/// How much more than any other a choice ranks by that everybody takes.
const CERTAIN: f32 = 1e6;

/// The model with other experts in its layers of them, as many in all. `None` if there is none, or one in which tokens do not
/// choose.
fn with_experts(model: &Model, change: &dyn Fn(Experts) -> Experts) -> Option<Model> {
    let mut all = model.layers().filter_map(|layer| match layer {
        Layer::Experts(experts) => Some(experts.choose),
        Layer::Attention(_) | Layer::Ffn(_) | Layer::Linear(_) | Layer::Conv(_) => None,
    });
    let first = all.next()?;
    if first != Choosing::Token || all.any(|choose| choose != Choosing::Token) {
        return None;
    }
    Some(map_bodies(model, &mut |body| {
        map_sub_layers(body, &mut |of| match of.layer {
            Layer::Experts(experts) => SubLayer { layer: Layer::Experts(change(experts)), ..*of },
            _ => *of,
        })
    }))
}

/// The subject with another model, its tensors cut or filled with zeros to the shapes that this needs.
fn fitted(subject: &Subject, model: Model) -> Subject {
    let mut fitted = subject.with_model(model);
    for tensor in tensors(&fitted.model) {
        fitted.tensors.resize(&tensor.name, tensor.shape.iter().product());
    }
    fitted
}

impl Checker<'_> {
    /// Every token taking every expert = a sum over experts, each of all tokens, by their scores; every token on choices that give
    /// nothing = experts of which nothing comes.
    pub(crate) fn identities(&mut self, function: Function) -> Result<(), String> {
        if !self.subject.seed.is_multiple_of(EVERY) {
            return Ok(());
        }
        let plain = |of: Experts| Experts {
            top_k: of.experts,
            zero: 0,
            copy: 0,
            normalise: false,
            routed_scale: 1.0,
            group_size: 0,
            ..of
        };
        let all = with_experts(&self.subject.model, &plain);
        let summed = |of: Experts| Experts { choose: Choosing::Expert, ..plain(of) };
        // Experts that choose look at later tokens, even where each takes all of them.
        if let (Function::Score, Some(all)) = (function, all) {
            let sum = with_experts(&self.subject.model, &summed).map(|sum| fitted(self.subject, sum));
            let all = fitted(self.subject, all);
            if let Some(sum) = sum {
                self.alike(SUM, function, [&all, &sum])?;
            }
        }
        let none = |of: Experts| Experts {
            top_k: 1,
            zero: of.zero.max(1),
            copy: 0,
            select_bias: true,
            score: Score::Sigmoid,
            ..of
        };
        if let Some(none) = with_experts(&self.subject.model, &none) {
            let [mut none, mut idle] = [none.clone(), none].map(|model| fitted(self.subject, model));
            none.tensors.change(|name, values| {
                let Some(layer) = name.strip_suffix("router.select_bias") else { return };
                let down = |expert: &usize| {
                    let name = format!("{layer}experts.{expert}.down_proj.weight");
                    self.subject.tensors.get(&name).is_some()
                };
                let n_experts = (0..values.len()).take_while(down).count();
                values[n_experts..].fill(CERTAIN);
            });
            idle.tensors.change(|name, values| {
                if name.contains(".experts.") && name.contains("down_proj") {
                    values.fill(0.0);
                }
            });
            self.alike(
                "nothing but zero experts = experts of which nothing comes",
                function,
                [&none, &idle],
            )?;
        }
        Ok(())
    }

    /// Two models give, as numbers, the same logits: as lowered in f64, and after the passes where nothing rounds.
    fn alike(&mut self, check: &str, function: Function, of: [&Subject; 2]) -> Result<(), String> {
        let in_all_domains = check == SUM;
        let batch = self.subject.batch();
        let (mut numbers, mut exact) = (Vec::new(), Vec::new());
        for subject in of {
            let forms = compile(self.compiler, subject, function, Until::Graphs)?;
            let ran = forms.gathered.run::<f64>(&subject.tensors, &batch, None)?;
            // Nothing that is added makes 0 of -0.
            numbers.push(ran.logits.iter().map(|logit| logit + 0.0).collect::<Vec<f64>>());
            exact.push(forms.passed.run::<Ring32>(&subject.tensors, &batch, None)?.logits);
        }
        self.tally.compared(check);
        self.same_rows(check, &numbers[0], &numbers[1]);
        // Where numbers are hashes, no bias is certain to win.
        if in_all_domains {
            self.same_rows(check, &exact[0], &exact[1]);
        }
        Ok(())
    }
}
