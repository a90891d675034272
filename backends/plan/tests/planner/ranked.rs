//! Top-k routers and capacities: sets that rank the rows of a sequence or of a group.

use skipc_artifact::interface::{Binding, Role, RouterPorts};
use skipc_artifact::program::Arg;
use skipc_plan::Plan;
use skipc_plan::error::Fault;
use skipc_plan::kernel::{Body, Candidates, Keep, Ranked, Segment, Select, Slot};
use skipc_plan::pointwise::Real;
use skipc_plan::{PlanError, verify};

use crate::{HEAD, plan, steps};

/// A layer that runs for the rows of `%limited`, which the lines before make.
const LAYER: &str = r#"
  %h = gather %x, %limited
  %w = weight {name="w", shape=[4, 4]}
  %f = matmul %h, %w
  %half = scale %f {by=0.3}
  %y = scatter %x, %half, %limited
  %logits = matmul %y, %table
  %gate = executed %limited
  return logits = %logits, decision 0 = %gate"#;

/// Scores with many equals: one for each token id.
const SCORES: &str = r#"
  %wr = weight {name="router", shape=[1, 4]}
  %z = router_logits %x, %wr
"#;

const LIMITED: &str = r#"
  %wanted = route %z {set=c0, at_least=-0.5}
  %limited = limit_best %wanted, %z, %p, %s {set=c1, group_size=8, slots=2}
  %all = executed %wanted
"#;

fn limited() -> Plan {
    plan(&format!("{HEAD}{SCORES}{LIMITED}{LAYER}, wanted 0 = %all"))
}

#[test]
fn best_of_each_sequence() {
    for share in ["0.0", "0.3", "1.0"] {
        let route = format!("  %limited = route_topk %z, %s {{set=c0, share={share}}}");
        let plan = plan(&format!("{HEAD}{SCORES}{route}{LAYER}"));
        assert!(steps(&plan).contains(&"compact_best_of_sequence"), "{plan}");
    }
}

#[test]
fn capacity_by_position_and_by_score() {
    for (limit, kernel) in [
        ("limit_first %wanted, %p, %s", "compact_first_of_group"),
        ("limit_best %wanted, %z, %p, %s", "compact_best_of_group"),
    ] {
        for attrs in ["group_size=4, slots=0", "group_size=4, slots=1", "group_size=3, slots=9"] {
            let plan = plan(&format!(
                "{HEAD}{SCORES}
  %wanted = route_random %p, %s {{set=c0, seed=3, block=1, limit=3000000000}}
  %limited = {limit} {{set=c1, {attrs}}}
  %all = executed %wanted{LAYER}, wanted 0 = %all"
            ));
            assert_eq!(steps(&plan).iter().filter(|step| step.starts_with("compact")).count(), 2);
            assert!(steps(&plan).contains(&kernel), "{plan}");
        }
    }
}

/// A capacity over rows of a set: the outer set's rows are found through its list, the wanted ones by their mask.
#[test]
fn what_was_wanted_is_counted_and_not_replayed() {
    let plan = limited();
    let [RouterPorts::Routed { executed: count, wanted: Some(wanted), forced, .. }] =
        plan.function.interface.routers()[..]
    else {
        panic!("{plan}");
    };
    let buffer = |idx: u32| &plan.function.buffers[idx as usize];
    assert_ne!(count, wanted);
    assert_eq!((buffer(wanted).live, buffer(forced).live), (None, None));
    // The set that was wanted decides for itself whatever is replayed.
    let first = plan
        .function
        .steps
        .iter()
        .position(|step| plan.kernels[step.kernel as usize].0.ends_with("at_least"));
    let step = &plan.function.steps[first.expect("a step")];
    let use_forced = plan.function.interface.buffer(&Role::UseForced).expect("a port");
    assert!(!step.args.contains(&Arg::Buffer(use_forced)), "{plan}");
}

