"""``nnrp runtimes``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from nnrp.errors import NnrpError, RuntimeNotInstalled

from . import show


@click.command()
@click.argument("name", required=False)
@show.json_option
def runtimes(name: str | None, as_json: bool) -> None:
    """List what can run models here: version, formats, devices; or, with NAME, the options of one.

    Those that come with NNRP, those that installed packages bring, and the plug-ins of the folder that NNRP_PLUGINS names.
    """
    found = list(_found())
    if name is None:
        _list(found, as_json)
        return
    about = next((one for one in found if one["name"] == name), None)
    if about is None:
        there = [one["name"] for one in found]
        raise RuntimeNotInstalled(f"runtime '{name[:96]}' is not known; there are {', '.join(there)}", runtime=name, there=there)
    if as_json:
        show.document(about)
    else:
        _tell(about)


def _found() -> Iterator[dict[str, Any]]:
    """Whatever there is, with an `error` where it cannot be used."""
    from nnrp import Engine

    for one in Engine().runtimes():
        yield one if one["version"] or "error" in one else one | {"error": _failure(one["name"], _missing(one["name"]))}


def _missing(name: str) -> NnrpError:
    return RuntimeNotInstalled(f"runtime '{name}' is not installed: pip install nnrp[{name}]", runtime=name)


def _failure(name: str, error: BaseException) -> dict[str, Any]:
    """An error as the engine tells it."""
    from nnrp.runtimes import host

    told: dict[str, Any] = json.loads(host.fault(name, "LOAD_FAILED", error)[0])
    return told


def _list(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        show.document(found)
        return
    show.table(
        ["runtime", "version", "formats", "devices"], [[one["name"], _version(one), *(", ".join(one[key]) for key in ("formats", "devices"))] for one in found]
    )


def _version(about: dict[str, Any]) -> str:
    error: str = about["error"]["message"] if "error" in about else ""
    return error.removeprefix(f"runtime '{about['name']}' is ").removeprefix(f"runtime {about['name']}: ") or about["version"]


def _tell(about: dict[str, Any]) -> None:
    print(f"{about['name']} {_version(about)}")
    for key in ("formats", "devices"):
        if about[key]:
            print(f"{key}: {', '.join(about[key])}")
    options = about["options"] or {}
    rows = [[key, _kind(one), _value(one), one.get("description", "")] for key, one in options.get("properties", {}).items()]
    if rows:
        show.table(["option", "type", "default", "description"], rows)
    elif "error" not in about:
        print("no options")
    if options.get("description"):
        print(f"\n{options['description']}")


def _value(schema: dict[str, Any]) -> str:
    return json.dumps(schema["default"], ensure_ascii=False) if "default" in schema else ""


def _kind(schema: dict[str, Any]) -> str:
    """What an option may be, in few words."""
    if "enum" in schema:
        return " | ".join(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
    kinds = schema.get("type", "any")
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = "" if low is None and high is None else f" {'' if low is None else low}…{'' if high is None else high}"
    return (" | ".join(kinds) if isinstance(kinds, list) else str(kinds)) + bounds
