"""Memory of CUDA devices, through the driver's own C library: as much as a runtime needs that leaves it to its caller."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from nnrp.errors import DeviceNotFound, ResourceExhausted, RunFailed

OUT_OF_MEMORY = 2


class Device:
    """A device, and one stream of work on it.

    Raises:
        DeviceNotFound: there is no driver, or no such device.
    """

    def __init__(self, number: int) -> None:
        self._driver = _driver()
        self._context, self._stream = ctypes.c_void_p(), ctypes.c_void_p()
        handle = ctypes.c_int()
        if self._driver.cuDeviceGet(ctypes.byref(handle), number):
            raise DeviceNotFound(f"device 'cuda:{number}' is not there; there are {count()}", available=[f"cuda:{one}" for one in range(count())])
        self._check("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), handle)
        self.enter()
        self._check("cuStreamCreate", ctypes.byref(self._stream), 0)

    @property
    def stream(self) -> int:
        """The stream, as libraries take it."""
        return self._stream.value or 0

    def enter(self) -> None:
        """Work on this device from now on, on the thread that calls."""
        self._check("cuCtxSetCurrent", self._context)

    def wait(self) -> None:
        """Wait until all that was put on the stream is done."""
        self._check("cuStreamSynchronize", self._stream)

    def _check(self, call: str, *words: Any) -> None:
        if status := getattr(self._driver, call)(*words):
            kind = ResourceExhausted if status == OUT_OF_MEMORY else RunFailed
            raise kind(f"CUDA: {call} failed with {status}", status=status)


class Buffer:
    """Memory on a device, which grows as it must and is freed with its last reference."""

    def __init__(self, device: Device) -> None:
        self._device, self._size, self.address = device, 0, 0

    def hold(self, byte_size: int) -> int:
        """Have so many bytes at least, and tell where; what was there is lost where it must grow."""
        if byte_size > self._size or not self.address:
            self._free()
            place = ctypes.c_uint64()
            self._device._check("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(max(byte_size, 1)))
            self.address, self._size = place.value, byte_size
        return self.address

    def put(self, array: np.ndarray[Any, Any]) -> int:
        """Copy an array there, and tell where it is."""
        self.hold(array.nbytes)
        self._device._check("cuMemcpyHtoD_v2", ctypes.c_uint64(self.address), ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))
        return self.address

    def take(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Copy what is there into an array, and give it."""
        self._device._check("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(self.address), ctypes.c_size_t(array.nbytes))
        return array

    def _free(self) -> None:
        if self.address:
            self._device._driver.cuMemFree_v2(ctypes.c_uint64(self.address))
            self.address = 0

    def __del__(self) -> None:
        self._free()


def _driver() -> Any:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DeviceNotFound("device 'cuda' is not there: no NVIDIA driver", available=[]) from error
    if status := driver.cuInit(0):
        raise DeviceNotFound(f"device 'cuda' is not there: its driver fails with {status}", available=[], status=status)
    return driver


def count() -> int:
    """Count the devices.

    Raises:
        DeviceNotFound: there is no driver.
    """
    number = ctypes.c_int()
    _driver().cuDeviceGetCount(ctypes.byref(number))
    return number.value