#[test]
fn a_wanted_set_that_is_another_routers_gate() {
    let plan = plan(&format!(
        "{HEAD}{SCORES}{LIMITED}{}, wanted 0 = %all, decision 1 = %all",
        LAYER.replace(
            "%y = scatter %x",
            "%g0 = gather %x, %wanted\n  %r = relu %g0\n  %x1 = scatter %x, %r, %wanted\n  %y = scatter %x1"
        )
    ));
    let [
        RouterPorts::Routed { wanted: Some(wanted), .. },
        RouterPorts::Routed { executed: count, wanted: None, .. },
    ] = plan.function.interface.routers()[..]
    else {
        panic!("{plan}");
    };
    assert_eq!(wanted, count);
}

#[test]
fn a_constant_gate_has_no_capacity() {
    let lines = format!("{HEAD}{SCORES}{LIMITED}{LAYER}, decision 1 = %always, wanted 1 = %all")
        .replace("  %gate =", "  %always = fill_mask %t {value=true}\n  %gate =");
    let error = skipc_plan::build(&crate::legal(&lines), &crate::options()).expect_err("it is refused");
    assert!(error.to_string().contains("limit a constant gate"), "{error}");
}

#[test]
fn print_and_json() {
    let plan = limited();
    let text = plan.to_string();
    let wanted = "rows that are the first 2 by score scores of those in wanted in each 8 positions positions of each \
                  sequence sequences, or forced if use_forced\n";
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("  r1 = 0.3 * r0\n"), "{text}");
    assert!(text.contains("\n  wanted of router 0: b"), "{text}");
    let json = serde_json::to_string(&plan).expect("it has a JSON form");
    assert_eq!(serde_json::from_str::<Plan>(&json).expect("it reads back"), plan);
}

fn ranked(plan: &mut Plan) -> &mut Ranked {
    plan.kernels
        .iter_mut()
        .find_map(|(_, kernel)| match &mut kernel.body {
            Body::Compact(compact) => match &mut compact.select {
                Select::Ranked(ranked) => Some(ranked),
                Select::AtLeast { .. }
                | Select::Random { .. }
                | Select::NotIn(_)
                | Select::WithFirst { .. } => None,
            },
            _ => None,
        })
        .expect("a ranking")
}

/// What the verifier says of the plan after a change to its ranking.
fn faults(change: impl FnOnce(&mut Ranked)) -> Vec<Fault> {
    let mut plan = limited();
    change(ranked(&mut plan));
    let errors = verify(&plan).expect_err("the change is found");
    let fault = |error| match error {
        PlanError::Verify(error) => error.fault,
        other => panic!("{other}"),
    };
    errors.into_iter().map(fault).collect()
}

#[test]
fn what_makes_no_sense_is_found() {
    let has =
        |faults: Vec<Fault>, wanted: fn(&Fault) -> bool| assert!(faults.iter().any(wanted), "{faults:?}");
    let no_rows = |ranked: &mut Ranked| match &mut ranked.segment {
        Segment::Group { size, .. } => *size = 0,
        Segment::Sequence => panic!("no group"),
    };
    has(faults(no_rows), |fault| matches!(fault, Fault::Size { what: "the size of a group", got: 0 }));
    for share in [1.5, -0.1, f64::NAN] {
        let keep = Keep::Share(Real::from(share));
        has(faults(|ranked| ranked.keep = keep), |fault| {
            matches!(fault, Fault::Size { what: "share (as bits)", .. })
        });
    }
    // Sequences are no mask.
    let other = |ranked: &mut Ranked| {
        ranked.among = Candidates::Masked(ranked.sequences.map_or(Slot(0), |view| view.slot))
    };
    has(faults(other), |fault| matches!(fault, Fault::DType { wanted: "u8", .. }));
    has(faults(|ranked| ranked.among = Candidates::All), |fault| matches!(fault, Fault::Access { .. }));
}

#[test]
fn the_count_of_what_was_wanted_is_a_count() {
    let mut plan = limited();
    let interface = &mut plan.function.interface;
    let tokens = interface.buffer(&Role::Tokens).expect("a port");
    interface.bind(Role::Wanted { router: 0 }, Binding::Buffer(tokens));
    let errors = verify(&plan).expect_err("it is found");
    assert!(errors.iter().any(|error| error.to_string().contains("wanted")), "{}", errors[0]);
}
