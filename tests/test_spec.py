"""The specification agrees with its tables, the tables with the code, and every clause that binds has a proof that exists."""

import json
import re
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tree import CODE, ROOT, files, name, text, without_comments, without_tests

SPEC = ROOT / "spec"

# Numbers that have been published. They may become more; none may change (spec §2.5).
CODES = {
    "CANCELLED": 1,
    "RUNTIME_FAILURE": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
DATATYPES = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BYTES",
    "FP8_E4M3",
    "FP8_E5M2",
    "INT4",
    "UINT4",
]
STRUCTS = {
    "NnrpError": "struct_size code retryable reason message details_json",
    "NnrpEngineOptions": "struct_size settings_json",
    "NnrpModelSpec": "struct_size name version path runtime options_json device precision isolation",
    "NnrpTensorSpec": "struct_size name datatype optional ndim shape symbols",
    "NnrpSignature": "struct_size model version inputs n_inputs outputs n_outputs",
    "NnrpTensor": "struct_size name tensor datatype ndim shape",
    "NnrpRequest": "struct_size model version id parameters_json inputs n_inputs output_names n_outputs deadline_ns cancel",
    "NnrpResponse": "struct_size model version id outputs n_outputs owner",
    "NnrpFault": "struct_size reason message details_json",
    "NnrpRun": "struct_size inputs n_inputs outputs n_outputs results stop deadline_ns give id parameters_json",
    "NnrpRuntimeV1": "struct_size abi_version name info load session_info run close cancel stats set_option warm_up stream",
}


def table(file: str) -> dict[str, Any]:
    return tomllib.loads(text(SPEC / file))


# Tables


