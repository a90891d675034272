//! Whether the forms that are timed compute the same.

use skipc_runtime::{Batch, Outputs};

use crate::diagnostic::Diagnostic;
use crate::driver::pipeline::Variant;
use crate::error::{Error, ErrorKind};

/// Largest difference between two forms' logits, relative to the largest logit: they sum in different orders, and
/// another model than the one asked for is far outside of it. `skipc verify` is the sharp comparison.
pub const TOLERANCE: f64 = 2e-4;

/// What was run.
pub(super) struct Case<'a> {
    pub(super) batch: &'a Batch,
    pub(super) density: f64,
    /// Which of the sets of inputs.
    pub(super) set: usize,
}

/// Compares all forms with each other; returns the largest difference, relative to the largest logit.
pub(super) fn check(case: &Case<'_>, outputs: &[(Variant, Outputs)]) -> Result<f64, Error> {
    for (form, outputs) in outputs {
        if case.batch.routing.as_ref() != Some(&outputs.gates) {
            let message = format!("{} does not take the decisions that were forced", form.name());
            return Err(mismatch(case, &message));
        }
    }
    let logits = outputs.iter().flat_map(|(_, outputs)| &outputs.logits);
    let largest = logits.map(|logit| f64::from(logit.abs())).fold(0.0, f64::max);
    let mut worst = 0.0f64;
    for (idx, (form, one)) in outputs.iter().enumerate() {
        for (other_form, other) in outputs.iter().skip(idx + 1) {
            let found = distance(&one.logits, &other.logits) / largest.max(f64::MIN_POSITIVE);
            if found.is_nan() || found > TOLERANCE {
                let (form, other) = (form.name(), other_form.name());
                let message = format!(
                    "logits of {form} and {other} differ by {found:.2e} of the largest, more than {TOLERANCE:.0e}"
                );
                return Err(mismatch(case, &message));
            }
            worst = worst.max(found);
        }
    }
    Ok(worst)
}

/// The largest distance of two logits, or no number if there is none.
fn distance(one: &[f32], other: &[f32]) -> f64 {
    if one.len() != other.len() {
        return f64::NAN;
    }
    let mut worst = 0.0f64;
    for (one, other) in one.iter().zip(other) {
        let distance = f64::from((one - other).abs());
        if distance.is_nan() {
            return distance;
        }
        worst = worst.max(distance);
    }
    worst
}

fn mismatch(case: &Case<'_>, what: &str) -> Error {
    let n_tokens = case.batch.n_tokens() as usize;
    let message = format!(
        "{what} (density {}, {n_tokens} tokens, set {} of inputs); no times are reported",
        case.density, case.set
    );
    let help = "`skipc verify` on the artefact says which stage is at fault; please report it with the model";
    Error::new(ErrorKind::Mismatch, Diagnostic::new("bench::mismatch", message).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(logits: &[f32]) -> Outputs {
        let gates = vec![vec![1, 0]];
        Outputs { logits: logits.to_vec(), gates, counts: vec![1], overflow: vec![0], choices: Vec::new() }
    }

    fn checked(forms: [&[f32]; 3]) -> Result<f64, Error> {
        let batch = Batch {
            tokens: vec![0, 1],
            lengths: vec![2],
            routing: Some(vec![vec![1, 0]]),
            ..Batch::default()
        };
        let [fused, unfused, masked] = forms.map(outputs);
        let forms = [(Variant::Fused, fused), (Variant::Unfused, unfused), (Variant::Masked, masked)];
        check(&Case { batch: &batch, density: 0.5, set: 0 }, &forms)
    }

    #[test]
    fn differences_are_relative_to_the_largest_logit() {
        let found = checked([&[100.0, 1.0], &[100.0, 1.0], &[100.0, 1.01]]).unwrap();
        assert!((found - 1e-4).abs() < 1e-8, "{found}");
        assert_eq!(checked([&[0.0], &[0.0], &[0.0]]).unwrap(), 0.0);
        for wrong in
            [&[100.0, 1.03][..], &[100.0, f32::NAN], &[f32::NAN, 1.0], &[100.0], &[f32::INFINITY, 1.0]]
        {
            let failure = checked([&[100.0, 1.0], wrong, &[100.0, 1.0]]).unwrap_err();
            assert_eq!(failure.kind, ErrorKind::Mismatch, "{wrong:?}");
        }
        assert!(checked([&[f32::NAN], &[f32::NAN], &[f32::NAN]]).is_err());
    }

    #[test]
    fn decisions_are_those_that_were_forced() {
        let batch = Batch {
            tokens: vec![0, 1],
            lengths: vec![2],
            routing: Some(vec![vec![0, 1]]),
            ..Batch::default()
        };
        let forms = [(Variant::Fused, outputs(&[1.0]))];
        let failure = check(&Case { batch: &batch, density: 0.5, set: 2 }, &forms).unwrap_err();
        assert!(failure.diagnostics.to_string().contains("decisions"), "{:?}", failure.diagnostics);
    }
}
