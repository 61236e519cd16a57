"""What is in an archive that ``torch.export`` or AOTInductor saved, and whether opening it would run what its maker wrote.

PyTorch opens pickles in these archives, evaluates expressions of their texts, and calls functions by names that they say. So their contents are looked at
before, with the reader that PyTorch opens them with, and everything that is no plain model is refused.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from nnrp.errors import InvalidModel

#: Where the parts lie.
MODELS, COMPILED = "models/", "data/aotinductor/"
_SAMPLES, _CONFIG = "data/sample_inputs/", re.compile(r"data/(?:weights|constants)/[^/]*_config\.json")
_OBJECTS = re.compile(r"data/(?:weights|constants)/(?:opaque_obj_|custom_obj_|[^/]*\.pt$)")
#: What a graph may call: operations, and Python's own arithmetic.
_TARGET = re.compile(r"torch\.ops\.(?!aten\.from_file\b)\w+\.\w+(?:\.\w+)?|_operator\.\w+|math\.\w+|torch\.(?:_?sym_\w+|\w+\._sym\w+)")
_SYMBOL = re.compile(r"[A-Za-z]\w*")
_EXPRESSION = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Constant, ast.keyword, ast.Load)
_OPERATORS = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
#: What an expression of dimensions may call.
_NAMES = (
    "Symbol Integer Float Rational Equality Unequality GreaterThan LessThan StrictGreaterThan StrictLessThan "
    "Add Mul Pow Max Min Mod Abs Eq Ne Ge Gt Le Lt And Or Not floor ceiling Piecewise FloorDiv ModularIndexing Where PythonMod "
    "CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToInt "
    "TruncToFloat RoundToInt RoundDecimal ToFloat Identity OpaqueUnaryFn_sqrt BitwiseFn_bitwise_and BitwiseFn_bitwise_or oo int_oo"
)
_FUNCTIONS = frozenset(_NAMES.split())
#: Most bits that a number of an expression may have, and most digits that may be asked for: `9**9**9` takes all memory and no end of time.
_MOST_BITS, _MOST_DIGITS = 1 << 16, 64
#: As large as the value of a symbol may be, in bits.
_SYMBOL_BITS = 63.0
#: What makes numbers grow by more than their sum: Python's operators, and functions.
_GROWING = ("Pow", "PowByNatural", "FloatPow", "LShift")
_NO_PICKLE = "a pickle runs whatever its maker wrote when it is opened: expected none, or the option allow_pickle"


class Archive:
    """An archive in memory, so that what was looked at is what is opened."""

    def __init__(self, content: bytes) -> None:
        from torch.export.pt2_archive._package import PT2ArchiveReader

        self.content = content
        self._reader = PT2ArchiveReader(io.BytesIO(content))
        self.names: list[str] = list(self._reader.get_file_names())

    def read(self, name: str) -> bytes:
        """Give a part."""
        part: bytes = self._reader.read_bytes(name)
        return part

    @property
    def models(self) -> list[str]:
        """The exported programs in it."""
        return sorted(name.removeprefix(MODELS).removesuffix(".json") for name in self.names if name.startswith(MODELS))

    @property
    def compiled(self) -> list[str]:
        """The models in it that are machine code."""
        return sorted({name.removeprefix(COMPILED).partition("/")[0] for name in self.names if name.startswith(COMPILED)})


def check_plain(torch: Any, archive: Archive) -> None:
    """Refuse an archive that would run what its maker wrote.

    Raises:
        InvalidModel: it has a pickle, a text that PyTorch would evaluate and that is no arithmetic, or one that names code.
    """
    for name in archive.names:
        if _OBJECTS.match(name):
            raise InvalidModel(f"model file: {_NO_PICKLE}", format="pt2", part=name[:96])
        if _CONFIG.match(name):
            _check_config(name, json.loads(archive.read(name)))
        elif name.startswith(_SAMPLES):
            _check_sample(torch, name, archive.read(name))
        elif name.startswith(MODELS):
            program = json.loads(archive.read(name))
            if _names_code(program):
                message = "model file: expected nested inputs and outputs of plain kinds, got one that names code, which PyTorch would import"
                raise InvalidModel(message, format="pt2", part=name[:96])
            for text in _evaluated(program):
                if not arithmetic(text):
                    raise InvalidModel(f"model file: expected arithmetic of dimensions, got '{text[:96]}', which PyTorch would evaluate", format="pt2")


def _names_code(value: Any) -> bool:
    """Whether texts in a program name code that PyTorch imports to know how inputs and outputs are nested: they are JSON, within which are such texts again."""
    if isinstance(value, str):
        if value.lstrip()[:1] not in ("[", "{", '"'):
            return False
        try:
            return _names_code(json.loads(value))
        except ValueError:
            return False
        except RecursionError:
            return True
    if isinstance(value, list):
        return any(map(_names_code, value))
    if not isinstance(value, dict):
        return False
    return "__enum__" in value or value.get("default_factory_module") not in (None, "builtins") or any(map(_names_code, value.values()))


def _check_config(name: str, config: Any) -> None:
    entries = config.get("config", {}).values() if isinstance(config, dict) else ()
    if any(not isinstance(entry, dict) or entry.get("use_pickle") for entry in entries):
        raise InvalidModel(f"model file: {_NO_PICKLE}", format="pt2", part=name[:96])


def _check_sample(torch: Any, name: str, content: bytes) -> None:
    """The inputs that the model was exported with: PyTorch opens them as tensors, and as any pickle where that fails."""
    import pickle

    if content:
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, EOFError, AttributeError) as error:
            raise InvalidModel(f"model file: {_NO_PICKLE}", format="pt2", part=name[:96]) from error


def _evaluated(value: Any) -> Iterator[str]:
    """The texts of a program that PyTorch evaluates, and the names of what it calls as far as they are not operations."""
    if isinstance(value, list):
        for one in value:
            yield from _evaluated(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key in ("expr_str", "target") and isinstance(one, str):
                if key == "expr_str" or not _called(value, one):
                    yield one
            elif key == "guards_code" and isinstance(one, list):
                yield from (guard for guard in one if isinstance(guard, str) and not _guard(guard))
            elif key == "range_constraints" and isinstance(one, dict):
                yield from one
            yield from _evaluated(one)


def _called(node: dict[str, Any], target: str) -> bool:
    """Whether a node calls an operation; what has no inputs and outputs is no node, and its target the name of a weight."""
    return "inputs" not in node or "outputs" not in node or _TARGET.fullmatch(target) is not None


def arithmetic(text: str) -> bool:
    """Whether an expression is made of numbers, symbols and known functions alone, and none of its numbers grows beyond all bounds."""
    try:
        tree = ast.parse(text, mode="eval")
        return all(_harmless(node) for node in ast.walk(tree)) and _bits(tree.body) <= _MOST_BITS
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _bits(node: ast.AST) -> float:
    """How many bits a value has at most; more than any bound where that cannot be told."""
    if isinstance(node, ast.Constant):
        return math.log2(abs(node.value) + 1) if isinstance(node.value, int | float) else 0.0
    if isinstance(node, ast.Name):
        return _SYMBOL_BITS
    kind, given, named = "", [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)], []
    if isinstance(node, ast.BinOp):
        kind = type(node.op).__name__
    elif isinstance(node, ast.Call):
        kind, given, named = ast.unparse(node.func), node.args, [word.value for word in node.keywords]
    if kind == "Float" and not all(map(_few_digits, (*given[1:], *named))):
        return math.inf
    parts = [_bits(one) for one in (*given, *named)]
    if kind not in _GROWING:
        return sum(parts) + 1
    if named or len(parts) != 2:
        return math.inf
    times: float = 2.0 ** min(parts[1], _SYMBOL_BITS)
    return parts[0] + times if kind == "LShift" else max(parts[0], 1.0) * times


def _few_digits(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and 0 <= node.value <= _MOST_DIGITS


def _harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Name):
        return _SYMBOL.fullmatch(node.id) is not None and "__" not in node.id
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or (isinstance(node.value, str) and _SYMBOL.fullmatch(node.value) is not None and "__" not in node.value)
    return isinstance(node, _EXPRESSION + _OPERATORS)


def _guard(text: str) -> bool:
    """Whether a guard compares sizes of inputs: arithmetic of `L['x'].size()[0]`."""
    return arithmetic(re.sub(r"\bL(?:\[(?:'\w+'|\d+)\])+(?:\.size\(\)\[\d+\])?", "s0", text))
