"""Runtimes that installed packages bring, through the entry-point group ``nnrp.runtimes``."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from nnrp.errors import LoadFailed, NnrpError, RuntimeNotInstalled
from nnrp.runtimes.package import without_paths

if TYPE_CHECKING:
    from nnrp.runtimes.contract import Runtime

GROUP = "nnrp.runtimes"
#: Longest text of a package that an error repeats.
TEXT_LIMIT = 2048


#: Who brings the runtimes that are documented here; nobody else's takes the name of one.
_OURS = "nnrp"


def is_taken(runtime: Runtime) -> bool:
    """Whether the name is that of another runtime, which comes with this package."""
    from nnrp.runtimes import _PACKAGES

    entry = _entry(runtime.name)
    known = runtime.name in _PACKAGES or (entry is not None and _is_ours(entry))
    return known and type(runtime).__module__.partition(".")[0] != _OURS


def _entry(name: str) -> EntryPoint | None:
    return min(entry_points(group=GROUP, name=name), key=lambda entry: not _is_ours(entry), default=None)


def _is_ours(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == _OURS


def names() -> list[str]:
    """List the runtimes that packages bring, by name; imports none."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def make(name: str) -> Runtime | None:
    """Import and make a runtime: the entry point names a class, a function without parameters, or a runtime itself.

    Returns:
        None when no package brings one of that name.

    Raises:
        RuntimeNotInstalled: something that it imports is not installed.
        LoadFailed: it is no runtime of that name, or whatever else was raised meanwhile.
    """
    entry = _entry(name)
    if entry is None:
        return None
    try:
        made: Any = entry.load()
        runtime: Runtime = made() if callable(made) and (isinstance(made, type) or not hasattr(made, "load")) else made
    except NnrpError:
        raise
    except ImportError as error:
        raise _missing(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error
    if getattr(runtime, "name", None) != name:
        raise LoadFailed(f"runtime '{name}': expected a runtime of that name, got {getattr(runtime, 'name', None)!r:.96}", runtime=name)
    return runtime


def _missing(name: str, error: ImportError) -> RuntimeNotInstalled:
    missing = error.name or type(error).__name__
    return RuntimeNotInstalled(f"runtime '{name}' is not installed: it needs '{missing}'", runtime=name)


def _failed(name: str, error: BaseException) -> LoadFailed:
    kind, text = type(error).__name__, without_paths(error, TEXT_LIMIT)
    return LoadFailed(f"runtime '{name}': {kind}" + (f": {text}" if text else ""), runtime=name, type=kind, text=text)


def tell(name: str) -> dict[str, Any]:
    """Tell what a runtime is as an engine tells of its own, with `error` where it cannot be used."""
    from nnrp.runtimes import host

    nothing: dict[str, Any] = {"name": name, "version": "", "formats": [], "devices": [], "options": {}}
    try:
        runtime = make(name)
        nothing["formats"] = list(getattr(runtime, "formats", None) or ())
        return {"name": name, **host.about(runtime)}
    except NnrpError as error:
        failure: NnrpError = error
    except ImportError as error:
        failure = _missing(name, error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever somebody's runtime raises, the others are told
        failure = _failed(name, error)
    return nothing | {"error": json.loads(host.fault(name, RuntimeNotInstalled.reason, failure)[0])}
