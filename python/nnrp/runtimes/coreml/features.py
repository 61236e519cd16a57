"""What a Core ML model says of its inputs beside their types: sizes that may vary, defaults, and which tensors are images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnrp.errors import ShapeMismatch
from nnrp.runtimes.coreml.package import bad
from nnrp.runtimes.coreml.value import TYPES, Type

#: Core ML's number of a colour space → its name.
COLOURS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}
#: Most shapes, and most inputs, that are looked at.
MOST = 10_000


@dataclass(frozen=True)
class Sizes:
    """Which shapes an input may have.

    Attributes:
        shapes: all of them, where they are listed.
        ranges: otherwise the smallest and the largest of each dimension; None for no bound.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int | None], ...] = ()

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Refuse a shape that is none of them.

        Raises:
            ShapeMismatch.
        """
        if self.shapes and tuple(shape) not in self.shapes:
            listed = " or ".join(str(list(one)) for one in self.shapes[:8]) + " …" * (len(self.shapes) > 8)
            raise ShapeMismatch(f"input '{name}': expected the shape {listed}, got {list(shape)}", input=name, got=list(shape))
        for axis, ((low, high), size) in enumerate(zip(self.ranges, shape, strict=False)):
            if size < low or (high is not None and size > high):
                wanted = f"at least {low}" if high is None else f"{low} to {high}"
                raise ShapeMismatch(f"input '{name}': dimension {axis}: expected {wanted}, got {size}", input=name, got=list(shape))

    def told(self) -> list[Any]:
        """Say them as JSON can."""
        return [list(one) for one in (self.shapes or self.ranges)]


class Features:
    """The inputs of a function as the model's description has them."""

    def __init__(self, model: Any, function: str) -> None:
        description = model.description
        own = next((one for one in description.functions if one.name == function), None)
        self._inputs: dict[str, Any] = {one.name: one.type for one in (own or description).input}
        if len(self._inputs) > MOST:
            raise bad(f"expected at most {MOST} inputs, got {len(self._inputs)}")
        self.images: dict[str, dict[str, Any]] = {}
        self.sizes: dict[str, Sizes] = {}
        self.defaults: dict[str, np.ndarray[Any, Any]] = {}

    def apply(self, inputs: Mapping[str, Type]) -> dict[str, Type]:
        """Give the inputs' types with what the description adds, and remember what cannot be said in them."""
        found = {}
        for name, type in inputs.items():
            told = self._inputs.get(name)
            found[name] = type
            if told is None:
                continue
            if told.HasField("imageType"):
                self._image(name, told.imageType, type)
            if told.HasField("multiArrayType"):
                found[name] = self._array(name, told.multiArrayType, type)
            if told.isOptional:
                self._default(name, told.multiArrayType, found[name])
        return found

    def _array(self, name: str, told: Any, type: Type) -> Type:
        """The program leaves a dimension open; the description says what it may be."""
        shapes = (tuple(told.shape), *(tuple(one.shape) for one in told.enumeratedShapes.shapes[:MOST]))
        rank = len(type.shape or ())
        if told.HasField("enumeratedShapes"):
            listed = dict.fromkeys(one for one in shapes if len(one) == rank)
            self.sizes[name] = Sizes(shapes=tuple(listed))
        elif told.HasField("shapeRange"):
            self._ranges(name, list(told.shapeRange.sizeRanges), rank)
        elif type.shape is not None and len(told.shape) == rank:
            return Type(type.kind, tuple(dim if dim >= 0 else int(own) for dim, own in zip(type.shape, told.shape, strict=True)))
        return type

    def _image(self, name: str, told: Any, type: Type) -> None:
        shape = type.shape or ()
        if len(shape) != 4:
            raise bad(f"input '{name[:96]}': expected an image of four dimensions, got {list(shape)}")
        self.images[name] = {"layout": "NCHW", "colors": COLOURS.get(told.colorSpace, "unknown"), "range": [0, 255]}
        if told.HasField("enumeratedSizes"):
            own = [(told.height, told.width), *((one.height, one.width) for one in told.enumeratedSizes.sizes[:MOST])]
            self.sizes[name] = Sizes(shapes=tuple(dict.fromkeys((*shape[:2], *size) for size in own)))
        elif told.HasField("imageSizeRange"):
            self._ranges(name, [None, None, told.imageSizeRange.heightRange, told.imageSizeRange.widthRange], 4)

    def _ranges(self, name: str, ranges: list[Any], rank: int) -> None:
        if len(ranges) != rank:
            raise bad(f"input '{name[:96]}': expected the ranges of {rank} dimensions, got {len(ranges)}")
        bounds = [(0, None) if one is None else (int(one.lowerBound), None if one.upperBound < 0 else int(one.upperBound)) for one in ranges]
        self.sizes[name] = Sizes(ranges=tuple(bounds))

    def _default(self, name: str, told: Any, type: Type) -> None:
        fields = [field for field in ("intDefaultValue", "floatDefaultValue", "doubleDefaultValue") if told.HasField(field)]
        if fields and type.known and type.kind != "string":
            # One number, however many elements: the graph is told of it as a view, and writes it out once.
            self.defaults[name] = np.broadcast_to(np.asarray(getattr(told, fields[0]), TYPES[type.kind][0]), type.shape or ())
