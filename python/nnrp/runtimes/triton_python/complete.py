"""What `auto_complete_config` of a model is given: its configuration, to be completed and not to be contradicted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from nnrp.runtimes.triton_python.config import Config

_NEEDED = {"name", "data_type", "dims"}
_KNOWN = {
    "input": _NEEDED | {"optional", "format", "reshape", "is_shape_tensor", "allow_ragged_batch", "is_non_linear_format_io"},
    "output": _NEEDED | {"label_filename", "reshape", "is_shape_tensor", "is_non_linear_format_io"},
}
_SCHEDULES = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")


class ModelConfig:
    """A model's configuration, which it may complete."""

    def __init__(self, config: Config) -> None:
        self._model_config = config

    def as_dict(self) -> Config:
        """Give a copy of all that is configured."""
        return copy.deepcopy(self._model_config)

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Say how many there may be in a batch, where the configuration does not ask for more than that."""
        if max_batch_size < self._model_config["max_batch_size"]:
            told = self._model_config["max_batch_size"]
            raise ValueError(f"max_batch_size: the configuration says {told}, and the model supports {max_batch_size}")
        self._model_config["max_batch_size"] = int(max_batch_size)

    def set_dynamic_batching(self) -> None:
        """Allow batches of several requests, where no other schedule is configured."""
        if not any(name in self._model_config for name in _SCHEDULES):
            self._model_config["dynamic_batching"] = {}

    def set_model_transaction_policy(self, transaction_policy_dict: Mapping[str, Any]) -> None:
        """Say whether one request may have any number of responses."""
        unknown = set(transaction_policy_dict) - {"decoupled"}
        if unknown:
            raise ValueError(f"model transaction policy: expected 'decoupled', got '{sorted(unknown)[0]}'")
        if "decoupled" not in transaction_policy_dict:
            return
        decoupled = bool(transaction_policy_dict["decoupled"])
        told = self._model_config.setdefault("model_transaction_policy", {"decoupled": decoupled})["decoupled"]
        if told != decoupled:
            raise ValueError(f"model transaction policy: the configuration says decoupled {told}, and the model {decoupled}")

    def add_input(self, input: Mapping[str, Any]) -> None:
        """Add an input, or check it against the one of that name."""
        self._add("input", input)

    def add_output(self, output: Mapping[str, Any]) -> None:
        """Add an output, or check it against the one of that name."""
        self._add("output", output)

    def _add(self, side: str, tensor: Mapping[str, Any]) -> None:
        lacking, unknown = _NEEDED - tensor.keys(), tensor.keys() - _KNOWN[side]
        if lacking or unknown:
            expected = f"'{sorted(lacking)[0]}'" if lacking else f"one of {', '.join(sorted(_KNOWN[side]))}"
            raise ValueError(f"{side} '{tensor.get('name', '')}': expected {expected}, got {', '.join(map(str, sorted(tensor)))}")
        known = next((one for one in self._model_config[side] if one["name"] == tensor["name"]), None)
        if known is None:
            self._model_config[side].append(dict(tensor))
            return
        for key in ("data_type", "dims"):
            expected, got = known[key], tensor[key] if key == "data_type" else list(tensor[key])
            if expected != got:
                raise ValueError(f"{side} '{tensor['name']}': the configuration says {key} {expected}, and the model {got}")
        if tensor.get("optional"):
            known["optional"] = True
