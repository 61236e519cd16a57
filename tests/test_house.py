"""The rules of the house, as tests: layers point one way, names are pinned, files stay small, texts name no machine.

Each failure names every place that breaks a rule.
"""

import ast
import ipaddress
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import CODE, ROOT, files, name, text, under, without_comments, without_tests

RUNTIMES = {"onnxruntime", "onnx", "openvino", "torch", "tensorflow", "jax", "ai_edge_litert", "tensorrt", "iree", "executorch", "tvm", "coremltools", "tract"}
RUNTIMES |= {"ncnn", "MNN", "llama_cpp"}
FILE_LINES, FUNCTION_LINES = 400, 40
# The C ABI is one header, because a C program includes one file and people read it from top to bottom.
LONG_FILES = {"spec/nnrp.h"}

# What `from nnrp import *` gives. A new name is a decision: it is added here and told in the CHANGELOG.
NAMES = [
    "AlreadyExists",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Engine",
    "FailedPrecondition",
    "InvalidArgument",
    "Model",
    "NnrpError",
    "NotFound",
    "ResourceExhausted",
    "RuntimeFailure",
    "Server",
    "Session",
    "Tensor",
    "TensorSpec",
    "Unavailable",
    "Unimplemented",
    "__version__",
    "connect",
    "inspect",
    "load",
    "serve",
]

# Layers

CRATES = {
    "nnrp-core": set[str](),
    "nnrp-wire": {"nnrp-core"},
    "nnrp-runtimes": {"nnrp-core"},
    "nnrp-capi": {"nnrp-core", "nnrp-runtimes"},
    "nnrp-python": {"nnrp-core", "nnrp-wire", "nnrp-runtimes"},
}


@pytest.mark.parametrize("crate", CRATES)
def test_crates_depend_forward_only(crate: str) -> None:
    manifest = tomllib.loads(text(ROOT / "crates" / crate / "Cargo.toml"))
    ours = {dependency for dependency in manifest["dependencies"] if dependency.startswith("nnrp-")}
    assert ours <= CRATES[crate], f"crates/{crate} depends on {sorted(ours - CRATES[crate])}"


