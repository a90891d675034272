//! The text form: what is printed reads back, and no text does harm.

use skipc_ir::attr::F64;
use skipc_ir::text::{MAX_NODES, parse, print};
use skipc_ir::{Graph, Op, Port, Role, SetSym};

const SMALL: &str = r#"graph "a \"small\" one" {
  %0 = input {port=tokens} : int[n] @"inputs"
  %1 = weight {name="embed.weight", shape=[8, 4]} : real[8, 4]
  %2 = embed %1, %0 : real[n, 4] @"blocks.0"
  %3 = weight {name="router \u{1f600}\n", shape=[1, 4]} : real[1, 4]
  %4 = router_logits %2, %3 : f32[n, 1]
  %5 = route %4 {set=c7, at_least=-1e-5} : tokens<c7 <= n>
  %6 = gather %2, %5 : real[c7, 4]
  %7 = add %6, %6 : real[c7, 4]
  %8 = scatter %2, %7, %5 : real[n, 4]
  %9 = executed %5 : mask[n]
  return logits = %8, decision 0 = %9, result "odd name" = %2, result "rows" = %0
}
"#;

/// Code, line and column of each error.
fn errors(text: &str) -> Vec<(&'static str, u32, u32)> {
    parse(text)
        .expect_err("a wrong text")
        .iter()
        .map(|error| (error.code(), error.line, error.column))
        .collect()
}

fn in_graph(lines: &str) -> String {
    format!("graph \"g\" {{\n{lines}\n}}")
}

#[test]
fn printing_what_was_parsed_gives_the_text_back() {
    let graph = parse(SMALL).expect("a right text");
    assert_eq!(print(&graph), SMALL.replace("\\u{1f600}", "\u{1f600}"));
    assert_eq!(print(&parse(&print(&graph)).expect("printed")), print(&graph));
}

#[test]
fn names_numbers_types_and_layout_are_free() {
    let free = r#"
        graph "g" { // a comment
          %ids = input { port = tokens }   %w = weight
        }"#;
    // Only the second node of a line is refused: it could be an operand.
    assert_eq!(errors(free), [("sir::syntax", 3, 47)]);
    let free =
        "graph \"g\" { %ids = input\n{ port = tokens }\n return result \"a\" = %ids, result \"b\" = %ids }";
    let graph = parse(free).expect("a right text");
    assert_eq!(
        print(&graph),
        "graph \"g\" {\n  %0 = input {port=tokens} : int[n]\n  return result \"a\" = %0, result \"b\" = %0\n}\n"
    );
}

#[test]
fn reals_keep_their_bits() {
    for bits in
        [0.1, 1e300, -0.0, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NEG_INFINITY, 1e16, 123_456.0]
    {
        let mut graph = Graph::new("g");
        let none = "".into();
        let ids = graph.add(Op::Input { port: Port::of_tokens(Role::Tokens) }, &[], &none).expect("typed");
        let table = Op::Weight { name: "t".into(), shape: skipc_ir::attr::Shape(vec![2, 1]) };
        let table = graph.add(table, &[], &none).expect("typed");
        let x = graph.add(Op::Embed {}, &[table, ids], &none).expect("typed");
        let scores = graph.add(Op::RouterLogits {}, &[x, table], &none).expect("typed");
        let score = graph.add(Op::Slice { start: 0, len: 1 }, &[scores], &none).expect("typed");
        let route = Op::Route { set: SetSym(0), at_least: F64::from(bits) };
        graph.add(route.clone(), &[score], &none).expect("typed");
        let read = parse(&print(&graph)).expect("printed");
        let last = *read.order().last().expect("six nodes");
        let Op::Route { at_least, .. } = read.op(last) else { panic!("the route comes last") };
        assert_eq!(at_least.0.to_bits(), bits.to_bits());
    }
}

#[test]
fn errors_have_a_place_and_say_what_to_write() {
    let text = in_graph(
        "  %0 = inptu {port=tokens}\n  %1 = input {port=tokns}\n  %2 = input {prt=tokens}\n  %3 = relu %4\n  \
         %5 = input {port=tokens} : real[n, 2]\n  %6 = input {port=tokens\n  %7 = relu %0",
    );
    let found = parse(&text).expect_err("a wrong text");
    let shown: Vec<String> = found.iter().map(|error| format!("{error} [{}]", error.code())).collect();
    assert_eq!(
        shown,
        [
            "2:8: unknown op `inptu`; did you mean `input`? [sir::unknown_op]",
            "3:8: the attribute `port` of `input` should be of kind tokens | rows | positions | sequences | requests | places | pages | pending | margins | logit_rows | forced_choices 0 of 8 | input \"name\" | state \"name\" | prompt_state \"name\" [sir::attribute]",
            "4:8: `input` has no attribute `prt`; did you mean `port`? [sir::attribute]",
            "5:13: `%4` is not defined above; operands stand before their users [sir::undefined]",
            "6:28: the type is int[n], not real[n, 2] [sir::type]",
            "8:3: `,` or `}` expected, not `%7` [sir::syntax]",
        ]
    );
}

