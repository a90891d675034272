//! All forms of a subject against each other.

use skipc::frontend::lower::Function;
use skipc_ir::interp::{FlatBatch, Gf61, Number, Ring32};
use skipc_plan::interp::{Element, Mode, Tiling};
use skipc_testkit::random::Rng;

use crate::bounded::{Bounded, Noisy, tighten};
use crate::forms::{Compiler, Forms, Until, compile};
use crate::rules::{RouterOf, Score, Should, constants, routers};
use crate::run::{ExactWeights, GraphForm, Masks, PlanForm, Run};
use crate::subject::{Subject, Tensors, options};
use crate::tally::{Finding, Tally};

/// A logit may be off by so many times the bound of [`Bounded`]. The bound follows the ops of the graph; kernels may
/// sum in f32 what the graph divides, or write a function in another of its forms.
const SLACK: f64 = 2.0;

/// How fused and unfused kernels are run.
const FUSED: (Mode, Tiling) = (Mode::Arena, Tiling { rows: 7, reversed: false });
const UNFUSED: (Mode, Tiling) = (Mode::Separate, Tiling { rows: 3, reversed: true });

/// An f64 form may be off by this share of what an f32 form may be: their units differ by 2^29, which leaves 8 for
/// what the first order of a bound leaves out.
const F64_SHARE: f64 = 1.0 / (1u64 << 26) as f64;

/// Decisions that a subject is run under.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// `None`: routers decide.
    pub(crate) masks: Option<Masks>,
    /// Whether all forms run under them: always where they are free or random, else for every third seed.
    pub(crate) in_all_forms: bool,
}

/// A number domain in which two forms are compared to the bit.
pub(crate) trait Domain: skipc_ir::Domain {
    const NAME: &'static str;
    fn same(self, other: Self) -> bool;
}

impl Domain for f64 {
    const NAME: &'static str = "f64";
    fn same(self, other: f64) -> bool {
        self.to_bits() == other.to_bits()
    }
}

impl Domain for f32 {
    const NAME: &'static str = "f32";
    fn same(self, other: f32) -> bool {
        self.to_bits() == other.to_bits()
    }
}

impl Domain for Ring32 {
    const NAME: &'static str = "ring mod 2^32";
    fn same(self, other: Ring32) -> bool {
        self == other
    }
}

impl Domain for Gf61 {
    const NAME: &'static str = "GF(2^61-1)";
    fn same(self, other: Gf61) -> bool {
        self == other
    }
}

/// Checks subjects and counts.
pub(crate) struct Checker<'a> {
    pub(crate) compiler: &'a dyn Compiler,
    pub(crate) subject: &'a Subject,
    pub(crate) until: Until,
    pub(crate) tally: Tally,
}

/// Checks a subject in every way there is.
pub(crate) fn check_subject(compiler: &dyn Compiler, subject: &Subject, until: Until) -> Tally {
    let mut checker = Checker { compiler, subject, until, tally: Tally { models: 1, ..Tally::default() } };
    for option in options(subject) {
        checker.tally.options.insert(option, 1);
    }
    checker.text();
    for function in Function::of(&subject.model) {
        let checked = match function {
            Function::Score | Function::Generate => checker.all(function),
            Function::Step => checker.steps(),
        };
        if let Err(error) = checked {
            checker.found("compiles and runs", format!("{function}: {error}"));
        }
    }
    checker.tally
}

