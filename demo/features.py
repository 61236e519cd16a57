"""What the file-type model magika wants to see of a file (its ``standard_v3_3`` features, written from its published description)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEAD = TAIL = 1024
BLOCK = 4096
PADDING = 256


def of_file(path: Path) -> NDArray[np.int32]:
    """Read a file's first and last bytes as the model's input.

    Returns:
        INT32 [1, 2048]: the first 1024 bytes of the first 4096 after leading white space, then the last 1024 of the last 4096 before
        trailing white space; missing places hold 256.
    """
    content = path.read_bytes()
    features = np.full((1, HEAD + TAIL), PADDING, np.int32)
    head = np.frombuffer(content[:BLOCK].lstrip()[:HEAD], np.uint8)
    tail = np.frombuffer(content[-BLOCK:].rstrip()[-TAIL:], np.uint8)
    features[0, : len(head)] = head
    features[0, HEAD + TAIL - len(tail) :] = tail
    return features
