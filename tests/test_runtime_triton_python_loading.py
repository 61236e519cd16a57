"""What a model for Triton's Python back end may be, how it is loaded and let go, and what is refused."""

from __future__ import annotations

import gc
import importlib
import json
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import servers
from test_archives import zipped
from triton_models import LINE

import nnrp
from nnrp import errors, repository
from nnrp.runtimes.triton_python import signature
from nnrp.runtimes.triton_python.config import read
from nnrp.testing import check_runtime

X = np.float32([1, 2, 3])
TAIL = """
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", self.answer(request.inputs()[0].as_numpy()))]) for request in requests]
"""


def put(folder: Path, body: str, config: str = LINE, **files: str) -> Path:
    """A model whose class has this body."""
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(dedent(config))
    source = f"import triton_python_backend_utils as pb_utils\n\n\nclass TritonPythonModel:\n{body}"
    for name, text in {"model.py": source, **{f"{stem}.py": text for stem, text in files.items()}}.items():
        (folder / "1" / name).write_text(text)
    return folder


# Modules


def test_each_model_has_its_own_helpers_and_nobody_else_sees_them(tmp_path: Path) -> None:
    body = f"    def answer(self, x):\n        import helper\n        from helper import factor as again\n        return x * helper.factor * again\n{TAIL}"
    models = [nnrp.load(put(tmp_path / f"m{factor}", body, helper=f"factor = {factor}.0\n")) for factor in (2, 3)]
    assert [model(X)["y"].tolist() for model in models] == [[4, 8, 12], [9, 18, 27]]
    for name in ("helper", "triton_python_backend_utils", "c_python_backend_utils"):
        assert name not in sys.modules
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert not any(str(tmp_path) in place for place in sys.path)


def test_helpers_import_each_other_and_the_package_in_every_way(tmp_path: Path) -> None:
    body = f"    def answer(self, x):\n        return both.twice(x)\n{TAIL}"
    folder = put(tmp_path / "m", body, both="from . import plus\nfrom .deep import leaf\n\n\ndef twice(x):\n    return plus.one(x) * leaf.TWO\n")
    (folder / "1" / "plus.py").write_text("import triton_python_backend_utils as utils\n\n\ndef one(x):\n    assert utils.Tensor\n    return x + 1\n")
    (folder / "deep").mkdir()
    (folder / "deep" / "leaf.py").write_text(
        "from __future__ import annotations\n\nfrom dataclasses import dataclass\n\n\n@dataclass\nclass Two:\n    n: int\n\n\nTWO = Two(2).n\n"
    )
    source = folder / "1" / "model.py"
    source.write_text("import both\nimport deep.leaf\n\nassert deep.leaf.TWO == 2\n" + source.read_text())
    assert nnrp.load(folder)(X)["y"].tolist() == [4, 6, 8]
    assert not list(folder.rglob("__pycache__"))


def test_a_model_is_finalized_and_forgotten(tmp_path: Path) -> None:
    body = f"""    def initialize(self, args):
        self.place = args["model_repository"]

    def answer(self, x):
        return x

    def finalize(self):
        with open(self.place + "/finalized", "a") as file:
            file.write("once ")
{TAIL}"""
    folder = put(tmp_path / "m", body)
    engine = nnrp.Engine()
    before = set(sys.modules)
    engine.load(folder, options={"instances": 2})(X)
    assert {name.partition(".")[2] for name in sys.modules.keys() - before if name.startswith("_nnrp_triton")} == {"", "model"}
    engine.unload("m")
    gc.collect()
    assert (folder / "finalized").read_text() == "once once "
    assert not [name for name in sys.modules.keys() - before if name.startswith("_nnrp_triton")]


# Configuration