/// Masks of all routers: constants as they are, others by `decide(kind, row)`. Routers that decide alike whatever the
/// numbers have one kind, all others one each.
pub(crate) fn masks(
    routers: &[RouterOf<'_>],
    n: usize,
    decide: &mut dyn FnMut(usize, usize) -> bool,
) -> Masks {
    let constants = constants(routers);
    let mut masks: Masks = Vec::new();
    for (idx, router) in routers.iter().enumerate() {
        let is_twin = |other: &RouterOf<'_>| router.key().is_some() && router.key() == other.key();
        let twin = routers[..idx].iter().position(is_twin);
        masks.push(match (constants[idx], twin) {
            (Some(value), _) => vec![value; n],
            (None, Some(twin)) => masks[twin].clone(),
            (None, None) => (0..n).map(|row| decide(idx, row)).collect(),
        });
        if let Some(outer) = router.outer {
            let (before, rest) = masks.split_at_mut(idx);
            rest[0].iter_mut().zip(&before[outer]).for_each(|(executes, may)| *executes &= may);
        }
    }
    masks
}

impl Checker<'_> {
    pub(crate) fn found(&mut self, check: &str, detail: String) {
        self.tally.findings.push(Finding { seed: self.subject.seed, check: check.to_owned(), detail });
    }

    /// The spec as text reads back to the same model.
    fn text(&mut self) {
        let check = "spec text reads back";
        self.tally.compared(check);
        match skipc::frontend::spec::model("generated.toml", &self.subject.model.to_string()) {
            Ok(model) if model == self.subject.model => {}
            Ok(_) => self.found(check, "as another model".to_owned()),
            Err(found) => self.found(check, format!("{found:?}")),
        }
    }

    pub(crate) fn cases(&self) -> Vec<Case> {
        let routers = routers(&self.subject.model);
        let n = self.subject.n_tokens();
        let mut rng = Rng::new(self.subject.seed ^ 0x5eed);
        let third = ["none", "all", "edge count"][(self.subject.seed % 3) as usize];
        let forced = |name, decide: &mut dyn FnMut(usize, usize) -> bool| Case {
            name,
            masks: Some(masks(&routers, n, decide)),
            in_all_forms: name == "random" || name == third,
        };
        let edges: Vec<usize> =
            [1, 2, 3, 4, 6, 7, 8, n.saturating_sub(1)].into_iter().filter(|count| *count < n).collect();
        let mut left: Vec<usize> = routers.iter().map(|_| rng.pick(&edges).unwrap_or(0)).collect();
        let mut shuffle = rng.clone();
        let quarter = 1 + rng.below(3);
        vec![
            Case { name: "free", masks: None, in_all_forms: true },
            forced("none", &mut |_, _| false),
            forced("all", &mut |_, _| true),
            forced("random", &mut |_, _| rng.below(4) < quarter),
            // So many rows at random: each of the rest is as likely as the next.
            forced("edge count", &mut |router, row| {
                let takes = left[router] > 0 && shuffle.below(n - row) < left[router];
                left[router] -= usize::from(takes);
                takes
            }),
        ]
    }

    fn all(&mut self, function: Function) -> Result<(), String> {
        let mut forms = compile(self.compiler, self.subject, function, self.until)?;
        if let Some(reason) = &forms.refused {
            *self.tally.refused.entry(reason.clone()).or_default() += 1;
        }
        let batch = self.subject.batch();
        let cases = self.cases();
        let full: Vec<&Case> = cases.iter().filter(|case| case.in_all_forms).collect();
        self.graphs::<f64>(&forms, &batch, full.iter().copied())?;
        self.graphs::<Ring32>(&forms, &batch, full.iter().copied())?;
        // What holds in one exact domain and fails in the other is rare: free and random decisions are enough.
        let few: Vec<&Case> = cases.iter().filter(|case| ["free", "random"].contains(&case.name)).collect();
        self.graphs::<Gf61>(&forms, &batch, few.iter().copied())?;
        self.graphs::<f32>(&forms, &batch, few.into_iter().take(1))?;
        self.kernels(&forms, &batch, &full)?;
        let free = forms.gathered.run::<f64>(&self.subject.tensors, &batch, None)?;
        self.rules(function, &batch, &free);
        let weights = ExactWeights(&self.subject.tensors);
        for case in full {
            let of = |form| Checked { function, batch: &batch, form, runs: Vec::new() };
            // What is made of the graph after the passes rounds as that does.
            let (mut gathered, mut checked) = (of(&forms.gathered), of(&forms.passed));
            let masks = case.masks.as_ref();
            self.passed_f64(&forms.passed, masks, [&mut gathered, &mut checked], &weights)?;
            for (name, form, checked) in
                [("graph", &forms.gathered, &mut gathered), ("passed graph", &forms.passed, &mut checked)]
            {
                let got = form.run::<f32>(&self.subject.tensors, &batch, masks)?;
                let logits = got.logits.into_iter().map(f64::from).collect();
                let got = Run { wanted: got.wanted, ..Run::of(logits, got.gates) };
                let check = format!("{name} f32 within bound ({})", case.name);
                self.within(&check, &got, masks, checked, &weights)?;
            }
            if let Some([fused, unfused]) = &forms.plans {
                for (name, plan, how) in [("kernels", fused, FUSED), ("unfused kernels", unfused, UNFUSED)] {
                    let got = plan.run(&batch, masks, how).map_err(|fault| format!("{name}: {fault}"))?;
                    self.within(
                        &format!("{name} f32 within bound ({})", case.name),
                        &got,
                        masks,
                        &mut checked,
                        &weights,
                    )?;
                }
            }
            if let (Some([fused, _]), "random") = (&forms.plans, case.name) {
                self.kernels_f64(fused, masks, &mut checked, &weights)?;
            }
            if let Some(code) = &mut forms.code {
                let got = code.run(self.subject, masks).map_err(|error| format!("code: {error}"))?;
                self.within(
                    &format!("code within bound ({})", case.name),
                    &got,
                    masks,
                    &mut checked,
                    &weights,
                )?;
            }
        }
        self.identities(function)?;
        self.metamorphic(function, &mut forms, &cases)
    }

    /// Planned kernels = gathered, where nothing rounds: fused ones in the arena and in one domain, unfused ones apart
    /// from each other, tiles backwards, in the other.
    fn kernels(&mut self, forms: &Forms, batch: &FlatBatch, cases: &[&Case]) -> Result<(), String> {
        let Some([fused, unfused]) = &forms.plans else { return Ok(()) };
        for case in cases {
            self.kernels_in::<Ring32>(forms, ("kernels", fused), batch, case, FUSED)?;
            if case.masks.is_none() || case.name == "random" {
                self.kernels_in::<Gf61>(forms, ("unfused kernels", unfused), batch, case, UNFUSED)?;
            }
        }
        Ok(())
    }

    fn kernels_in<N: Domain + Element>(
        &mut self,
        forms: &Forms,
        (name, plan): (&str, &PlanForm),
        batch: &FlatBatch,
        case: &Case,
        how: (Mode, Tiling),
    ) -> Result<(), String> {
        let (weights, masks) = (&self.subject.tensors, case.masks.as_ref());
        let wanted = forms.gathered.run::<N>(weights, batch, masks)?;
        let got = plan.run_in::<N>(weights, batch, masks, how).map_err(|fault| format!("{name}: {fault}"))?;
        self.same(&format!("{name} = gathered, {} ({})", N::NAME, case.name), &got, &wanted);
        Ok(())
    }

    /// Masked = gathered, to the bit, and after the passes where nothing rounds.
    fn graphs<'c, N: Domain>(
        &mut self,
        forms: &Forms,
        batch: &FlatBatch,
        cases: impl IntoIterator<Item = &'c Case>,
    ) -> Result<(), String> {
        for case in cases {
            let masks = case.masks.as_ref();
            let weights = &self.subject.tensors;
            let wanted = forms.gathered.run::<N>(weights, batch, masks)?;
            let passed = N::EXACT.then_some(("passed", &forms.passed));
            for (name, form) in [("masked", &forms.masked)].into_iter().chain(passed) {
                let got = form.run::<N>(weights, batch, masks)?;
                let check = format!("{name} = gathered, {} ({})", N::NAME, case.name);
                self.same(&check, &got, &wanted);
                // Where decisions are forced, nobody asks what a router wanted: a set that it shares with another
                // router's decision may be forced with that.
                if masks.is_none() && got.wanted != wanted.wanted {
                    self.found(&check, "routers want other tokens".to_owned());
                }
            }
            if let Some(masks) = masks
                && *masks != wanted.gates
            {
                self.found("forced decisions are kept", case.name.to_owned());
            }
        }
        Ok(())
    }

    /// Compares to the bit.
    pub(crate) fn same<N: Domain>(&mut self, check: &str, got: &Run<N>, wanted: &Run<N>) {
        self.tally.compared(check);
        if got.gates != wanted.gates {
            self.found(check, format!("decisions {:?}, not {:?}", got.gates, wanted.gates));
            return;
        }
        self.same_rows(check, &got.logits, &wanted.logits);
    }

    /// Compares numbers to the bit.
    pub(crate) fn same_rows<N: Domain>(&mut self, check: &str, got: &[N], wanted: &[N]) {
        if got.len() != wanted.len() {
            self.found(check, format!("{} numbers, not {}", got.len(), wanted.len()));
        } else if let Some(at) = (0..got.len()).find(|at| !got[*at].same(wanted[*at])) {
            self.found(check, format!("logit {at} is {:?}, not {:?}", got[at], wanted[at]));
        }
    }

    /// Decisions of exact scores are those of the rules.
    fn rules(&mut self, function: Function, batch: &FlatBatch, free: &Run<f64>) {
        let check = "decisions by the rules, f64";
        self.tally.compared(check);
        let routers = routers(&self.subject.model);
        for (idx, router) in routers.iter().enumerate() {
            let exact =
                |scores: &Vec<f64>| scores.iter().map(|value| Score { value: *value, error: 0.0 }).collect();
            let scores = [0, 1].map(|which| free.scores[idx][which].as_ref().map(exact));
            let should = router.should(function, (batch, &free.gates), &scores);
            let wanted = free.wanted[idx].as_ref().unwrap_or(&free.gates[idx]);
            for (what, got, should) in
                [("wants", wanted, &should.wanted), ("executes", &free.gates[idx], &should.executed)]
            {
                if let Some(row) = breach(got, should) {
                    self.found(
                        check,
                        format!("router {idx} {what} {}: token {row} should {:?}", got[row], should[row]),
                    );
                }
            }
        }
    }

    /// Planned kernels in f64, within what is left of the bound when the unit is that of f64.
    fn kernels_f64(
        &mut self,
        plan: &PlanForm,
        masks: Option<&Masks>,
        checked: &mut Checked<'_>,
        weights: &ExactWeights<'_>,
    ) -> Result<(), String> {
        let check = "kernels f64 within bound";
        self.tally.compared(check);
        let got = plan.run_in::<f64>(&self.subject.tensors, checked.batch, masks, FUSED)?;
        let graph = checked.form.run::<f64>(&self.subject.tensors, checked.batch, Some(&got.gates))?;
        if checked.choice_is_near(&got.gates, weights)? {
            return Ok(());
        }
        let bounds = checked.under(&got.gates, weights)?;
        let mut pairs = got.logits.iter().zip(&graph.logits).zip(&bounds.logits);
        let far = pairs.find(|((got, wanted), bound)| {
            bound.error.is_finite() && (**got - **wanted).abs() > F64_SHARE * bound.error
        });
        if let Some(((got, wanted), bound)) = far {
            self.found(check, format!("a logit is {got}, not {wanted}: {bound:?}"));
        }
        Ok(())
    }

    /// The graph after the passes in f64: within what both graphs may be off, and its free decisions those of the graph
    /// before the passes but for near ties.
    fn passed_f64(
        &mut self,
        passed: &GraphForm,
        masks: Option<&Masks>,
        checked: [&mut Checked<'_>; 2],
        weights: &ExactWeights<'_>,
    ) -> Result<(), String> {
        let check = "passed f64 within bound";
        self.tally.compared(check);
        let [gathered, after] = checked;
        let (function, batch) = (gathered.function, gathered.batch);
        let got = passed.run::<f64>(&self.subject.tensors, batch, masks)?;
        let wanted = gathered.form.run::<f64>(&self.subject.tensors, batch, Some(&got.gates))?;
        if gathered.choice_is_near(&got.gates, weights)? || after.choice_is_near(&got.gates, weights)? {
            return Ok(());
        }
        let before = gathered.under(&got.gates, weights)?;
        let after = after.under(&got.gates, weights)?;
        let allowed = |before: &Bounded, after: &Bounded| F64_SHARE * (before.error + after.error);
        let bounds = before.logits.iter().zip(&after.logits).map(|(before, after)| allowed(before, after));
        let mut pairs = got.logits.iter().zip(&wanted.logits).zip(bounds);
        let far =
            pairs.find(|((got, wanted), allowed)| allowed.is_finite() && (**got - **wanted).abs() > *allowed);
        if let Some(((got, wanted), allowed)) = far {
            self.found(check, format!("a logit is {got}, not {wanted} ± {allowed:e}"));
        }
        if masks.is_some() {
            return Ok(());
        }
        for (idx, router) in routers(&self.subject.model).iter().enumerate() {
            let scores = [0, 1].map(|which| {
                let (values, before) =
                    (wanted.scores[idx][which].as_ref()?, before.scores[idx][which].as_ref()?);
                let after = after.scores[idx][which].as_ref()?;
                let errors = before.iter().zip(after).map(|(before, after)| allowed(before, after));
                let scores = values.iter().zip(errors).map(|(value, error)| Score { value: *value, error });
                Some(scores.collect())
            });
            let should = router.should(function, (batch, &got.gates), &scores).executed;
            if let Some(row) = breach(&got.gates[idx], &should) {
                self.found(
                    check,
                    format!("router {idx}: token {row} should {:?}, scores {scores:?}", should[row]),
                );
            }
        }
        Ok(())
    }

    /// Logits are within their bounds of f64 under the same decisions, and free decisions are those of f64 but for
    /// near ties.
    pub(crate) fn within(
        &mut self,
        check: &str,
        got: &Run<f64>,
        forced: Option<&Masks>,
        checked: &mut Checked<'_>,
        weights: &ExactWeights<'_>,
    ) -> Result<(), String> {
        self.tally.compared(check);
        if let Some(forced) = forced
            && *forced != got.gates
        {
            self.found(check, "forced decisions are not kept".to_owned());
        }
        let function = checked.function;
        let batch = checked.batch;
        self.tally.choices += checked.under(&got.gates, weights)?.logits_of_experts.len() as u64;
        if checked.choice_is_near(&got.gates, weights)? {
            // Another choice of experts gives other numbers, and nobody can say which was taken.
            self.tally.near_choices += checked.under(&got.gates, weights)?.logits_of_experts.len() as u64;
            return Ok(());
        }
        let wanted = checked.under(&got.gates, weights)?;
        if got.logits.len() != wanted.logits.len() {
            self.found(check, format!("{} logits, not {}", got.logits.len(), wanted.logits.len()));
            return Ok(());
        }
        for (at, (got, wanted)) in got.logits.iter().zip(&wanted.logits).enumerate() {
            if !wanted.error.is_finite() {
                self.tally.unbounded += 1;
                continue;
            }
            self.tally.bounded += 1;
            let (off, allowed) = ((got - wanted.value).abs(), SLACK * wanted.error);
            if off <= allowed {
                self.tally.worst_share =
                    self.tally.worst_share.max(if off > 0.0 { off / allowed } else { 0.0 });
            } else {
                self.found(check, format!("logit {at} is {got}, not {} ± {allowed:e}", wanted.value));
                break;
            }
        }
        if forced.is_some() {
            return Ok(());
        }
        let model = &self.subject.model;
        for (idx, router) in routers(model).iter().enumerate() {
            let bound = |scores: &Vec<Bounded>| {
                scores.iter().map(|score| Score { value: score.value, error: SLACK * score.error }).collect()
            };
            let scores = [0, 1].map(|which| wanted.scores[idx][which].as_ref().map(bound));
            let should = router.should(function, (batch, &got.gates), &scores).executed;
            self.tally.decisions += should.len() as u64;
            self.tally.near_ties += should.iter().filter(|should| **should == Should::Either).count() as u64;
            if let Some(row) = breach(&got.gates[idx], &should) {
                self.found(
                    check,
                    format!("router {idx}: token {row} should {:?}, scores {scores:?}", should[row]),
                );
            }
        }
        Ok(())
    }
}

