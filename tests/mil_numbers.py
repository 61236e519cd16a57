"""Cases of operations that compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mil_truth as truth
import numpy as np
from mil_case import DIVISORS, WHOLE, Array, P, X, Y, case, noise, whole

from nnrp.testing.formats.coreml import Var

# One element


def _unary() -> None:
    plain: dict[str, Callable[[Array], Any]] = {
        "abs": np.abs,
        "atan": np.arctan,
        "ceil": np.ceil,
        "cos": np.cos,
        "cosh": np.cosh,
        "erf": np.vectorize(math.erf),
        "exp": np.exp,
        "exp2": np.exp2,
        "floor": np.floor,
        "round": np.round,
        "sign": np.sign,
        "sin": np.sin,
        "sinh": np.sinh,
        "square": np.square,
        "tan": np.tan,
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "relu6": lambda x: np.clip(x * 1, 0, 6),
        "sigmoid": truth.sigmoid,
        "silu": lambda x: x * truth.sigmoid(x),
        "softplus": lambda x: np.log1p(np.exp(x)),
        "softsign": lambda x: x / (1 + np.abs(x)),
        "identity": lambda x: x,
    }
    for kind, function in plain.items():
        case(kind, function(X.astype(np.float64)), {"x": X})


def _shifted() -> None:
    for kind, of in {"acos": np.arccos, "asin": np.arcsin, "atanh": np.arctanh}.items():
        case(kind, of(X / 5), {"x": X / 5})
    case("sqrt", np.sqrt(P), {"x": P})
    case("round", np.array([-2.0, -0.0, 0.0, 2.0, 2.0]), {"x": np.array([-1.5, -0.5, 0.5, 1.5, 2.5])}, "halves")
    case("inverse", 1 / (P + 0.25), {"x": P}, epsilon=0.25)
    case("inverse", 1 / (P + 1e-4), {"x": P}, "default")
    case("log", np.log(P + 0.25), {"x": P}, epsilon=0.25)
    case("log", np.log(P), {"x": P}, "default")
    case("rsqrt", 1 / np.sqrt(P + 0.25), {"x": P}, epsilon=0.25)
    case("clip", np.clip(X, -0.5, 0.25), {"x": X}, alpha=-0.5, beta=0.25)
    case("threshold", np.maximum(X, 0.25), {"x": X}, alpha=0.25)
    case("abs", np.abs(WHOLE), {"x": WHOLE}, "int32")
    case("square", WHOLE * WHOLE, {"x": WHOLE}, "int32")
    case("logical_not", ~(X > 0), {"x": X > 0})


def _casts() -> None:
    case("cast", X.astype(np.int32), {"x": X * 1}, "fp32-int32", dtype="int32")
    case("cast", (3 * X).astype(np.int32), {"x": 3 * X}, "towards-zero", dtype="int32")
    case("cast", WHOLE.astype(np.float32), {"x": WHOLE}, "int32-fp32", dtype="fp32")
    case("cast", X.astype(np.float16), {"x": X}, "fp32-fp16", dtype="fp16")
    case("cast", WHOLE != 0, {"x": WHOLE}, "int32-bool", dtype="bool")


def _activations() -> None:
    x = X.astype(np.float64)
    case("elu", np.where(x > 0, x, 0.3 * (np.exp(x) - 1)), {"x": X}, alpha=0.3)
    case("leaky_relu", np.where(x > 0, x, 0.3 * x), {"x": X}, alpha=0.3)
    slopes = np.array([0.1, 0.2, 0.3], np.float32)
    case("clamped_relu", np.minimum(0.7, np.where(x >= 0, x, 0.3 * x)), {"x": X}, alpha=0.3, beta=0.7)
    case("thresholded_relu", np.where(x >= 0.25, x, 0), {"x": X}, alpha=0.25)
    case("thresholded_relu", np.array([0, 0.5, 1]), {"x": np.array([0.25, 0.5, 1])}, "equal", alpha=0.5)
    case("linear_activation", 2 * x - 1, {"x": X}, alpha=2.0, beta=-1.0)
    case("scaled_tanh", 2 * np.tanh(0.5 * x), {"x": X}, alpha=2.0, beta=0.5)
    case("sigmoid_hard", np.clip(0.3 * x + 0.4, 0, 1), {"x": X}, alpha=0.3, beta=0.4)
    four = noise(1, 3, 2, 2).astype(np.float64)
    beside = slopes[:, None, None]
    case("prelu", np.where(four > 0, four, beside * four), {"x": four}, alpha=slopes)
    case("softplus_parametric", beside * np.log1p(np.exp(2 * beside * four)), {"x": four}, alpha=slopes, beta=2 * slopes)
    case("gelu", x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))), {"x": X}, "exact", mode="EXACT")
    case("gelu", 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), {"x": X}, "tanh", mode="TANH_APPROXIMATION")
    case("gelu", x * truth.sigmoid(1.702 * x), {"x": X}, "sigmoid", mode="SIGMOID_APPROXIMATION")
    for axis in (-1, 1):
        top = np.exp(x)
        case("softmax", top / top.sum(axis, keepdims=True), {"x": X}, f"axis{axis}", axis=axis)


# Two


def _binary() -> None:
    plain: dict[str, Callable[..., Any]] = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "real_div": np.divide,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "equal": np.equal,
        "not_equal": np.not_equal,
        "greater": np.greater,
        "greater_equal": np.greater_equal,
        "less": np.less,
        "less_equal": np.less_equal,
        "floor_div": np.floor_divide,
        "mod": np.mod,
    }
    for kind, function in plain.items():
        case(kind, function(X, Y), {"x": X, "y": Y})
        if kind != "real_div":
            case(kind, function(WHOLE, DIVISORS), {"x": WHOLE, "y": np.broadcast_to(DIVISORS, WHOLE.shape).copy()}, "int32")
    case("mod", np.array([1.0, 1.0, -1.0, -1.0, 0.0]), {"x": np.array([-5.0, 4.0, 5.0, -4.0, 6.0]), "y": np.array([3.0, 3.0, -3.0, -3.0, 3.0])}, "signs")
    case("pow", P**Y, {"x": P, "y": Y})
    case("add", X + np.float32(2), {"x": X}, "constant", y=2.0)
    a, b = X > 0, X > 0.5
    for kind, function in {"logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor}.items():
        case(kind, function(a, b), {"x": a, "y": b})
    case("select", np.where(a, X, 2 * X), {"cond": a, "a": X, "b": 2 * X})


# Products


def _products() -> None:
    a, b = noise(2, 3, 4), noise(2, 4, 5)
    case("matmul", a @ b, {"x": a, "y": b})
    case("matmul", a @ b, {"x": a.swapaxes(1, 2).copy(), "y": b.swapaxes(1, 2).copy()}, "transposed", transpose_x=True, transpose_y=True)
    case("matmul", a @ b[0], {"x": a, "y": b[0]}, "broadcast")
    w, bias = noise(6, 4), noise(6)
    case("linear", a @ w.T + bias, {"x": a}, weight=w, bias=bias)
    q, k = noise(1, 2, 3, 4), noise(1, 4, 3, 5)
    case("einsum", np.einsum("nchw,nwhu->nchu", q, k), {"a": q, "b": k}, values=(Var("a"), Var("b")), equation="nchw,nwhu->nchu")
    query, key, values = noise(1, 2, 3, 4), noise(1, 2, 5, 4), noise(1, 2, 5, 6)
    mask = noise(1, 1, 3, 5)
    scores = query @ key.swapaxes(-1, -2) / 2
    for name, added in (("", 0), ("mask", mask)):
        parts = np.exp(scores + added)
        inputs = {"query": query, "key": key, "value": values} | ({"attn_mask": mask} if name else {})
        case("scaled_dot_product_attention", parts / parts.sum(-1, keepdims=True) @ values, inputs, name, since=18)


# Normalisations


def _normal() -> None:
    x = noise(2, 3, 4, 5).astype(np.float64)
    mean, variance, gamma, beta = noise(3), np.abs(noise(3)), noise(3), noise(3)
    beside = [one[:, None, None] for one in (mean, variance, gamma, beta)]
    plain = (x - beside[0]) / np.sqrt(beside[1] + 1e-5)
    case("batch_norm", plain, {"x": x}, "plain", mean=mean, variance=variance)
    scaled = (x - beside[0]) / np.sqrt(beside[1] + 0.1) * beside[2] + beside[3]
    case("batch_norm", scaled, {"x": x}, "scaled", mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=0.1)
    own = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 0.1)
    case("instance_norm", own * beside[2] + beside[3], {"x": x}, gamma=gamma, beta=beta, epsilon=0.1)
    for axes in ([-1], [2, 3], [1]):
        among = tuple(axes)
        own = (x - x.mean(among, keepdims=True)) / np.sqrt(x.var(among, keepdims=True) + 0.1)
        shape = [x.shape[axis] for axis in axes]
        g, b = noise(*shape), noise(*shape)
        wide = [x.shape[axis] if axis in [one % 4 for one in axes] else 1 for axis in range(4)]
        case("layer_norm", own * g.reshape(wide) + b.reshape(wide), {"x": x}, f"axes{axes}", axes=axes, gamma=g, beta=b, epsilon=0.1)
        case("layer_norm", own, {"x": x}, f"plain{axes}", axes=axes, epsilon=0.1)
    case("l2_norm", x / np.sqrt((x**2).sum((1, 2, 3), keepdims=True) + 0.1), {"x": x}, epsilon=0.1)
    squares = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    case("local_response_norm", x / (2 + 0.3 / 3 * total) ** 0.6, {"x": x}, size=3, alpha=0.3, beta=0.6, k=2.0)


# Convolutions and pools


def _convolutions() -> None:
    x, w, bias = noise(1, 4, 7, 6), noise(6, 4, 3, 2), noise(6)
    case("conv", truth.conv(x, w, [0] * 4, [1, 1], [1, 1]), {"x": x}, "valid", weight=w, pad_type="valid")
    pads, strides, dilations = [2, 1, 0, 1], [2, 1], [1, 2]
    wanted = truth.conv(x, w, pads, strides, dilations, bias=bias)
    case("conv", wanted, {"x": x}, "custom", weight=w, bias=bias, pad_type="custom", pad=pads, strides=strides, dilations=dilations)
    for kind in ("same", "same_lower"):
        pads = truth.same([7, 6], [3, 2], [2, 2], kind == "same_lower")
        case("conv", truth.conv(x, w, pads, [2, 2], [1, 1]), {"x": x}, kind, weight=w, pad_type=kind, strides=[2, 2])
    grouped = noise(6, 2, 3, 2)
    case("conv", truth.conv(x, grouped, [0] * 4, [1, 1], [1, 1], 2), {"x": x}, "groups", weight=grouped, pad_type="valid", groups=2)
    line, three = noise(2, 3, 8), noise(5, 3, 3)
    case("conv", truth.conv(line, three, [1, 1], [2], [1]), {"x": line}, "line", weight=three, pad_type="custom", pad=[1, 1], strides=[2])
    cube, box = noise(1, 2, 4, 4, 3), noise(3, 2, 2, 2, 2)
    case("conv", truth.conv(cube, box, [0] * 6, [1] * 3, [1] * 3), {"x": cube}, "cube", weight=box, pad_type="valid")
    turned = noise(4, 3, 3, 2)
    case("conv_transpose", truth.conv_transpose(x, turned, [0] * 4, [2, 1]), {"x": x}, "valid", weight=turned, pad_type="valid", strides=[2, 1])
    pads = [1, 0, 0, 1]
    wanted = truth.conv_transpose(x, turned, pads, [2, 2])
    case("conv_transpose", wanted, {"x": x}, "custom", weight=turned, pad_type="custom", pad=pads, strides=[2, 2])
    wanted = truth.conv_transpose(x, turned, [0, 1, 0, 0], [2, 2])
    case("conv_transpose", wanted, {"x": x}, "same", weight=turned, pad_type="same", strides=[2, 2])
    halves = noise(4, 3, 3, 2)
    wanted = truth.conv_transpose(x, halves, [0] * 4, [1, 1], 2)
    case("conv_transpose", wanted, {"x": x}, "groups", weight=halves, pad_type="valid", groups=2)
    wanted = truth.conv_transpose(x, turned, [1, 0, 0, 0], [2, 2])
    shape = list(wanted.shape)
    case("conv_transpose", wanted, {"x": x}, "shape", weight=turned, pad_type="custom", pad=[1, 1, 0, 0], strides=[2, 2], output_shape=shape)


def _pools() -> None:
    x = noise(1, 2, 7, 6)
    kernel, strides = [3, 2], [2, 2]
    for kind in ("max", "avg", "l2"):
        case(f"{kind}_pool", truth.pool(x, kind, kernel, strides, [0] * 4), {"x": x}, "valid", kernel_sizes=kernel, strides=strides, pad_type="valid")
        for how in ("same", "same_lower"):
            pads = truth.same([7, 6], kernel, strides, how == "same_lower")
            case(f"{kind}_pool", truth.pool(x, kind, kernel, strides, pads), {"x": x}, how, kernel_sizes=kernel, strides=strides, pad_type=how)
    for exclude in (True, False):
        for pads, ceil in (([1, 1, 1, 1], False), ([1, 1, 1, 1], True), ([0, 0, 0, 0], True)):
            told = {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom", "pad": pads, "ceil_mode": ceil}
            wanted = truth.pool(x, "avg", [3, 3], [2, 2], pads, ceil, not exclude)
            case("avg_pool", wanted, {"x": x}, f"{'excluded' if exclude else 'counted'}-{pads[0]}-{ceil}", exclude_padding_from_average=exclude, **told)
            if exclude:
                case("max_pool", truth.pool(x, "max", [3, 3], [2, 2], pads, ceil), {"x": x}, f"custom-{pads[0]}-{ceil}", **told)
    line = noise(1, 2, 9)
    wanted = truth.pool(line, "avg", [4], [3], [1, 1])
    case("avg_pool", wanted, {"x": line}, "line", kernel_sizes=[4], strides=[3], pad_type="custom", pad=[1, 1])


# Recurrent nets


def _recurrent() -> None:
    steps, batch, width, size = 4, 2, 3, 5
    x, h, c = noise(steps, batch, width), noise(batch, size), noise(batch, size)
    wi, wh, b = noise(4 * size, width), noise(4 * size, size), noise(4 * size)
    states = {"x": x, "initial_h": h, "initial_c": c}
    weights = {"weight_ih": wi, "weight_hh": wh, "bias": b}
    for direction in ("forward", "reverse"):
        wanted = truth.lstm(x, h, c, wi, wh, b, direction == "reverse")
        case("lstm", wanted, states, direction, direction=direction, output_sequence=True, tolerance=1e-4, **weights)
    forward = truth.lstm(x, h, c, wi, wh, b)
    case("lstm", (forward[1][None], *forward[1:]), states, "last", direction="forward", output_sequence=False, tolerance=1e-4, **weights)
    wi2, wh2, b2, h2, c2 = noise(4 * size, width), noise(4 * size, size), noise(4 * size), noise(batch, size), noise(batch, size)
    other = truth.lstm(x, h2, c2, wi2, wh2, b2, True)
    both = tuple(np.concatenate(pair, -1) for pair in zip(forward, other, strict=True))
    inputs = {"x": x, "initial_h": np.concatenate([h, h2], 1), "initial_c": np.concatenate([c, c2], 1)}
    back = {"weight_ih_back": wi2, "weight_hh_back": wh2, "bias_back": b2}
    case("lstm", both, inputs, "both", direction="bidirectional", output_sequence=True, tolerance=1e-4, **weights, **back)
    states, three = {"x": x, "initial_h": h}, 3 * size
    weights = {"weight_ih": wi[:three], "weight_hh": wh[:three], "bias": b[:three]}
    case("gru", truth.gru(x, h, *weights.values()), states, direction="forward", output_sequence=True, tolerance=1e-4, **weights)
    weights = {"weight_ih": wi[:size], "weight_hh": wh[:size], "bias": b[:size]}
    case("rnn", truth.rnn(x, h, *weights.values()), states, direction="forward", output_sequence=True, tolerance=1e-4, **weights)


# Quantised tensors


def _quantised() -> None:
    scale, zero = np.array([0.1, 0.2, 0.05], np.float32), np.array([3, -4, 0], np.int8)
    beside = [one[:, None].astype(np.float64) for one in (scale, zero)]
    packed = np.clip(np.round(X / beside[0]) + beside[1], -128, 127)
    case("quantize", packed.astype(np.int8), {"input": X}, scale=scale, zero_point=zero, axis=1, output_dtype="int8")
    stored = whole(-128, 127, 2, 3, 4).astype(np.int8)
    case("dequantize", (stored - beside[1]) * beside[0], {"input": stored}, scale=scale, zero_point=zero, axis=1)


def add() -> None:
    """Add them all."""
    for some in (_unary, _shifted, _casts, _activations, _binary, _products, _normal, _convolutions, _pools, _recurrent, _quantised):
        some()