def test_a_configuration_is_told_as_triton_writes_it(tmp_path: Path) -> None:
    text = """
        name: "m" max_batch_size: 8 backend: "python"
        input [{ name: "x" data_type: TYPE_FP32 dims: [ -1, 16 ] reshape { shape: [ -1, 4, 4 ] } }]
        output { name: "y" data_type: TYPE_STRING dims: 1 label_filename: "labels.txt" }
        version_policy { specific { versions: [ 1, 3 ] } }
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 priority_queue_policy { key: 2 value { max_queue_size: 7 } } }
        parameters [ { key: "seed" value { string_value: "7" } }, { key: "lang" value: { string_value: "nl" } } ]
        instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
        model_warmup { name: "zeros" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 1, 16 ] zero_data: true } } }
        optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "tensorrt" parameters { key: "a" value: "b" } } ] } }
        model_transaction_policy { decoupled: True }
    """
    (tmp_path / "config.pbtxt").write_text(text)
    told = read(tmp_path)
    json.dumps(told)
    assert told["input"][0] | {"dims": [-1, 16], "reshape": {"shape": [-1, 4, 4]}, "data_type": "TYPE_FP32", "optional": False} == told["input"][0]
    assert told["version_policy"] == {"specific": {"versions": [1, 3]}}
    assert told["dynamic_batching"]["priority_queue_policy"][2]["max_queue_size"] == 7
    assert told["parameters"] == {"seed": {"string_value": "7"}, "lang": {"string_value": "nl"}}
    assert (told["instance_group"][0]["kind"], told["instance_group"][0]["gpus"]) == ("KIND_GPU", [0, 1])
    assert told["model_transaction_policy"] == {"decoupled": True}
    assert (told["platform"], told["metric_tags"]) == ("", {})
    assert "sequence_batching" not in told


