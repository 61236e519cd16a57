"""Write the small models that the Rust tests load: make_models.py FOLDER."""

import itertools
import os
import sys
from pathlib import Path

import make_formats
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
    "FP8_E4M3": TensorProto.FLOAT8E4M3FN,
    "FP8_E5M2": TensorProto.FLOAT8E5M2,
    "INT4": TensorProto.INT4,
    "UINT4": TensorProto.UINT4,
}
FOLDER = Path(sys.argv[1])


def value(name, element, shape):
    return helper.make_tensor_value_info(name, element, shape)


def save(name, nodes, inputs, outputs, initializers=(), domains=(("", 21),), metadata=(), **fields):
    graph = helper.make_graph(nodes, name, inputs, outputs, initializer=list(initializers))
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains]
    fields = {"ir_version": 10, "producer_name": "nnrp-tests", "producer_version": "7", **fields}
    model = helper.make_model(graph, opset_imports=opsets, **fields)
    helper.set_model_props(model, dict(metadata))
    write(name, model.SerializeToString())


def write(name, data):
    """Put the file there in one step: another test may read it meanwhile."""
    unfinished = FOLDER / f".{name}.{os.getpid()}"
    unfinished.write_bytes(data)
    unfinished.replace(FOLDER / f"{name}.onnx")


def identities():
    for name, element in TYPES.items():
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        if "INT4" in name:
            # Its CPU kernels take four-bit elements for a cast, not for Identity.
            nodes = [helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.INT32), helper.make_node("Cast", ["wide"], ["y"], to=element)]
        save(f"identity_{name}", nodes, [value("x", element, ["n"])], [value("y", element, ["n"])])
    for name, shape in {"scalar": [], "any_rank": None, "dynamic": ["batch", 3, None]}.items():
        save(name, [helper.make_node("Identity", ["x"], ["y"])], [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)])
    save("through", [], [value("x", TensorProto.FLOAT, ["n"])], [value("x", TensorProto.FLOAT, ["n"])])


def arithmetic():
    f32 = TensorProto.FLOAT
    two, one = (numpy_helper.from_array(np.array([number], np.float32), name) for number, name in ((2, "two"), (1, "one")))
    nodes = [helper.make_node("Mul", ["x", "two"], ["m"]), helper.make_node("Add", ["m", "one"], ["y"])]
    save("double", nodes, [value("x", f32, ["n"])], [value("y", f32, ["n"])], [two, one])
    bias = numpy_helper.from_array(np.array([10], np.float32), "bias")
    inputs = [value("x", f32, ["n"]), value("bias", f32, [1])]
    save("optional_initializer", [helper.make_node("Add", ["x", "bias"], ["y"])], inputs, [value("y", f32, ["n"])], [bias])
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])]
    save("two_outputs", nodes, [value("x", f32, ["n"])], [value("minus", f32, ["n"]), value("size", f32, ["n"])])
    inputs = [value("a", f32, ["n"]), value("b", f32, ["m"])]
    save("add", [helper.make_node("Add", ["a", "b"], ["y"], name="/model/Add")], inputs, [value("y", f32, None)])
    save("lying", [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], [value("x", f32, ["n"])], [value("y", f32, ["n"])])
    nodes = [helper.make_node("Identity", ["weights"], ["y"])]
    constant = numpy_helper.from_array(np.arange(4, dtype=np.float32), "weights")
    save("constant", nodes, [value("x", f32, ["n"])], [value("y", f32, [4])], [constant])
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2)]
    save("split", nodes, [value("x", TensorProto.STRING, ["n"])], [value("a", TensorProto.STRING, None), value("b", TensorProto.STRING, None)])


def long_run():
    """Loop `n` times over a matrix product: as long as the caller wants."""
    f32, i64, boolean = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("MatMul", ["m", "m"], ["next"])]
    inputs = [value("i", i64, []), value("go", boolean, []), value("m", f32, ["k", "k"])]
    body = helper.make_graph(nodes, "body", inputs, [value("on", boolean, []), value("next", f32, ["k", "k"])])
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
    save("loop", [loop], [value("n", i64, []), value("x", f32, ["k", "k"])], [value("y", f32, ["k", "k"])])