def test_errors_have_their_python_classes() -> None:
    from nnrp import errors

    rows = table("errors.toml")

    def below(kind: type[errors.NnrpError]) -> Iterator[type[errors.NnrpError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    kinds = [kind for kind in below(errors.NnrpError) if kind.__module__ == errors.__name__]
    codes = {kind.code: kind for kind in kinds if kind.reason == errors.NnrpError.reason}
    reasons = {kind.reason: kind for kind in kinds if kind.reason != errors.NnrpError.reason}
    assert {code: kind.__name__ for code, kind in codes.items()} == {code: row["python"] for code, row in rows["codes"].items()}
    assert {code: kind.retryable for code, kind in codes.items()} == {code: row["retryable"] for code, row in rows["codes"].items()}
    assert {reason: kind.code for reason, kind in reasons.items()} == {reason: row["code"] for reason, row in rows["reasons"].items()}
    assert not [reason for reason, kind in reasons.items() if not issubclass(kind, codes[kind.code])], "a reason's class is not under its code's"


def test_errors_agree_with_the_header_the_schema_and_the_specification() -> None:
    rows = table("errors.toml")
    codes = {code: row["code"] for code, row in rows["codes"].items()}
    assert codes == CODES | codes, "a published number changed or went"
    statuses = {m[1]: int(m[2]) for m in re.finditer(r"^  NNRP_(\w+) = (\d+),$", enum_after("NnrpStatus"), re.MULTILINE)}
    assert statuses == {"OK": 0} | codes
    schemas = yaml.safe_load(text(SPEC / "openapi.yaml"))["components"]["schemas"]
    assert schemas["Code"]["enum"] == list(rows["codes"])
    assert schemas["Reason"]["enum"] == list(rows["reasons"])
    yes = {True: "yes", False: "no"}
    assert markdown_table("code") == [[code, str(row["code"]), str(row["http"]), yes[row["retryable"]], row["about"]] for code, row in rows["codes"].items()]
    status = {code: row["http"] for code, row in rows["codes"].items()}
    reasons = [[reason, row["code"], str(row.get("http", status[row["code"]])), row["about"]] for reason, row in rows["reasons"].items()]
    assert markdown_table("reason") == reasons


def test_datatypes_agree_with_the_header_the_schema_and_the_specification() -> None:
    rows = table("datatypes.toml")
    assert list(rows)[: len(DATATYPES)] == DATATYPES, "a published datatype changed its place or went"
    enum = {m[1]: int(m[2]) for m in re.finditer(r"^  NNRP_(\w+) = (\d+),", enum_after("NnrpDatatype"), re.MULTILINE)}
    assert enum == {"DATATYPE_UNSET": 0} | {datatype: index + 1 for index, datatype in enumerate(rows)}
    assert yaml.safe_load(text(SPEC / "openapi.yaml"))["components"]["schemas"]["Datatype"]["enum"] == list(rows)

    def row(datatype: str, fields: dict[str, Any]) -> list[str]:
        dlpack = ", ".join(map(str, fields["dlpack"])) if "dlpack" in fields else "–"
        mark = " †" if fields.get("extension") else ""
        return [datatype + mark, str(fields["bits"] or "variable"), dlpack, fields["numpy"], fields.get("contents", "–"), "yes" if fields["json"] else "no"]

    assert markdown_table("datatype") == [row(*item) for item in rows.items()]


def test_the_formats_own_runtimes_agree_with_the_specification_and_read_them() -> None:
    from nnrp import _nnrp, runtimes

    assert markdown_table("format") == [[f"`{format}`", f"`{runtime}`"] for format, runtime in _nnrp.OWN_RUNTIMES]
    for format, runtime in _nnrp.OWN_RUNTIMES:
        assert runtimes.readers(format)[0]["name"] == runtime


def test_the_paths_of_the_schema_are_served_and_take_its_methods() -> None:
    import nnrp

    paths = yaml.safe_load(text(SPEC / "openapi.yaml"))["paths"]
    with nnrp.serve(nnrp.Engine(), http_port=0, grpc_port=None) as server:
        for path, item in paths.items():
            for method in item.keys() & {"get", "post"}:
                request = urllib.request.Request(server.http_url + path.replace("{", "").replace("}", ""), method=method.upper())
                assert reason_of(request) not in {"PATH_NOT_FOUND", "METHOD_NOT_ALLOWED"}, f"{method} {path}"
        assert reason_of(urllib.request.Request(f"{server.http_url}/v2/nowhere")) == "PATH_NOT_FOUND"


def reason_of(request: urllib.request.Request) -> str | None:
    """The reason of the error that answers a request; None when it succeeds."""
    try:
        with urllib.request.urlopen(request, timeout=60):
            return None
    except urllib.error.HTTPError as error:
        with error:
            reason: str = json.load(error)["reason"]
        return reason


def test_the_fields_of_published_structs_stay_where_they_are() -> None:
    header = re.sub(r"/\*.*?\*/", "", text(SPEC / "nnrp.h"), flags=re.DOTALL)
    for struct, fields in STRUCTS.items():
        body = re.search(rf"typedef struct {struct} \{{(.*?)\}} {struct};", header, re.DOTALL)
        assert body, f"nnrp.h has no struct {struct}"
        found = ["".join(name) for name in re.findall(r"\(\*(\w+)\)\([^;]*;|(\w+)(?:\[\d+\])?;", body[1])]
        assert found[: len(fields.split())] == fields.split(), f"{struct}: {found}"


def enum_after(typedef: str) -> str:
    match = re.search(rf"typedef int32_t {typedef};\nenum \{{\n(.*?)^\}};", text(SPEC / "nnrp.h"), re.MULTILINE | re.DOTALL)
    assert match, f"nnrp.h has no enum after {typedef}"
    return match[1]


def markdown_table(first: str) -> list[list[str]]:
    """The rows of the specification's table whose first column is called that."""
    match = re.search(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text(SPEC / "nnrp.md"), re.MULTILINE)
    assert match, f"nnrp.md has no table of {first}s"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in match[1].splitlines()]


# Clauses


def clauses() -> dict[str, str]:
    """The clauses of the specification by number, and its last section, which is a table, by its own."""
    parts = re.split(r"^(?:\*\*(\d+\.\d+)\*\*|## (\d+)\. )", text(SPEC / "nnrp.md"), flags=re.MULTILINE)
    return {parts[i] or parts[i + 1]: parts[i + 2] for i in range(1, len(parts), 3)}


def proofs(clause: str) -> list[str]:
    return [proof.strip() for listed in re.findall(r"\[proof: ([^\]]+)\]", clause) for proof in listed.split(",")]


def test_every_clause_that_binds_has_a_proof() -> None:
    bare = [number for number, clause in clauses().items() if re.search(r"\bMUST\b", clause) and not proofs(clause)]
    assert not bare, f"clauses without a proof: {bare}"


def test_every_proof_exists() -> None:
    missing = []
    for number, clause in clauses().items():
        for proof in proofs(clause):
            file, _, test = proof.partition("#")
            path = SPEC / file if file.startswith("vectors/") else ROOT / file
            if not path.exists() or (test and not re.search(rf"\b(?:fn|def) {test}\b", text(path))):
                missing.append(f"§{number}: {proof}")
    assert not missing, "\n".join(missing)


def test_every_clause_that_is_cited_exists() -> None:
    known = clauses()
    cited = [
        (name(path), m[1])
        for path in files()
        if path.suffix in CODE | {".toml", ".yaml"}
        for m in re.finditer(r"(?:spec|nnrp\.md) §(\d+(?:\.\d+)?)", text(path))
    ]
    assert len(cited) > 10, "hardly any clause is cited: is the pattern still right?"
    wrong = [f"{file}: §{number}" for file, number in cited if number not in known]
    assert not wrong, "\n".join(wrong)


def raising(reason: str) -> list[str]:
    """The files of code, the table's own copies aside, that make an error of that reason."""
    pattern = re.compile(rf"\bReason::{variant(reason)}\b|[\"']{reason}[\"']")
    own = [path for path in files() if name(path).startswith(("crates/", "python/")) and "/tests/" not in name(path) and path.suffix in {".rs", ".py"}]
    copies = {"python/nnrp/errors.py", "crates/nnrp-core/src/error.rs"}
    return [name(path) for path in own if name(path) not in copies and pattern.search(without_comments(without_tests(text(path))))]


def expecting(reason: str) -> list[str]:
    """The tests and vectors that expect it."""
    pattern = re.compile(rf"\b(?:{reason}|{variant(reason)})\b")
    kinds = CODE | {".json", ".toml"}
    tests = [path for path in files() if re.match(r"tests/|spec/vectors/|crates/.*/tests/", name(path)) and path.suffix in kinds and path != Path(__file__)]
    inner = [path for path in files() if path.suffix == ".rs" and pattern.search(text(path)[len(without_tests(text(path))) :])]
    return [name(path) for path in inner + [path for path in tests if pattern.search(text(path))]]


def variant(reason: str) -> str:
    return reason.title().replace("_", "")


@pytest.mark.parametrize("reason", table("errors.toml")["reasons"])
def test_every_reason_is_raised_and_tested(reason: str) -> None:
    assert raising(reason), f"{reason} is in the table and nothing raises it"
    assert expecting(reason), f"{reason} is raised in {raising(reason)} and no test or vector expects it"