REFUSED: dict[str, tuple[str, str, type[errors.NnrpError]]] = {
    "no protobuf": ("input [", "config.pbtxt", errors.InvalidModel),
    "unknown field": ('inputs [ { name: "x" } ]', "inputs", errors.InvalidModel),
    "unknown type": ('input [ { name: "x" data_type: TYPE_FP31 dims: [ 1 ] } ]', "TYPE_FP31", errors.InvalidModel),
    "no type": ('input [ { name: "x" dims: [ 1 ] } ] output [ { name: "y" dims: [ 1 ] data_type: TYPE_FP32 } ]', "no data_type", errors.InvalidModel),
    "dimension": (LINE.replace("-1", "-2", 1), "expected dimensions from 1, or -1", errors.InvalidModel),
    "twice": (LINE + LINE.partition("\n")[2].replace('backend: "python"', ""), "'x' is there twice", errors.InvalidModel),
    "no outputs": (LINE.partition("output")[0], "expected outputs", errors.InvalidModel),
    "another back end": (LINE.replace('"python"', '"onnxruntime"'), "expected backend 'python', got 'onnxruntime'", errors.InvalidModel),
    "sequences": (LINE + "sequence_batching { }", "sequence_batching: not offered", errors.NotOffered),
    "an environment": (LINE + 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "env.tar.gz" } }', "EXECUTION_ENV_PATH", errors.NotOffered),
    "a warm-up": (
        LINE + 'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 dims: 1 input_data_file: "../x" } } }',
        "folder warmup",
        errors.InvalidModel,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_configuration_that_cannot_be_honoured_is_refused(tmp_path: Path, case: str) -> None:
    config, says, kind = REFUSED[case]
    folder = put(tmp_path / "m", f"    def answer(self, x):\n        return x\n{TAIL}", config)
    with pytest.raises(kind, match=says) as refused:
        nnrp.load(folder, runtime="triton-python")
    assert str(tmp_path) not in str(refused.value)


BODIES: dict[str, tuple[str, str, type[errors.NnrpError]]] = {
    "raises": ("    def initialize(self, args):\n        open('/srv/secret')\n", "FileNotFoundError", errors.LoadFailed),
    "syntax": ("    def initialize(self args):\n        pass\n", "SyntaxError", errors.LoadFailed),
    "import": ("    import nowhere_to_be_found\n", "nowhere_to_be_found", errors.LoadFailed),
    "contradicts": (
        "    @staticmethod\n    def auto_complete_config(c):\n        c.add_output({'name': 'y', 'data_type': 'TYPE_FP64', 'dims': [-1]})\n        return c\n",
        "the configuration says data_type TYPE_FP32, and the model TYPE_FP64",
        errors.InvalidModel,
    ),
    "cannot run": ("    def initialize(self, args):\n        pass\n", "expected a method execute", errors.InvalidModel),
    "forgets": ("    @staticmethod\n    def auto_complete_config(c):\n        pass\n", "got NoneType", errors.InvalidModel),
    "invents": (
        "    @staticmethod\n    def auto_complete_config(c):\n        c.add_input({'name': 'x', 'kind': 1})\n        return c\n",
        "expected 'data_type'",
        errors.InvalidModel,
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_model_that_cannot_be_loaded_says_why_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    body, says, kind = BODIES[case]
    before = set(sys.modules)
    with pytest.raises(kind, match=says) as refused:
        nnrp.load(put(tmp_path / "m", body))
    assert str(tmp_path) not in str(refused.value)
    assert "/srv" not in str(refused.value)
    assert not [name for name in sys.modules.keys() - before if name.startswith("_nnrp_triton")]


def test_what_is_no_such_model_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "m" / "1" / "model.py"
    file.parent.mkdir(parents=True)
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(errors.InvalidModel, match="a file in Python is one with a class TritonPythonModel"):
        nnrp.load(tmp_path / "m")
    with pytest.raises(errors.InvalidModel, match="class TritonPythonModel"):
        nnrp.load(put(tmp_path / "n", "    pass\n\n\nTritonPythonModel = None\n"))
    assert not (tmp_path / "ran").exists()
    assert nnrp.inspect(tmp_path / "n" / "1" / "model.py")["format"] == "triton_python"


def test_a_program_that_was_fetched_is_run_only_where_the_caller_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    folder = put(tmp_path / "m", f"    open({str(tmp_path / 'ran')!r}, 'w').close()\n\n    def answer(self, x):\n        return -x\n{TAIL}")
    within = {f"m/{file.relative_to(folder)}": file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    itself = {"m/model.toml": b"runtime = 'triton-python'\noptions = {allow_code = true}\n"}
    with servers.serving(web := servers.Files({"/m.zip": zipped(within), "/itself.zip": zipped(within | itself)})):
        (tmp_path / "m.zip").write_bytes(zipped(within))
        for source in (f"{web.url}/m.zip", f"{web.url}/itself.zip", str(tmp_path / "m.zip")):
            for words in ({}, {"runtime": "triton-python"}, {"options": {"instances": 1}}):
                with pytest.raises(errors.InvalidOption, match=r"allow_code|must not say"):
                    nnrp.load(source, **words)
            assert nnrp.inspect(repository.find(source)[0].path)["format"] == "triton_python"
            assert not (tmp_path / "ran").exists()
        assert nnrp.load(f"{web.url}/itself.zip", options={"allow_code": True})(X)["y"].tolist() == [-1, -2, -3]
        own = tmp_path / "model.toml"
        own.write_text(f'source = "{web.url}/m.zip"\noptions = {{allow_code = true}}\n')
        assert nnrp.load(own)(X)["y"].tolist() == [-1, -2, -3]
    assert nnrp.load(folder)(X)["y"].tolist() == [-1, -2, -3]


def test_the_file_that_was_named_is_run_and_nothing_that_lies_beside_it(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", f"    def answer(self, x):\n        return -x\n{TAIL}", weights=f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (folder / "1" / "weights.onnx").write_text("no model")
    with pytest.raises(errors.InvalidModel, match="a file in Python"):
        nnrp.load(folder / "1" / "weights.onnx", runtime="triton-python")
    # An import would find the package first.
    (folder / "1" / "model").mkdir()
    (folder / "1" / "model" / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert nnrp.load(folder)(X)["y"].tolist() == [-1, -2, -3]
    assert not (tmp_path / "ran").exists()


def test_a_device_is_the_one_that_is_asked_for_or_refused(tmp_path: Path) -> None:
    body = f"""    def initialize(self, args):
        self.kind = args["model_instance_kind"]

    def answer(self, x):
        assert self.kind == "CPU"
        return x
{TAIL}"""
    folder = put(tmp_path / "m", body, LINE + "instance_group [ { kind: KIND_GPU gpus: [ 97 ] } ]")
    assert 97 not in signature.gpus()
    for words in ({}, {"device": "cuda:97"}, {"device": "wood"}):
        with pytest.raises(errors.DeviceNotFound, match="available to triton-python: cpu"):
            nnrp.load(folder, **words)
    assert nnrp.load(folder, device="cpu")(X)["y"].tolist() == X.tolist()
    with pytest.raises(errors.NotOffered, match="precision"):
        nnrp.load(folder, device="cpu", precision="int8")


def test_a_file_of_another_name_is_the_one_that_the_configuration_says(tmp_path: Path) -> None:
    folder = put(tmp_path / "home" / "m", f"    def answer(self, x):\n        return -x\n{TAIL}", LINE + 'default_model_filename: "net.py"')
    (folder / "1" / "model.py").rename(folder / "1" / "net.py")
    engine = nnrp.Engine()
    repository.load(engine, [tmp_path / "home"])
    assert engine.model("m")(X)["y"].tolist() == [-1, -2, -3]
    (folder / "1" / "model.py").write_text("class TritonPythonModel: never loaded\n")
    assert nnrp.load(folder)(X)["y"].tolist() == [-1, -2, -3]
    (folder / "out.py").write_text((folder / "1" / "net.py").read_text())
    for name in ("none.py", "../out.py", str(folder / "out.py")):
        (folder / "config.pbtxt").write_text(LINE + f'default_model_filename: "{name}"')
        with pytest.raises(errors.InvalidModel, match="default_model_filename: expected a file in the version's folder"):
            nnrp.load(folder)


def test_a_model_is_warmed_up_as_its_configuration_says(tmp_path: Path) -> None:
    warm = 'model_warmup [ { count: 2 inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 random_data: true } } }, '
    warm += '{ inputs { key: "x" value { data_type: TYPE_FP32 dims: 3 input_data_file: "x" } } } ]'
    folder = put(
        tmp_path / "m",
        f"    seen = []\n\n    def answer(self, x):\n        self.seen.append(x.tolist())\n        return x * 0 + len(self.seen)\n{TAIL}",
        LINE + warm,
    )
    (folder / "warmup").mkdir()
    (folder / "warmup" / "x").write_bytes(X.tobytes())
    model = nnrp.load(folder)
    assert model(X)["y"].tolist() == [4, 4, 4]
    assert model.session is not None
    model.session.warm_up()
    assert model(X)["y"].tolist() == [8, 8, 8]
    (folder / "warmup" / "x").write_bytes(b"odd")
    with pytest.raises(errors.InvalidModel, match="shape"):
        nnrp.load(folder)


def test_tensors_cross_as_dlpack(tmp_path: Path) -> None:
    body = f"""    def answer(self, x):
        import numpy as np

        one = pb_utils.Tensor.from_dlpack("one", x)
        two = pb_utils.Tensor.from_dlpack("two", one.to_dlpack())
        three = np.from_dlpack(one)
        three[0] = 9
        assert x[0] == 9
        assert two.is_cpu() and two.shape() == x.shape and two.name() == "two" and two.triton_dtype() == 11
        return two.as_numpy()
{TAIL}"""
    x = X.copy()
    assert nnrp.load(put(tmp_path / "m", body))(x)["y"].tolist() == [9, 2, 3]
    assert x.tolist() == X.tolist()


# The contract


def test_it_keeps_the_contract() -> None:
    report = check_runtime("triton-python", isolate=True)
    assert report.passed, report.table()
    missing = {"datatypes.fp8_e4m3", "datatypes.fp8_e5m2", "datatypes.int4", "datatypes.uint4"}
    assert {one.id for one in report.outcomes if one.verdict == "na"} == missing, report.table()
