"""A Core ML model away from Apple's systems: translated to ONNX in memory, and run by ONNX Runtime in an engine of its own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnrp.engine import Engine
from nnrp.errors import InvalidModel, InvalidOption, NotOffered, RunFailed
from nnrp.runtimes.contract import Control, ModelSpec
from nnrp.runtimes.coreml.features import Features, Sizes
from nnrp.runtimes.coreml.ops import TABLE
from nnrp.runtimes.coreml.package import Package, bad
from nnrp.runtimes.coreml.program import Program
from nnrp.runtimes.coreml.schema import CORE_ML, messages
from nnrp.runtimes.coreml.value import TYPES, Constants, Type
from nnrp.runtimes.loop import Loop

#: The oldest specification of Core ML whose models may be programs.
OLDEST = 5
#: What the models of earlier years are, beside programs: each a field of the message.
_OTHERS = ("specificationVersion", "description", "isUpdatable", "mlProgram")


@dataclass
class Translation:
    """What came of a program.

    Attributes:
        content: the ONNX model, in parts, once.
        function: which function it is.
        classes: what the elements of probabilities are called, by output.
        features: what the description adds.
        inputs: the types of the inputs, by name.
        outputs: the types of the outputs, by name.
    """

    content: Iterator[bytes]
    function: str
    classes: dict[str, list[Any]]
    features: Features
    inputs: dict[str, Type]
    outputs: dict[str, Type]


def translate(path: str, function: str | None = None) -> Translation:
    """Translate a model.

    Raises:
        InvalidModel, NotOffered, FileNotFound, InvalidOption.
    """
    package = Package(path)
    model = package.model
    if not model.HasField("mlProgram"):
        raise _no_program(model)
    functions = {one.key: one.value for one in model.mlProgram.functions}
    wanted = function or model.description.defaultFunctionName or "main"
    if wanted not in functions:
        listed = ", ".join(f"'{one[:96]}'" for one in list(functions)[:16])
        raise InvalidOption(f"option 'function': expected one that the model has, got '{wanted[:96]}'; it has {listed}", functions=list(functions)[:16])
    constants = Constants(package)
    program = Program(functions[wanted], wanted, constants, TABLE)
    features = Features(model, wanted)
    inputs = features.apply(program.inputs)
    for elements in features.defaults.values():
        constants.reserve(elements.nbytes)
    graph, outputs = program.translate(inputs, features.defaults)
    return Translation(graph.model(), wanted, program.classes, features, inputs, {name: value.type for name, value in outputs.items()})


def _no_program(model: Any) -> NotOffered | InvalidModel:
    """The error of a model that is no program, with what it is."""
    fields = [field.name for field in messages(CORE_ML)["Model"].DESCRIPTOR.fields if field.name not in _OTHERS]
    kind = next((name for name in fields if getattr(model, name)), None)
    if kind is None:
        return bad("expected a Core ML model, got one of no kind that is known")
    text = f"model file: a Core ML model of the kind {kind} (specification {model.specificationVersion}): coreml translates programs (mlProgram) alone"
    return NotOffered(f"{text}; convert it again with convert_to='mlprogram', or run it on macOS", runtime="coreml", kind=kind)


@contextmanager
def _in_memory(translation: Translation) -> Iterator[str]:
    """A file that is nowhere on a disk, where the system has such; else one that only we can read."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("nnrp-coreml")
        with os.fdopen(handle, "wb") as file:
            file.writelines(translation.content)
            file.flush()
            yield f"/proc/self/fd/{handle}"
    else:
        with tempfile.TemporaryDirectory(prefix="nnrp-coreml-") as folder:
            plain = Path(folder, "model.onnx")
            with plain.open("xb") as file:
                file.writelines(translation.content)
            yield str(plain)


def load(spec: ModelSpec) -> Translated:
    """Load a model by its translation."""
    translation = translate(spec.path, spec.options.get("function"))
    engine = Engine()
    words: dict[str, Any] = {"device": spec.device, "precision": spec.precision, "options": spec.options.get("onnxruntime", {})}
    with _in_memory(translation) as path:
        model = engine.load(path, "translation", runtime="onnxruntime", **words)
    return Translated(engine, model, translation)


class Translated:
    """A model that ONNX Runtime runs; any number of threads may."""

    exclusive = False
    cancellable = True

    def __init__(self, engine: Engine, model: Any, told: Translation) -> None:
        self._engine, self._model = engine, model
        self._sizes: dict[str, Sizes] = told.features.sizes
        self.inputs = [(*_spec(name, type), name in told.features.defaults) for name, type in told.inputs.items()]
        self.outputs = [_spec(name, type) for name, type in told.outputs.items()]
        self.device = model.session.device
        itself = dict(model.session.settings)
        self.settings: dict[str, Any] = {"precision": itself.get("precision", "strict"), "through": "onnxruntime", "function": told.function}
        # What holds here too, told where every runtime tells it.
        self.settings |= {key: itself[key] for key in ("threads", "providers", "values_checked") if key in itself}
        further = {"images": told.features.images, "classes": told.classes, "sizes": {name: sizes.told() for name, sizes in self._sizes.items()}}
        self.settings |= {key: value for key, value in further.items() if value} | {"onnxruntime": itself}
        self._loop = Loop("nnrp-coreml")

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        for name, sizes in self._sizes.items():
            if name in inputs:
                sizes.check(name, inputs[name].shape)
        try:
            if not control.stoppable:
                answer: dict[str, Any] = self._model.infer(inputs, outputs)
                return answer
            left = None if control.deadline is None else max(0.0, control.deadline - time.monotonic())
            stopped: dict[str, Any] = self._loop.finish(self._model.infer_async(inputs, outputs, timeout=left), control)
            return stopped
        except RunFailed as error:
            raise RunFailed(f"runtime coreml: {error.message}", **{**error.details, "runtime": "coreml"}) from error

    def close(self) -> None:
        self._loop.close()
        self._engine.unload(self._model.name)


def _spec(name: str, type: Type) -> tuple[str, str, list[int] | None]:
    return name, TYPES[type.kind][2], None if type.shape is None else list(type.shape)
