"""y = 2x + 1 in the formats beside ONNX, written with as little of their own tools as will do."""

import os
import struct

import flatbuffers
import openvino

FLOAT_TF, FLOAT_PADDLE = 1, 5


def make(folder):
    """Write each model; `double.onnx` and `external.onnx` are there."""
    unfinished = folder / f".formats.{os.getpid()}"
    unfinished.mkdir()
    for name in ("double", "external"):
        model = openvino.Core().read_model(folder / f"{name}.onnx")
        openvino.save_model(model, unfinished / f"{name}.xml", compress_to_fp16=False)
    (folder / "double_saved_model").mkdir(exist_ok=True)
    texts = {"double.tflite": tflite(), "double.pb": graph(), "saved_model.pb": saved_model(), "double.pdmodel": paddle(), "double.pdiparams": b""}
    for name, data in texts.items():
        (unfinished / name).write_bytes(data)
    # In one step each: another test may read them meanwhile.
    for made in unfinished.iterdir():
        made.replace(folder / "double_saved_model" / made.name if made.name == "saved_model.pb" else folder / made.name)
    unfinished.rmdir()


# Protobuf: a field is its key, and a number, or a length and bytes.


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(tag, *values):
    out = b""
    for value in values:
        if isinstance(value, float):
            out += varint(tag << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(tag << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(tag << 3 | 2) + varint(len(data)) + data
    return out


def entry(tag, key, value):
    return field(tag, field(1, key) + field(2, value))


def graph():
    """A TensorFlow GraphDef."""
    kind = entry(5, "T", field(6, FLOAT_TF))
    dtype = entry(5, "dtype", field(6, FLOAT_TF))

    def constant(name, number):
        tensor = field(1, FLOAT_TF) + field(2, b"") + field(4, struct.pack("<f", number))
        return field(1, name) + field(2, "Const") + dtype + entry(5, "value", field(8, tensor))

    shape = entry(5, "shape", field(7, field(2, field(1, -1)) + field(2, field(1, 4))))
    nodes = [
        field(1, "x") + field(2, "Placeholder") + dtype + shape,
        constant("two", 2.0),
        constant("one", 1.0),
        field(1, "m") + field(2, "Mul") + field(3, "x", "two") + kind,
        field(1, "y") + field(2, "AddV2") + field(3, "m", "one") + kind,
    ]
    return field(1, *nodes) + field(4, field(1, 1395))


def saved_model():
    def info(name):
        return field(1, f"{name}:0") + field(2, FLOAT_TF) + field(3, field(2, field(1, -1)) + field(2, field(1, 4)))

    signature = entry(1, "x", info("x")) + entry(2, "y", info("y")) + field(3, "tensorflow/serving/predict")
    meta = field(1, field(4, "serve")) + field(2, graph()) + entry(5, "serving_default", signature)
    return field(1, 1) + field(2, meta)


def paddle():
    """A Paddle ProgramDesc."""

    def variable(name, kind, shape=None):
        tensor = field(1, FLOAT_PADDLE) + (field(2, *shape) if shape else b"")
        about = field(1, kind) + (field(3, field(1, tensor)) if shape else b"")
        return field(3, field(1, name) + field(2, about) + field(3, int(shape is None)))

    def operator(name, inputs, outputs, *attributes):
        args = [field(tag, field(1, key) + field(2, value)) for tag, pairs in ((1, inputs), (2, outputs)) for key, value in pairs.items()]
        return field(4, b"".join(args) + field(3, name) + b"".join(field(4, attribute) for attribute in attributes))

    column = field(1, "col") + field(2, 0) + field(3, 0)
    scale = [field(1, "scale") + field(2, 1) + field(4, 2.0), field(1, "bias") + field(2, 1) + field(4, 1.0)]
    after = field(1, "bias_after_scale") + field(2, 6) + field(10, 1)
    block = (
        field(1, 0)
        + field(2, -1)
        + variable("feed", 9)
        + variable("fetch", 10)
        + variable("x", 7, [-1, 4])
        + variable("y", 7, [-1, 4])
        + operator("feed", {"X": "feed"}, {"Out": "x"}, column)
        + operator("scale", {"X": "x"}, {"Out": "y"}, *scale, after)
        + operator("fetch", {"X": "y"}, {"Out": "fetch"}, column)
    )
    return field(1, block) + field(4, field(1, 2_000_000))


# TFLite: a flatbuffer, whose tables are written from the leaves up.


def table(builder, *fields):
    """A table of (slot, kind, value); an offset has the kind None."""
    builder.StartObject(max(slot for slot, _, _ in fields) + 1)
    for slot, kind, value in fields:
        if kind is None:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            getattr(builder, f"Prepend{kind}Slot")(slot, value, 0)
    return builder.EndObject()


def vector(builder, values, kind=None):
    builder.StartVector(1 if kind == "Byte" else 4, len(values), 4)
    for value in reversed(values):
        builder.PrependUOffsetTRelative(value) if kind is None else getattr(builder, f"Prepend{kind}")(value)
    return builder.EndVector()


def tflite():
    b = flatbuffers.Builder(1024)
    constants = [vector(b, struct.pack("<f", number), "Byte") for number in (2.0, 1.0)]
    empty = table(b, (0, None, vector(b, b"", "Byte")))
    buffers = vector(b, [empty, *[table(b, (0, None, data)) for data in constants]])

    def tensor(name, buffer, batched):
        shape = vector(b, [1, 4] if batched else [1], "Int32")
        extra = [(7, None, vector(b, [-1, 4], "Int32"))] if batched else []
        return table(b, (0, None, shape), (2, "Uint32", buffer), (3, None, b.CreateString(name)), *extra)

    tensors = vector(b, [tensor("x", 0, True), tensor("two", 1, False), tensor("one", 2, False), tensor("m", 0, True), tensor("y", 0, True)])

    def operator(code, inputs, output, options):
        about = table(b, (0, "Int8", 0))
        return table(
            b,
            (0, "Uint32", code),
            (1, None, vector(b, inputs, "Int32")),
            (2, None, vector(b, [output], "Int32")),
            (3, "Uint8", options),
            (4, None, about),
        )

    operators = vector(b, [operator(0, [0, 1], 3, 21), operator(1, [3, 2], 4, 11)])
    ends = [vector(b, [index], "Int32") for index in (0, 4)]
    subgraph = table(b, (0, None, tensors), (1, None, ends[0]), (2, None, ends[1]), (3, None, operators), (4, None, b.CreateString("main")))
    codes = vector(b, [table(b, (0, "Int8", code), (2, "Int32", 1), (3, "Int32", code)) for code in (18, 0)])
    model = table(b, (0, "Uint32", 3), (1, None, codes), (2, None, vector(b, [subgraph])), (4, None, buffers))
    b.Finish(model, b"TFL3")
    return bytes(b.Output())
