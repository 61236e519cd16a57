"""Programs that ``torch.export`` saved: they know names, datatypes and dimensions, and PyTorch runs them one operation after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nnrp.errors import InvalidModel, NnrpError, NotOffered, ShapeMismatch
from nnrp.runtimes.torch.archive import Archive
from nnrp.runtimes.torch.session import FAILURES, said
from nnrp.runtimes.torch.types import NUMBERS, Port, datatype_of

#: PyTorch reads one program at a time: what it has read so far is in a global variable there.
_READING = threading.Lock()
#: Operations that write to running means while they train, of which their schemas say nothing.
_NORMS = {"aten::batch_norm", "aten::instance_norm", "aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm"}


class Exported(NamedTuple):
    """A program, ready to be called."""

    call: Callable[..., Sequence[Any]]
    inputs: list[Port]
    outputs: list[Port]
    stateful: bool
    tensors: list[Any]
    dims: Dims


class Dims:
    """The open dimensions of the inputs: their symbols, and the sizes that these may have."""

    def __init__(self, symbols: Mapping[str, Sequence[str | int]], bounds: Mapping[str, tuple[int, int | None]]) -> None:
        self._symbols, self._bounds = symbols, bounds

    @property
    def told(self) -> dict[str, dict[str, Any]]:
        """For the settings: input → axis → its symbol, and the least and the largest size."""
        found: dict[str, dict[str, Any]] = {}
        for name, dims in self._symbols.items():
            for axis, symbol in enumerate(dims):
                if isinstance(symbol, str):
                    least, most = self._bounds.get(symbol, (0, None))
                    found.setdefault(name, {})[str(axis)] = {"symbol": symbol, "min": least, "max": most}
        return found

    def check(self, inputs: Mapping[str, Any]) -> NnrpError | None:
        """Say what is wrong with the inputs' sizes; None where nothing is."""
        sizes: dict[str, tuple[str, int, int]] = {}
        for name, value in inputs.items():
            for axis, (symbol, size) in enumerate(zip(self._symbols.get(name, ()), value.shape, strict=False)):
                if not isinstance(symbol, str):
                    continue
                least, most = self._bounds.get(symbol, (0, None))
                if size < least or (most is not None and size > most):
                    wanted = f"{least} at least" if most is None else f"{least} to {most}"
                    return _misfit(name, axis, wanted, size)
                other, place, first = sizes.setdefault(symbol, (name, axis, size))
                if first != size:
                    return _misfit(name, axis, f"{first}, as dimension {place} of '{other}' has", size)
        return None


def _misfit(name: str, axis: int, wanted: str, size: int) -> ShapeMismatch:
    return ShapeMismatch(f"input '{name}': dimension {axis}: expected {wanted}, got {size}", input=name, axis=axis, got=size)


def read(archive: Archive, name: str) -> Any:
    """Read a program out of an archive.

    Raises:
        InvalidModel: PyTorch cannot.
    """
    import io

    from torch.export.pt2_archive._package import load_pt2

    try:
        with _READING:
            return load_pt2(io.BytesIO(archive.content)).exported_programs[name]
    except (*FAILURES, OSError) as error:
        raise InvalidModel(f"model file: torch cannot read it: {said(error)}", runtime="torch") from error


def prepare(torch: Any, program: Any, device: str) -> Exported:
    """Make a program ready to be called."""
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    nodes = {node.name: node for node in program.graph.nodes}
    written, stateful = _written(program)
    fed, inputs, symbols = _inputs(torch, program, nodes, written)
    places, outputs = _outputs(torch, program, nodes)
    module = program.module()
    tensors = [*program.state_dict.values(), *(one for one in program.constants.values() if isinstance(one, torch.Tensor)), *module.buffers()]
    call = _caller(module, program, fed, places)
    return Exported(call, inputs, outputs, stateful, tensors, Dims(symbols, _bounds(program)))


def _inputs(torch: Any, program: Any, nodes: Mapping[str, Any], written: set[str]) -> tuple[list[Any], list[Port], dict[str, list[str | int]]]:
    """What is fed in, in the program's order: a name, or the constant that it was exported with; and the signature's inputs with their dimensions."""
    fed, ports, symbols = list[Any](), list[Port](), dict[str, list[str | int]]()
    for spec in program.graph_signature.input_specs:
        if spec.kind.name != "USER_INPUT":
            continue
        name = getattr(spec.arg, "name", "")
        value = nodes[name].meta.get("val") if name in nodes else None
        if isinstance(value, torch.Tensor):
            symbols[name] = [_symbol(dim) for dim in value.shape]
            shape = [dim if isinstance(dim, int) else -1 for dim in symbols[name]]
            ports.append(Port(name, datatype_of(torch, name, value.dtype), shape, copied=name in written))
        elif isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            number = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(value)]
            ports.append(Port(name, NUMBERS[number], [], number=number))
        else:
            fed.append((None, getattr(spec.arg, "value", None)))
            continue
        fed.append((name, None))
    return fed, ports, symbols


