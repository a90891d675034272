//! Every error code of this crate with what it means, for `skipc explain`.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "graph::arity",
        "A node has more or fewer operands than its op takes. `skipc ops` lists the operands of every op.",
    ),
    (
        "graph::attribute",
        "An attribute has a value for which the op has no meaning, such as heads that do not divide the columns.",
    ),
    (
        "graph::cycle",
        "A value depends on itself. Graphs are data flow: every value exists before its users do.",
    ),
    ("graph::input_type", "The graph reads one input in two types. The caller gives one tensor for a name."),
    ("graph::no_output", "The graph returns nothing, so nothing in it has to be computed."),
    ("graph::operand", "An operand is of a kind or size that the op does not take."),
    (
        "graph::output_kind",
        "A result is a token set. Return `executed` of it: whether each row is in the set.",
    ),
    (
        "graph::scope",
        "Two operands have rows of different token sets, or of a set and of all tokens. `gather` takes rows into a set, `scatter` takes them back.",
    ),
    (
        "graph::set_twice",
        "Two routes open the same set symbol. Each set has a row count of its own; equal symbols would let rows of two sets meet.",
    ),
    ("graph::set_unopened", "A type has rows of a token set that no route of the graph makes."),
    (
        "graph::state_lost",
        "A value of a state is neither updated nor returned, so the next step would not find it.",
    ),
    (
        "graph::state_name",
        "A result gives a state another name than it came in by. In and out are one place in memory, found by the name.",
    ),
    (
        "graph::state_order",
        "An op looks at a value of a state and depends on what updates it, so the value would be gone. Look at what the update gives instead.",
    ),
    (
        "graph::state_twice",
        "A state comes in twice, or two uses update or return one value of it. There is one place in memory for all its values.",
    ),
    (
        "graph::state_type",
        "A result of the role `state` is not a state, or a state is a result of another role.",
    ),
    ("graph::type", "A value has another type than the one that follows from its op and operands."),
    (
        "graph::weight_shape",
        "The graph reads one weight in two shapes. A tensor of the weights file has one.",
    ),
    (
        "legal::nested_set",
        "A route selects from the rows of another set. Backends make sets of all tokens only.",
    ),
    (
        "legal::no_kernel",
        "There is no kernel of an op of training: that of the derivative of `gelu_erf` on any backend, and all of them on CUDA. The reference interpreter runs it.",
    ),
    (
        "legal::operand_kind",
        "An op takes f32 scores or a mask where kernels exist for the model's precision only. Scores are for routing and scaling, masks are results.",
    ),
    (
        "legal::output",
        "The results of a program are `logits`, numbers [n, v], and in order the decisions of routers, `decision 0`, `decision 1`, …, mask[n], each with what it wanted before its capacity behind it, `wanted 0`, …, mask[n], and the choices of layers of experts, `choices 0 of 8`, …, f32[n, k].",
    ),
    (
        "legal::source",
        "Integers come from another input than the op means, such as token ids where positions belong. Attention kernels rely on the order of rows by sequence and position.",
    ),
    ("legal::too_large", "A tensor, weight or head is larger than kernels can index or hold."),
    ("sir::attribute", "An attribute is unknown to the op, missing, given twice, or of another kind."),
    ("sir::defined_twice", "A value or a result has two definitions of the same name."),
    ("sir::limit", "The text has more nodes, operands or bytes than the parser takes on."),
    ("sir::syntax", "Something else should stand at this place of the text."),
    ("sir::type", "The type that the text gives a value is not the one that follows from its operands."),
    ("sir::undefined", "A value is used that no earlier line defines."),
    ("sir::unknown_op", "No op has this name."),
];

/// What a code means, if it is one of this crate's.
pub fn explain(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::CODES;

    #[test]
    fn codes_are_sorted_and_told_apart() {
        assert!(CODES.is_sorted_by(|(a, _), (b, _)| a < b));
    }
}