def test_the_core_knows_no_sockets_and_no_python() -> None:
    manifest = tomllib.loads(text(ROOT / "crates/nnrp-core/Cargo.toml"))
    forbidden = {"hyper", "tonic", "axum", "h2", "http", "prost", "pyo3", "numpy", "libloading", "mio", "socket2", "rustix", "libc"}
    assert not forbidden & set(manifest["dependencies"])
    tokio = tomllib.loads(text(ROOT / "Cargo.toml"))["workspace"]["dependencies"]["tokio"]
    ours = manifest["dependencies"].get("tokio", {})
    assert {*tokio["features"], *ours.get("features", [])} <= {"sync"}, "nnrp-core takes more of tokio than its channels"
    found = [
        f"{name(path)}: {m[0]}" for path in under("crates/nnrp-core/", ".rs") for m in re.finditer(r"(std::net|tokio::(?!sync)\w+|hyper|pyo3)::", text(path))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("crate", ["nnrp-core", "nnrp-wire"])
def test_thinking_and_talking_forbid_unsafe(crate: str) -> None:
    assert "#![forbid(unsafe_code)]" in text(ROOT / "crates" / crate / "src/lib.rs")


# Who may know whom: a module imports from rows above its own, or, in the core, from its own row too.
ROWS = {
    "nnrp-core": [
        {"clock", "condvar", "error", "metrics", "plain", "stop", "tensor"},
        {"adapt", "choose", "convert", "message", "model", "overrides", "parameters", "runtime", "schedule", "symbols", "ticket", "told", "validate", "watch"},
        {"route"},
        {"engine"},
        {"lib"},
    ],
    "nnrp-wire": [{"buffer", "io", "listen", "request", "settings", "unread"}, {"codec", "shared"}, {"frame"}, {"client", "grpc", "rest"}, {"server"}, {"lib"}],
}
NEIGHBOURLY = {"nnrp-core"}


def imported_modules(source: str, depth: int) -> set[str]:
    """The modules of its crate that a file names, `depth` folders below the crate's root: by `crate::` or by as many `super::` as lead there."""
    paths = re.finditer(r"\b(?:crate::|(?<!::)((?:super::)+))(?:([a-z_]+)|\{((?:[^{}]|\{[^{}]*\})*)\})", source)
    found = set[str]()
    for m in paths:
        if m[1] is None or m[1].count("super::") > depth:
            found |= {m[2]} if m[2] else set(re.findall(r"(?:^|,)\s*([a-z_]+)", re.sub(r"\{[^{}]*\}", "", m[3])))
    return found - {"super", "self"}


def test_imports_are_found_however_they_are_written() -> None:
    source = "use crate::a::b;\nuse crate::{c, d::{x, y}, e::z};\nuse super::f;\nuse super::super::{g::h, i};\nlet j = crate::j::k(self::l());"
    assert imported_modules(source, 1) == set("acdegij")
    assert imported_modules(source, 0) == set("acdefgij")


@pytest.mark.parametrize("crate", ROWS)
def test_modules_import_backward_along_the_corridor_only(crate: str) -> None:
    rank = {module: index for index, row in enumerate(ROWS[crate]) for module in row}
    source = ROOT / "crates" / crate / "src"
    wrong = []
    for path in under(f"crates/{crate}/src/", ".rs"):
        parts = path.relative_to(source).parts
        module = parts[0].removesuffix(".rs")
        assert module in rank, f"{name(path)}: module '{module}' has no row in {Path(__file__).name}"
        depth = len(parts) - 1 - (parts[-1] == "mod.rs")
        for imported in imported_modules(without_tests(without_comments(text(path))), depth) & rank.keys() - {module}:
            if rank[imported] > rank[module] or (rank[imported] == rank[module] and crate not in NEIGHBOURLY):
                wrong.append(f"{name(path)}: {module} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_a_session_under_a_description_passes_on_every_verb() -> None:
    """A verb with a default of its own would be lost there without a word."""
    core = ROOT / "crates/nnrp-core/src"
    trait = text(core / "runtime.rs").partition("pub trait Session")[2].partition("\n}\n")[0]
    adapted = text(core / "adapt.rs").partition("impl Session for Adapted")[2].partition("\n}\n")[0]
    verbs = [set(re.findall(r"^    fn (\w+)", part, re.MULTILINE)) for part in (trait, adapted)]
    assert verbs[0] - {"not_offered"} == verbs[1] != set()


def test_codecs_and_clients_never_see_the_engine() -> None:
    found = [
        name(path)
        for folder in ("codec", "client")
        for path in under(f"crates/nnrp-wire/src/{folder}", ".rs")
        if re.search(r"\bEngine\b", without_tests(without_comments(text(path))))
    ]
    assert not found, f"these know the engine: {found}"


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports when it is imported: not those within functions, nor those for type checkers."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def test_no_python_file_imports_a_runtime_when_it_is_imported() -> None:
    found = [f"{name(path)}: {module}" for path in under("python/", ".py") for module in imports(ast.parse(text(path))) if module.split(".")[0] in RUNTIMES]
    assert not found, "\n".join(found)


def test_importing_nnrp_loads_no_runtime_and_no_command_line() -> None:
    program = "import sys, nnrp; print(*{module.split('.')[0] for module in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & (RUNTIMES | {"typer", "click", "rich", "tritonclient", "google"})


# Names


def test_the_package_exports_what_is_pinned() -> None:
    import nnrp

    assert list(nnrp.__all__) == sorted(nnrp.__all__), "nnrp.__all__ is not sorted"
    assert list(nnrp.__all__) == NAMES, f"nnrp.__all__ and NAMES differ: {sorted(set(nnrp.__all__) ^ set(NAMES))}"
    missing = [exported for exported in nnrp.__all__ if not hasattr(nnrp, exported)]
    assert not missing, f"nnrp has no {missing}"


def test_at_most_five_classes_cross_the_seam() -> None:
    classes = [
        m[1]
        for path in under("crates/nnrp-python/src/", ".rs")
        for m in re.finditer(r"^#\[pyclass\b[^\n]*\]\n(?:\s*#\[[^\n]*\n)*\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum) (\w+)", text(path), re.MULTILINE)
    ]
    assert classes, "no #[pyclass] was found"
    assert len(classes) <= 5, f"{len(classes)}: {classes}"


# Sizes


def lines(path: Path) -> int:
    return len(text(path).splitlines())


def test_no_file_of_code_is_longer_than_its_budget() -> None:
    over = {name(path): lines(path) for path in files() if path.suffix in CODE and lines(path) > FILE_LINES}
    assert over.keys() == LONG_FILES, f"over {FILE_LINES} lines: {over}"


def test_no_python_function_is_longer_than_its_budget_beside_its_docstring() -> None:
    over = []
    for path in under("", ".py"):
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                told = ast.get_docstring(node, clean=False) or ""
                length = node.end_lineno - node.lineno + 1 - len(told.splitlines())
                over += [f"{name(path)}:{node.lineno}: {node.name} has {length} lines"] * (length > FUNCTION_LINES)
    assert not over, "\n".join(over)


def test_no_rust_function_is_longer_than_its_budget() -> None:
    over = []
    for path in under("crates/", ".rs"):
        # rustfmt ends a function with a brace under its first word; a signature that ends in a semicolon has no body.
        pattern = r"^( *)(?:pub(?:\([^)]*\))? |const |async |unsafe |extern \"C\" )*fn (\w+)(?:\[[^\]]*\]|[^;{\[])*\{\n.*?^\1\}"
        for m in re.finditer(pattern, text(path), re.MULTILINE | re.DOTALL):
            length = m[0].count("\n") + 1
            over += [f"{name(path)}: {m[2]} has {length} lines"] * (length > FUNCTION_LINES)
    assert not over, "\n".join(over)


def test_the_binding_is_at_most_a_third_of_the_core() -> None:
    core, binding = (sum(lines(path) for path in under(f"crates/{crate}/src/", ".rs")) for crate in ("nnrp-core", "nnrp-python"))
    assert binding * 3 <= core, f"nnrp-python has {binding} lines, nnrp-core {core}"


# Text

# In two pieces, so that this file may be looked at like any other.
WORDS = ["/wo" + "rk/", "/tmp" + "/nnrp", "/opt/" + "wheels", "/ro" + "ot/."]


def test_no_text_names_a_place_on_somebodys_machine() -> None:
    found = [f"{name(path)}: {word}" for path in files() for word in WORDS if word in text(path)]
    assert not found, "\n".join(found)


def test_no_url_names_a_private_host() -> None:
    found = []
    for path in files():
        for host in re.findall(r"https?://(?:[^/\s@\"']*@)?(\[[^\]]*\]|[\w.-]+)", text(path)):
            if not public(host.strip("[].")):
                found.append(f"{name(path)}: {host}")
    assert not found, "\n".join(found)


def public(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not host.endswith((".internal", ".local", ".lan", ".corp", ".svc"))
    return address.is_loopback or address.is_unspecified or not address.is_private


def test_work_that_is_left_has_a_number() -> None:
    word = "TO" + "DO"
    found = [
        f"{name(path)}: {m[0]}"
        for path in files()
        if path.suffix in CODE
        for m in re.finditer(rf"\b(?:{word}|FIX{'ME'}|XX{'X'})\b(?!\(#\d+\))[^\n]*", text(path))
    ]
    assert not found, "\n".join(found)


# Locks


def test_what_is_built_with_is_locked() -> None:
    tracked = {name(path) for path in files()}
    assert {"Cargo.lock", "requirements.txt"} <= tracked
    crates = {package["name"] for package in tomllib.loads(text(ROOT / "Cargo.lock"))["package"]}
    assert set(CRATES) <= crates


@pytest.mark.parametrize("folder", [ROOT, *sorted(path.parent for path in (ROOT / "tests/heavy").glob("*/requirements.in"))], ids=lambda folder: folder.name)
def test_what_an_environment_asks_for_is_locked_with_a_hash(folder: Path) -> None:
    locked = text(folder / "requirements.txt")
    pinned = {match.lower() for match in re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==", locked, re.MULTILINE)}
    asked = [re.split(r"[\[<>=!~ ]", line)[0].lower() for line in text(folder / "requirements.in").splitlines() if line and line[0] not in "#."]
    assert asked
    assert not [package for package in asked if package not in pinned], "requirements.in asks for what requirements.txt does not lock"
    loose = [m[1] for m in re.finditer(r"^([\w.-]+)(?:\[[^\]]*\])?==[^\\\n]*\n(?!\s+--hash)", locked, re.MULTILINE)]
    assert not loose, f"without a hash: {loose}"


def test_make_says_in_one_line_that_a_python_is_none() -> None:
    alone = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    made = subprocess.run(["make", "-s", "tools", "PYTHON=/bin/false"], cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    told, failed = made.stderr.splitlines()
    assert told == "NNRP needs CPython 3.11 or newer (found: /bin/false, which is none). Install it, or say where it is: make PYTHON=/path/to/python3.11"
    assert failed.startswith("make: ***")
