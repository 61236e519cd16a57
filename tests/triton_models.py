"""Models for Triton's Python back end, as people write them, and the folders that they lie in."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

MODELS: dict[str, tuple[str, str]] = {}


def model(name: str, config: str, source: str) -> None:
    MODELS[name] = (dedent(config), dedent(source))


def write(folder: Path, *names: str, version: str = "1") -> Path:
    """A repository of these models, or of all."""
    for name in names or MODELS:
        config, source = MODELS[name]
        (folder / name / version).mkdir(parents=True)
        if config:
            (folder / name / "config.pbtxt").write_text(config)
        (folder / name / version / "model.py").write_text(source)
    return folder


PAIR = """
    backend: "python"
    input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }, { name: "INPUT1" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] }, { name: "OUTPUT1" data_type: TYPE_FP32 dims: [ 4 ] } ]
    instance_group [{ kind: KIND_CPU }]
    """

model(
    "add_sub",
    PAIR,
    """
    import json

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def initialize(self, args):
            self.model_config = model_config = json.loads(args["model_config"])
            first, second = (pb_utils.get_output_config_by_name(model_config, f"OUTPUT{i}") for i in (0, 1))
            self.first_dtype = pb_utils.triton_string_to_numpy(first["data_type"])
            self.second_dtype = pb_utils.triton_string_to_numpy(second["data_type"])

        def execute(self, requests):
            responses = []
            for request in requests:
                in_0 = pb_utils.get_input_tensor_by_name(request, "INPUT0")
                in_1 = pb_utils.get_input_tensor_by_name(request, "INPUT1")
                sum_, difference = (in_0.as_numpy() + in_1.as_numpy(), in_0.as_numpy() - in_1.as_numpy())
                out_0 = pb_utils.Tensor("OUTPUT0", sum_.astype(self.first_dtype))
                out_1 = pb_utils.Tensor("OUTPUT1", difference.astype(self.second_dtype))
                responses.append(pb_utils.InferenceResponse(output_tensors=[out_0, out_1]))
            return responses

        def finalize(self):
            print("Cleaning up...")
    """,
)

model(
    "shout",
    """
    backend: "python"
    max_batch_size: 4
    input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
    output [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] }, { name: "LENGTH" data_type: TYPE_INT32 dims: [ 1 ] } ]
    """,
    """
    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            responses = []
            for request in requests:
                texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
                shouted = [[text.decode().upper() for text in row] for row in texts]
                out = [
                    pb_utils.Tensor("TEXT", np.array(shouted, dtype=object)),
                    pb_utils.Tensor("LENGTH", np.array([[len(text) for text in row] for row in texts], np.int32)),
                ]
                responses.append(pb_utils.InferenceResponse(out))
            return responses
    """,
)

model(
    "auto",
    "",
    """
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(auto_complete_model_config):
            inputs = [{"name": "X", "data_type": "TYPE_INT64", "dims": [-1]}, {"name": "BY", "data_type": "TYPE_INT64", "dims": [1], "optional": True}]
            outputs = [{"name": "Y", "data_type": "TYPE_INT64", "dims": [-1]}]
            config = auto_complete_model_config.as_dict()
            for one in inputs:
                if one["name"] not in [known["name"] for known in config["input"]]:
                    auto_complete_model_config.add_input(one)
            for one in outputs:
                auto_complete_model_config.add_output(one)
            auto_complete_model_config.set_max_batch_size(2)
            auto_complete_model_config.set_dynamic_batching()
            return auto_complete_model_config

        def execute(self, requests):
            responses = []
            for request in requests:
                x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
                by = pb_utils.get_input_tensor_by_name(request, "BY")
                x *= 10 if by is None else by.as_numpy()
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
            return responses
    """,
)

model(
    "bls",
    PAIR + '\nparameters { key: "MODEL" value: { string_value: "add_sub" } }',
    """
    import json

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def initialize(self, args):
            self.other = json.loads(args["model_config"])["parameters"]["MODEL"]["string_value"]

        def execute(self, requests):
            responses = []
            for request in requests:
                parameters = json.loads(request.parameters())
                inner = pb_utils.InferenceRequest(
                    model_name=parameters.get("model", self.other),
                    requested_output_names=["OUTPUT0", "OUTPUT1"],
                    inputs=request.inputs(),
                    request_id=request.request_id(),
                )
                answer = inner.exec()
                if answer.has_error():
                    responses.append(pb_utils.InferenceResponse(error=answer.error()))
                else:
                    out = [pb_utils.get_output_tensor_by_name(answer, name) for name in ("OUTPUT0", "OUTPUT1")]
                    responses.append(pb_utils.InferenceResponse(output_tensors=out))
            return responses
    """,
)

model(
    "bls_async",
    PAIR,
    """
    import asyncio

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        async def execute(self, requests):
            responses = []
            for request in requests:
                asked = [
                    pb_utils.InferenceRequest(model_name="add_sub", requested_output_names=[name], inputs=request.inputs()).async_exec()
                    for name in ("OUTPUT1", "OUTPUT0")
                ]
                out = [tensor for answer in await asyncio.gather(*asked) for tensor in answer.output_tensors()]
                responses.append(pb_utils.InferenceResponse(out))
            return responses
    """,
)

LINE = """
    backend: "python"
    input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
    """

model(
    "troubled",
    LINE,
    """
    import json

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            (request,) = requests
            what = json.loads(request.parameters()).get("what", "")
            x = request.inputs()[0].as_numpy()
            if what == "code":
                code = getattr(pb_utils.TritonError, json.loads(request.parameters())["code"])
                return [pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError("no bread today", code))]
            if what == "raise":
                raise pb_utils.TritonModelException("cannot open /srv/secret/weights.bin")
            if what == "text":
                return [pb_utils.InferenceResponse(error="no bread today")]
            return {
                "": [pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x + 1)])],
                "datatype": [pb_utils.InferenceResponse([pb_utils.Tensor("y", x.astype(np.float64))])],
                "rank": [pb_utils.InferenceResponse([pb_utils.Tensor("y", x[None])])],
                "missing": [pb_utils.InferenceResponse([pb_utils.Tensor("z", x)])],
                "twice": [pb_utils.InferenceResponse([pb_utils.Tensor("y", x), pb_utils.Tensor("y", 2 * x)])],
                "none": None,
                "two": [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)])] * 2,
                "other": [{"y": x}],
            }[what]
    """,
)

model(
    "facts",
    """
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] } } ]
    output [ { name: "y" data_type: TYPE_STRING dims: [ 1 ] reshape: { shape: [ ] } } ]
    max_batch_size: 8
    instance_group [ { count: 2 kind: KIND_CPU } ]
    """,
    """
    import json

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def initialize(self, args):
            self.args = args

        def execute(self, requests):
            responses = []
            for request in requests:
                x = request.inputs()[0]
                told = {
                    "args": self.args,
                    "id": request.request_id(),
                    "correlation": request.correlation_id(),
                    "parameters": json.loads(request.parameters()),
                    "outputs": request.requested_output_names(),
                    "model": request.model_name(),
                    "tensor": [x.name(), list(x.shape()), x.triton_dtype(), x.is_cpu()],
                }
                pb_utils.Logger.log_info(f"asked for {request.request_id()}")
                y = np.array([json.dumps(told)] * x.shape()[0], dtype=object)
                responses.append(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("y", y)]))
            return responses
    """,
)

model(
    "patient",
    LINE,
    """
    import time

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            (request,) = requests
            until = time.monotonic() + 600
            while not request.is_cancelled() and time.monotonic() < until:
                time.sleep(0.002)
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError("withdrawn", pb_utils.TritonError.CANCELLED))]
    """,
)

model(
    "sender",
    LINE,
    """
    import json
    import threading

    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            for request in requests:
                threading.Thread(target=self.answer, args=(request, request.get_response_sender())).start()

        def answer(self, request, sender):
            y = pb_utils.Tensor("y", request.inputs()[0].as_numpy() + 1)
            for number in range(json.loads(request.parameters()).get("times", 1)):
                sender.send(pb_utils.InferenceResponse([y]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    """,
)

model(
    "together",
    LINE,
    """
    import threading

    import triton_python_backend_utils as pb_utils

    THREE = threading.Barrier(3)


    class TritonPythonModel:
        def initialize(self, args):
            self.turn = threading.Lock()

        def execute(self, requests):
            if not self.turn.acquire(blocking=False):
                raise pb_utils.TritonModelException("two requests at once")
            try:
                THREE.wait(30)
                return [pb_utils.InferenceResponse([pb_utils.Tensor("y", request.inputs()[0].as_numpy())]) for request in requests]
            finally:
                self.turn.release()
    """,
)