def runs_of_many_steps():
    """A long run that can be left between its steps, for runtimes that look for a stop there alone."""
    f32 = TensorProto.FLOAT
    names = ["x", *(f"m{step}" for step in range(199)), "y"]
    nodes = [helper.make_node("MatMul", [before, "weights"], [after]) for before, after in itertools.pairwise(names)]
    weights = numpy_helper.from_array(np.eye(512, dtype=np.float32), "weights")
    save("steps", nodes, [value("x", f32, ["n", 512])], [value("y", f32, ["n", 512])], [weights])


def for_openvino():
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    inputs = [value("x", f32, ["n"]), value("unused", i64, ["n", 3])]
    save("unused_input", [helper.make_node("Neg", ["x"], ["y"])], inputs, [value("y", f32, ["n"])])
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    save("nonzero", nodes, [value("x", f32, ["n"])], [value("y", i64, [1, "found"])])
    save("negative_INT64", [helper.make_node("Neg", ["x"], ["y"])], [value("x", i64, ["n"])], [value("y", i64, ["n"])])
    node = helper.make_node("NotAnOperator", ["x"], ["y"])
    save("unknown_operator", [node], [value("x", f32, ["n"])], [value("y", f32, ["n"])])
    node = helper.make_node("Add", ["x", "weights"], ["y"])
    for name, location in (("outside", "../outside.bin"), ("memory", "*/_ORT_MEM_ADDR_/*"), ("folder", ".")):
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), "weights")
        onnx.external_data_helper.set_external_data(tensor, location=location, offset=4096, length=16)
        tensor.ClearField("raw_data")
        save(f"external_{name}", [node], [value("x", f32, [4])], [value("y", f32, [4])], [tensor])
        hidden = helper.make_node("Constant", [], ["weights"], value=tensor)
        save(f"external_{name}_hidden", [hidden, node], [value("x", f32, [4])], [value("y", f32, [4])])


def not_only_tensors():
    f32 = TensorProto.FLOAT
    sequence = helper.make_tensor_sequence_value_info("y", f32, ["n"])
    save("sequence", [helper.make_node("SequenceConstruct", ["x"], ["y"])], [value("x", f32, ["n"])], [sequence])
    tensor = helper.make_tensor_type_proto(f32, ["n"])
    optional = helper.make_value_info("x", helper.make_optional_type_proto(tensor))
    save("optional_input", [helper.make_node("OptionalHasElement", ["x"], ["y"])], [optional], [value("y", TensorProto.BOOL, [])])
    nothing = helper.make_graph([helper.make_node("Optional", [], ["none"], type=tensor)], "no", [], [helper.make_value_info("none", optional.type)])
    something = helper.make_graph([helper.make_node("Optional", ["v"], ["some"])], "yes", [], [helper.make_value_info("some", optional.type)])
    branch = helper.make_node("If", ["give"], ["y"], then_branch=something, else_branch=nothing)
    inputs = [value("give", TensorProto.BOOL, []), value("v", f32, ["n"])]
    save("optional_output", [branch], inputs, [helper.make_value_info("y", optional.type)])
    save("complex", [helper.make_node("Identity", ["x"], ["y"])], [value("x", TensorProto.COMPLEX64, ["n"])], [value("y", TensorProto.COMPLEX64, ["n"])])


def external_data():
    tensor = numpy_helper.from_array(np.arange(512, dtype=np.float32), "weights")
    onnx.external_data_helper.set_external_data(tensor, location="weights.bin")
    (FOLDER / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    node = helper.make_node("Add", ["x", "weights"], ["y"])
    for name, location in (("external", "weights.bin"), ("external_missing", "no-such-weights.bin")):
        tensor.external_data[0].value = location
        save(name, [node], [value("x", TensorProto.FLOAT, [512])], [value("y", TensorProto.FLOAT, [512])], [tensor])


def described():
    nodes = [helper.make_node("FusedMatMul", ["x", "x"], ["m"], domain="com.microsoft"), helper.make_node("Relu", ["m"], ["y"])]
    square = ["k", "k"]
    save(
        "described",
        nodes,
        [value("x", TensorProto.FLOAT, square)],
        [value("y", TensorProto.FLOAT, square)],
        domains=(("", 17), ("com.microsoft", 1)),
        domain="org.example",
        model_version=3,
        doc_string="Two steps.",
        metadata={"labels": "cat,dog"},
    )


FOLDER.mkdir(parents=True, exist_ok=True)
for make in (identities, arithmetic, long_run, runs_of_many_steps, for_openvino, not_only_tensors, external_data, described):
    make()
make_formats.make(FOLDER)
