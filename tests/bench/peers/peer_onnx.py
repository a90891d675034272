"""ONNX Runtime: the gathered form as a graph of standard operators, with NonZero, GatherND and ScatterND."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Nodes and constants as they are added."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def add(self, op, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def norm(self, x, gain, eps):
        """In the pattern that the runtime recognises and replaces by a kernel of its own."""
        square = self.add("Pow", x, self.constant(2.0))
        mean = self.add("ReduceMean", square, self.constant([-1], np.int64))
        root = self.add("Sqrt", self.add("Add", mean, self.constant(eps)))
        return self.add("Mul", self.add("Div", x, root), self.constant(gain))

    def linear(self, x, weight):
        return self.add("MatMul", x, self.constant(weight.T))

    def skip_ffn(self, x, weights, at, eps):
        u = self.norm(x, weights[f"{at}.layers.0.norm.weight"], eps)
        skip, execute = weights[f"{at}.router.weight"]
        margin = self.linear(u, (execute - skip)[None])
        decision = self.add("GreaterOrEqual", margin, self.constant(0.0))
        decision = self.add("Squeeze", decision, self.constant([1], np.int64))
        rows = self.add("Transpose", self.add("NonZero", decision), perm=[1, 0])
        up = self.linear(self.add("GatherND", u, rows), weights[f"{at}.layers.0.up_proj.weight"])
        down = self.linear(self.add("Gelu", up, approximate="tanh"), weights[f"{at}.layers.0.down_proj.weight"])
        return self.add("ScatterND", x, rows, self.add("Add", self.add("GatherND", x, rows), down))


def model(workload):
    graph, weights = Graph(), workload.weights
    x = graph.add("Gather", graph.constant(weights["embed.weight"]), "tokens")
    for idx in range(len(workload.blocks)):
        x = graph.skip_ffn(x, weights, f"blocks.{idx}", workload.eps)
    logits = graph.linear(graph.norm(x, weights["norm.weight"], workload.eps), weights["lm_head.weight"])
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, [workload.tokens])
    output = helper.make_tensor_value_info(logits, TensorProto.FLOAT, [workload.tokens, workload.vocab])
    graph = helper.make_graph(graph.nodes, workload.name, [tokens], [output], graph.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class Onnx:
    """The graph in a session, as the harness calls it."""

    def __init__(self, workload, threads):
        assert not any(block.heads for block in workload.blocks), "the graph has no attention"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            model(workload).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def prepare(self, tokens):
        return {"tokens": tokens}

    def run(self, tokens):
        return self.session.run(None, tokens)[0]

    def logits(self, tokens):
        return self.run(tokens)


def versions():
    return {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}
