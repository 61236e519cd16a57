"""The runtime under test: its engines, and the models that it is asked to load."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrp.engine import Engine, Isolation
from nnrp.errors import NnrpError, RuntimeNotInstalled
from nnrp.runtimes import entry
from nnrp.testing import zoo
from nnrp.testing.claims import Failed, NotApplicable

if TYPE_CHECKING:
    from nnrp.model import Model
    from nnrp.runtimes.contract import Runtime
    from nnrp.testing.zoo import Writer

    Source = str | os.PathLike[str] | Mapping[str, Any]

#: What a role says to the suite, and not to `Engine.load`.
OWN = ("ask", "then", "expected")
#: The role that somebody must play.
NEEDED = "affine"
#: What every model under test is called.
NAME = "conform"


class Subject:
    """A runtime, its models by role, and what holds for the checks.

    Args:
        runtime: a runtime, or the name of one.
        folder: where models are written.
        plugins: shared libraries that bring it.
        models: role → a path, or a mapping of what `Engine.load` takes.
        writer: what writes the models of the roles that `models` has none for, or its ``module:function``; None: what the runtime's package brings, else ONNX.
        tolerance: largest error of an output with fractions, relative to the reference's largest element; None: the datatype's default.
        reference: the runtime that is right; None: ONNX Runtime, else the evaluator of the onnx package.
        loads: how often a model is loaded to see what stays behind.
        isolation: in whose process its models run.
    """

    def __init__(
        self,
        runtime: str | Runtime,
        folder: Path,
        *,
        plugins: Sequence[str | os.PathLike[str]] = (),
        models: Mapping[str, Source] | None = None,
        writer: str | Writer | None = None,
        tolerance: float | None = None,
        reference: str | None = None,
        loads: int = 100,
        isolation: Isolation = "none",
    ) -> None:
        self.name = runtime if isinstance(runtime, str) else runtime.name
        self.folder, self.tolerance, self.reference, self.loads = folder, tolerance, reference, loads
        self._plugins, self._models, self._isolation = plugins, models or {}, isolation
        self._write = zoo.writer(self.name, writer)
        self._made = None if isinstance(runtime, str) else runtime
        if self._made is None and self.name not in {told["name"] for told in Engine(plugins=plugins).runtimes()}:
            self._made = entry.make(self.name)
            if self._made is None:
                raise RuntimeNotInstalled(f"runtime '{self.name[:96]}' is not installed, and no package brings it", runtime=self.name)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the runtime tells of itself, without a model."""
        return next(told for told in self.engine().runtimes() if told["name"] == self.name)

    def engine(self, **settings: Any) -> Engine:
        """Make an engine that has the runtime."""
        engine = Engine(plugins=self._plugins, **settings)
        if self._made is not None:
            engine.add_runtime(self._made)
        return engine

    def gives(self, role: str) -> bool:
        """Tell whether somebody has given the model of a role."""
        return role in self._models

    def role(self, role: str) -> dict[str, Any]:
        """Tell what plays a role: what was given, or a model that is made for it.

        Raises:
            NotApplicable: nothing does.
            Failed: nothing does, and without it nothing at all would be checked.
        """
        if role in self._models:
            given = self._models[role]
            return dict(given) if isinstance(given, Mapping) else {"path": given}
        try:
            if self._write is None:
                self._check_onnx(role)
            return zoo.make(role, self.folder, self._write)
        except NotApplicable as why:
            if role == NEEDED:
                raise Failed("a model of y = 2x + 1 over FP32 [-1]", why) from why
            raise

    def _check_onnx(self, role: str) -> None:
        onnx = "onnx" in self.about.get("formats", ())
        if not onnx or importlib.util.find_spec("onnx") is None:
            raise NotApplicable(f"no model plays '{role}': " + ("pip install onnx, or give one" if onnx else "give one"))

    def load_elsewhere(self, role: str, runtime: str) -> Model:
        """Load the model of a role with another runtime; one that was made for the role as an ONNX file."""
        if role in self._models or self._write is None:
            return self.load(role, runtime=runtime, options={}, isolation="none")
        if importlib.util.find_spec("onnx") is None:
            raise RuntimeNotInstalled("the onnx package is not installed: pip install onnx")
        return self.engine().load(zoo.make(role, self.folder)["path"], NAME, runtime=runtime)

    def load(self, role: str, engine: Engine | None = None, **words: Any) -> Model:
        """Load the model of a role, with further words for `Engine.load`."""
        spec = {key: value for key, value in self.role(role).items() if key not in OWN}
        options = {**spec.pop("options", {}), **words.pop("options", {})}
        return (engine or self.engine()).load(name=NAME, options=options, **{"runtime": self.name, "isolation": self._isolation, **spec, **words})

    def load_or_skip(self, role: str) -> Model:
        """Load the model of a role; one that was made for it and that the runtime refuses is nothing to check."""
        try:
            return self.load(role)
        except NnrpError as error:
            if role in self._models or error.code == "INTERNAL":
                raise
            raise NotApplicable(f"it refuses the model of '{role}': {error.reason}") from error

    def inputs(self, role: str, key: str = "ask", model: Model | None = None) -> dict[str, Any] | None:
        """Give the inputs that a role says, by name or in a .npz; None where it says none. A model that was made for it may have lost their names."""
        given = self.role(role).get(key)
        if isinstance(given, str | os.PathLike):
            with np.load(given) as arrays:
                return {name: arrays[name] for name in arrays.files}
        if given is None or model is None or role in self._models:
            return given
        return dict(zip((port.name for port in model.inputs), given.values(), strict=True))

    def files(self) -> dict[str, Path]:
        """List model files that it reads, one for each suffix.

        Raises:
            NotApplicable: there is none.
        """
        paths = [self.role(role)["path"] for role in ("affine", *self._models)]
        found = {Path(path).suffix: Path(path) for path in paths if not callable(path) and Path(path).is_file()}
        if not found:
            raise NotApplicable("no model is a file")
        return found