def _symbol(dim: Any) -> str | int:
    """A dimension: a number, a symbol, or a formula of symbols, which PyTorch checks itself."""
    return dim if isinstance(dim, int) else str(dim.node.expr)


def _bounds(program: Any) -> dict[str, tuple[int, int | None]]:
    """The least and the largest size of each symbol, and of the formulas that have their own."""
    return {
        str(symbol): (int(allowed.lower), int(allowed.upper) if allowed.upper.is_Integer and allowed.upper < 2**62 else None)
        for symbol, allowed in program.range_constraints.items()
        if allowed.lower.is_Integer
    }


def _outputs(torch: Any, program: Any, nodes: Mapping[str, Any]) -> tuple[list[int], list[Port]]:
    """Which of the results are tensors or numbers, and what they are."""
    user = [spec.arg for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]
    places, ports = list[int](), list[Port]()
    for place, (name, arg) in enumerate(zip(_names(program, len(user)), user, strict=True)):
        value = nodes[arg.name].meta.get("val") if getattr(arg, "name", None) in nodes else getattr(arg, "value", None)
        if isinstance(value, torch.Tensor):
            shape = [dim if isinstance(dim, int) else -1 for dim in value.shape]
            ports.append(Port(name, datatype_of(torch, name, value.dtype), shape))
        elif isinstance(value, int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool):
            number = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}.get(type(value), type(value))
            ports.append(Port(name, NUMBERS[number], [], number=number))
        elif value is None:
            continue
        else:
            raise NotOffered(f"model file: the result '{name[:96]}' is of type {type(value).__name__}, which torch does not offer here", runtime="torch")
        places.append(place)
    return places, ports


def _names(program: Any, count: int) -> list[str]:
    """Call the results by their keys where they have some, else by their places."""
    from torch.utils import _pytree as tree

    paths, _ = tree.tree_flatten_with_path(tree.tree_unflatten(range(count), program.call_spec.out_spec))
    names = []
    for path, _ in paths:
        words = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
        unnamed = not words or words[0].isdigit()
        names.append("_".join([*(["output"] if unnamed else []), *(words if len(paths) > 1 or not unnamed else [])]))
    return names


def _caller(module: Any, program: Any, fed: Sequence[tuple[str | None, Any]], places: Sequence[int]) -> Callable[..., Sequence[Any]]:
    """Give what calls the module with the signature's inputs alone, and gives its results in a row."""
    from torch.utils import _pytree as tree

    into, out = program.call_spec.in_spec, program.call_spec.out_spec
    flat, leaf = tree.tree_leaves, tree.treespec_leaf() if hasattr(tree, "treespec_leaf") else tree.LeafSpec()
    straight = all(name for name, _ in fed) and into == tree.tree_structure((tuple(range(len(fed))), {}))
    give = (lambda answer: (answer,)) if out == leaf else flat
    if out == tree.tree_structure(tuple(range(out.num_leaves))) or out == tree.tree_structure(list(range(out.num_leaves))):
        give = lambda answer: answer  # noqa: E731 - one of three

    def spread(*given: Any) -> Any:
        values = iter(given)
        args, kwargs = tree.tree_unflatten([value if name is None else next(values) for name, value in fed], into)
        return module(*args, **kwargs)

    ask = module if straight else spread
    if list(places) == list(range(out.num_leaves)):
        return lambda *given: give(ask(*given))
    return lambda *given: [answer for place, answer in enumerate(flat(ask(*given), is_leaf=lambda one: one is None)) if place in places]


def _written(program: Any) -> tuple[set[str], bool]:
    """Tell which inputs the program writes to, and whether it writes to what it keeps."""
    signature = program.graph_signature
    inputs = {spec.arg.name for spec in signature.input_specs if spec.kind.name == "USER_INPUT" and hasattr(spec.arg, "name")}
    reach: dict[str, set[str]] = {}
    written = {spec.target for spec in signature.output_specs if spec.kind.name == "USER_INPUT_MUTATION"}
    stateful = any(spec.kind.name in ("BUFFER_MUTATION", "PARAMETER_MUTATION") for spec in signature.output_specs)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            reach[node.name] = {node.name}
            continue
        schema = getattr(node.target, "_schema", None)
        sources = [one for one in node.all_input_nodes if one.op != "get_attr"]
        # What is no operation of PyTorch's may give its inputs back, such as `getitem` and `cond`.
        views = schema is None or any(result.alias_info is not None for result in schema.returns)
        reach[node.name] = set().union(*(reach.get(one.name, set()) for one in sources)) if views else set()
        if schema is not None and (schema.is_mutable or schema.name in _NORMS):
            named = dict(zip((arg.name for arg in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
            targets = [named.get(arg.name) for arg in schema.arguments if arg.alias_info is not None and arg.alias_info.is_write]
            if schema.name in _NORMS and (named.get("training") or named.get("use_input_stats")):
                targets += [named.get("running_mean"), named.get("running_var")]
            touched = set().union(*(reach.get(getattr(one, "name", ""), set()) for one in targets)) if targets else set()
            written |= touched & inputs
            stateful = stateful or bool(touched - inputs)
    return written, stateful
