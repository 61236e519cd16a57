"""A module whose import takes the process down."""

import ctypes

ctypes.string_at(0)
