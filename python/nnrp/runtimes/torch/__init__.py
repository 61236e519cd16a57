"""The runtime ``torch``: what PyTorch saves, TorchScript, exported programs and AOTInductor's packages, run by PyTorch."""

from __future__ import annotations

from nnrp.runtimes.torch.runtime import Torch

__all__ = ["Torch"]