/// The first token that does not do what it certainly should.
fn breach(got: &[bool], should: &[Should]) -> Option<usize> {
    let wrong = |row: &usize| match should[*row] {
        Should::Execute => !got[*row],
        Should::Skip => got[*row],
        Should::Either => false,
    };
    if got.len() != should.len() { Some(0) } else { (0..got.len()).find(wrong) }
}

/// The gathered graph with bounds, under every set of decisions asked for so far.
pub(crate) struct Checked<'a> {
    pub(crate) function: Function,
    pub(crate) batch: &'a FlatBatch,
    pub(crate) form: &'a GraphForm,
    pub(crate) runs: Vec<Run<Bounded>>,
}

impl Checked<'_> {
    fn under(&mut self, gates: &Masks, weights: &ExactWeights<'_>) -> Result<&Run<Bounded>, String> {
        let known = self.runs.iter().position(|run| run.gates == *gates);
        let idx = match known {
            Some(idx) => idx,
            None => {
                let mut run: Run<Bounded> = self.form.run(weights, self.batch, Some(gates))?;
                if run.is_tight() {
                    self.runs.push(run);
                    return Ok(&self.runs[self.runs.len() - 1]);
                }
                let noisy = [
                    self.noisy::<1>(gates, weights.0)?,
                    self.noisy::<2>(gates, weights.0)?,
                    self.noisy::<3>(gates, weights.0)?,
                ];
                let logits: Vec<Vec<f64>> = noisy.iter().map(|run| run.logits.clone()).collect();
                let cols = run.logits.len().checked_div(self.batch.len()).unwrap_or(0);
                tighten(&mut run.logits, &logits, cols);
                for (router, scores) in run.scores.iter_mut().enumerate() {
                    for (which, scores) in scores.iter_mut().enumerate() {
                        let Some(scores) = scores else { continue };
                        let seen = noisy
                            .iter()
                            .filter_map(|run| run.scores[router][which].clone())
                            .collect::<Vec<_>>();
                        tighten(scores, &seen, 1);
                    }
                }
                for (idx, (chosen, logits)) in
                    self.form.chosen.iter().zip(&mut run.logits_of_experts).enumerate()
                {
                    let seen: Vec<Vec<f64>> =
                        noisy.iter().map(|run| run.logits_of_experts[idx].clone()).collect();
                    tighten(logits, &seen, chosen.n);
                }
                self.runs.push(run);
                self.runs.len() - 1
            }
        };
        Ok(&self.runs[idx])
    }

    /// Whether rounding may decide which experts a row takes.
    fn choice_is_near(&mut self, gates: &Masks, weights: &ExactWeights<'_>) -> Result<bool, String> {
        let form = self.form;
        let run = self.under(gates, weights)?;
        let mut choices = form.chosen.iter().zip(&run.logits_of_experts);
        Ok(choices.any(|(chosen, logits)| chosen.is_near(logits, weights.0, SLACK)))
    }

    fn noisy<const KIND: u64>(&self, gates: &Masks, weights: &Tensors) -> Result<Run<f64>, String> {
        let run = self.form.run::<Noisy<KIND>>(weights, self.batch, Some(gates))?;
        let numbers = |numbers: Vec<Noisy<KIND>>| numbers.into_iter().map(Number::to_f64).collect();
        Ok(Run {
            logits: numbers(run.logits),
            gates: run.gates,
            wanted: run.wanted,
            scores: run.scores.into_iter().map(|scores| scores.map(|scores| scores.map(numbers))).collect(),
            logits_of_experts: run.logits_of_experts.into_iter().map(numbers).collect(),
        })
    }
}

impl Run<Bounded> {
    /// Whether its bounds say enough by themselves.
    fn is_tight(&self) -> bool {
        let scores = self.scores.iter().flatten().flatten().flatten();
        let of_experts = self.logits_of_experts.iter().flatten();
        self.logits.iter().chain(scores).chain(of_experts).all(Bounded::is_tight)
    }
}