#[test]
fn each_kind_of_mistake_is_told_apart() {
    let ids = "%0 = input {port=tokens}\n";
    for (line, wanted) in [
        ("%0 = input {port=tokens}", ("sir::defined_twice", 3, 1)),
        ("%1 = relu %0", ("graph::operand", 3, 6)),
        ("%1 = executed %0", ("graph::operand", 3, 6)),
        ("%1 = add %0", ("graph::arity", 3, 6)),
        ("%1 = weight {name=\"w\", shape=[0]}", ("graph::attribute", 3, 6)),
        ("%1 = weight {name=\"w\", name=\"w\"}", ("sir::attribute", 3, 24)),
        ("%1 = weight {name=\"w}", ("sir::syntax", 3, 19)),
        ("%1 = weight {name=\"\\q\", shape=[1]}", ("sir::syntax", 3, 19)),
        ("%1 = weight {name=\"w\", shape=[99999999999999999999]}", ("sir::syntax", 3, 31)),
        ("%1 = weight {name=\"w\", shape=[4294967296]}", ("sir::attribute", 3, 6)),
        ("%1 = add %0, 5", ("sir::syntax", 3, 14)),
        ("%1 ; %0", ("sir::syntax", 3, 4)),
        ("return result \"a\" = %0, result \"a\" = %0", ("sir::defined_twice", 3, 25)),
        ("return logits = %9", ("sir::undefined", 3, 17)),
        ("return a = %0", ("sir::syntax", 3, 8)),
        ("return tokens = %0", ("sir::syntax", 3, 8)),
        ("return decision \"a\" = %0", ("sir::syntax", 3, 17)),
        ("return decision 4294967296 = %0", ("sir::syntax", 3, 17)),
        ("%1 = input {port=input \"x\"}", ("graph::attribute", 3, 6)),
        ("%1 = input {port=logits}", ("sir::attribute", 3, 6)),
        ("%1 = input {port=tokens} : real[n, 2]", ("sir::type", 3, 26)),
        ("(", ("sir::syntax", 3, 1)),
        ("7", ("sir::syntax", 3, 1)),
    ] {
        assert_eq!(errors(&in_graph(&format!("{ids}{line}"))), [wanted], "{line}");
    }
}

#[test]
fn limits_hold() {
    let many = "%0 = add ".to_owned() + &vec!["%0"; 40].join(", ");
    assert_eq!(errors(&in_graph(&many))[0].0, "sir::limit");
    let long = format!("%0 = weight {{name=\"{}\", shape=[1]}}", "w".repeat(5000));
    assert_eq!(errors(&in_graph(&long))[0].0, "sir::limit");
    let wrong: String = (0..1000).map(|_| "%0 = nothing\n").collect();
    assert_eq!(errors(&in_graph(&wrong)).len(), 20);
    let nodes: String = (0..=MAX_NODES).map(|idx| format!("%{idx}=input{{port=tokens}}\n")).collect();
    assert_eq!(errors(&in_graph(&nodes)), [("sir::limit", MAX_NODES as u32 + 2, 1)]);
}

#[test]
fn no_damaged_text_makes_the_parser_panic() {
    let bytes = SMALL.as_bytes();
    for idx in 0..SMALL.trim_end().len() {
        let cut = String::from_utf8_lossy(&bytes[..idx]).into_owned();
        assert!(parse(&cut).is_err(), "a text cut at {idx} is not whole");
        for other in [b'"', b'%', b'{', b'}', b'\n', b'9', b'c', b'<', b',', b'-', b'.', b'\\', 0xff] {
            let mut damaged = bytes.to_vec();
            damaged[idx] = other;
            if let Ok(graph) = parse(&String::from_utf8_lossy(&damaged)) {
                let printed = print(&graph);
                assert_eq!(print(&parse(&printed).expect("printed")), printed);
                // The gates take whatever the parser lets through.
                let _ = skipc_ir::legalize(graph);
            }
        }
    }
}
