"""The rules of the house, as tests: layers point one way, names are pinned, files stay small, texts name no machine.

Each failure names every place that breaks a rule.
"""

import ast
import ipaddress
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tree import CODE, ROOT, files, name, text, under, without_comments, without_tests

RUNTIMES = {"onnxruntime", "onnx", "openvino", "torch", "tensorflow", "jax", "ai_edge_litert", "tensorrt", "iree", "executorch", "tvm", "coremltools"}
FILE_LINES, FILE_GOAL = 600, 400
FUNCTION_LINES = 60

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


# Who may know whom: a module imports from its own row and from the rows above.
ROWS = {
    "nnrp-core": [
        {"clock", "error", "metrics", "stop", "tensor"},
        {"message", "model", "runtime", "schedule", "validate"},
        {"route"},
        {"engine"},
        {"lib"},
    ],
    "nnrp-wire": [{"buffer", "io", "request"}, {"codec"}, {"client", "grpc", "listen", "rest", "server"}, {"lib"}],
}
# Neighbours of one row that do not know each other.
STRANGERS = {("rest", "grpc"), ("grpc", "rest"), ("client", "server"), ("server", "client"), ("rest", "client"), ("grpc", "client"), ("listen", "client")}


@pytest.mark.parametrize("crate", ROWS)
def test_modules_import_backward_along_the_corridor_only(crate: str) -> None:
    rank = {module: index for index, row in enumerate(ROWS[crate]) for module in row}
    source = ROOT / "crates" / crate / "src"
    wrong = []
    for path in under(f"crates/{crate}/src/", ".rs"):
        module = path.relative_to(source).parts[0].removesuffix(".rs")
        assert module in rank, f"{name(path)}: module '{module}' has no row in {Path(__file__).name}"
        for imported in set(re.findall(r"\bcrate::([a-z_]+)", without_tests(without_comments(text(path))))):
            if rank.get(imported, 0) > rank[module] or (module, imported) in STRANGERS:
                wrong.append(f"{name(path)}: {module} imports {imported}")
    assert not wrong, "\n".join(wrong)


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


def test_no_file_of_code_is_longer_than_its_budget(record_property: Callable[[str, object], None]) -> None:
    sizes = {name(path): lines(path) for path in files() if path.suffix in CODE}
    long = {file: count for file, count in sizes.items() if count > FILE_GOAL}
    record_property("over the goal", long)
    print(f"over {FILE_GOAL} lines: {long}")
    over = {file: count for file, count in long.items() if count > FILE_LINES}
    assert not over, f"over {FILE_LINES} lines: {over}"


def test_no_python_function_is_longer_than_its_budget() -> None:
    over = []
    for path in under("", ".py"):
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                length = node.end_lineno - node.lineno + 1
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
    locked = text(ROOT / "requirements.txt")
    pinned = {match.lower() for match in re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==", locked, re.MULTILINE)}
    asked = [re.split(r"[\[<>=!~ ]", line)[0].lower() for line in text(ROOT / "requirements.in").splitlines() if line and not line.startswith("#")]
    assert not [package for package in asked if package not in pinned], "requirements.in asks for what requirements.txt does not lock"
    loose = [m[1] for m in re.finditer(r"^([\w.-]+)(?:\[[^\]]*\])?==[^\\\n]*\n(?!\s+--hash)", locked, re.MULTILINE)]
    assert not loose, f"without a hash: {loose}"
    crates = {package["name"] for package in tomllib.loads(text(ROOT / "Cargo.lock"))["package"]}
    assert set(CRATES) <= crates
