"""Worker process of one contender: reads what to run from standard input and answers with seconds.

    python -m resnest.bench.worker        # a job as a line of JSON; then "turn N" lines; "end"

Separate processes isolate the engines' thread pools and memory, and measure the peak of each. The first answer is the
time of one call after the warm-up; peak memory includes the interpreter, engine, network and inputs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from resnest.errors import ResnestError
from resnest.runtime.engines.exported import ORIGIN_KEY
from resnest.runtime.hardware import disable_malloc_trim

WARM_UP = 3  # calls: the first allocates, engines plan at the second
Run = Callable[[], Any]  # one call, finished when it returns


def open_contender(job: dict[str, Any]) -> tuple[Run, str]:
    """The function for one call, and the precision that it computes in."""
    if job["file"]:
        openers = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino, "predictor": _open_predictor}
        return openers[job["engine"]](job)
    return _open_torch(job)


def images(job: dict[str, Any], channels: int) -> np.ndarray[Any, Any]:
    shape = (job["batch"], channels, job["size"], job["size"])
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _open_torch(job: dict[str, Any]) -> tuple[Run, str]:
    import torch

    from resnest.bench.networks import build, check_output
    from resnest.inference.prepare import prepared
    from resnest.inference.torch_engine import TorchEngine, has_kernels
    from resnest.kernels.autotune import tune

    torch.set_num_threads(job["threads"])
    if job["engine"] in ("eager-kept", "torch"):
        disable_malloc_trim()
    net: Any = build(job["model"], job["kind"], job["size"])
    layout = torch.channels_last if job["layout"] == "channels_last" else torch.contiguous_format
    dtype, device = getattr(torch, job["precision"]), job["device"]
    channels = next((part.in_channels for part in net.modules() if isinstance(part, torch.nn.Conv2d)), 3)
    ours = job["kind"] in ("ours", "saved")
    if job["engine"] == "torch":
        engine, batch = TorchEngine(net, job["device"]), images(job, channels)
        return lambda: engine(batch), "float32"
    if ours and job["engine"] in ("prepared", "compiled"):
        net = prepared(net, memory_format=layout, kernels=has_kernels(torch.device(device)))
    net = net.to(device=device, dtype=dtype, memory_format=layout).requires_grad_(False)
    x = torch.from_numpy(images(job, channels))
    x = x.to(device=device, dtype=dtype).contiguous(memory_format=layout)
    tune(net, x)  # where there are kernels
    if job["engine"] == "compiled":
        net = torch.compile(net)

    @torch.inference_mode()
    def run() -> Any:
        logits = net(x)
        if device == "cuda":
            torch.cuda.synchronize()
        return logits

    check_output(run().cpu(), job["model"])
    return run, job["precision"]


def _open_onnxruntime(job: dict[str, Any]) -> tuple[Run, str]:
    from resnest.runtime.engines.onnxruntime import package

    onnxruntime = package()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = job["threads"]
    settings.log_severity_level = 3
    provider = "CUDAExecutionProvider" if job["device"] == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ResnestError("this onnxruntime has no CUDA: pip install onnxruntime-gpu, or leave the engine out")
    session = onnxruntime.InferenceSession(job["file"], settings, providers=[provider])
    put = session.get_inputs()[0]
    x = images(job, _channels(put.shape, job))
    metadata = session.get_modelmeta().custom_metadata_map
    return lambda: session.run(None, {put.name: x}), _precision(metadata.get(ORIGIN_KEY, ""))


def _open_openvino(job: dict[str, Any]) -> tuple[Run, str]:
    from resnest.runtime.engines import openvino

    # its default is bfloat16 where supported, which is not what the others compute
    kind = {"float32": "f32", "bfloat16": "bf16"}[job["precision"]]
    net = openvino.read(Path(job["file"]))
    provenance = openvino.metadata(net).get(ORIGIN_KEY, "")
    shape = [size.get_length() if size.is_static else None for size in net.inputs[0].partial_shape]
    channels = _channels(shape, job)
    compiled = openvino.core().compile_model(net, "CPU", openvino.settings(job["threads"], kind))
    request, x = compiled.create_infer_request(), images(job, channels)
    precision = _precision(provenance)
    return lambda: request.infer([x], share_inputs=True), job["precision"] if precision == "float32" else precision


def _open_predictor(job: dict[str, Any]) -> tuple[Run, str]:
    """The engine and settings of resnest.Predictor for the file."""
    from resnest.runtime.engines.choosing import open_engine
    from resnest.tasks import DEFAULT_TASK

    engine = open_engine(job["file"], threads=job["threads"], batch_size=job["batch"])
    if engine.card.task != DEFAULT_TASK:
        raise ResnestError(f"{job['file']} is {engine.card.info.noun}, and bench times classifiers")
    x = images(job, engine.card.in_chans)
    return lambda: engine(x), str(engine.origin.get("precision", "float32"))


def _channels(shape: list[Any], job: dict[str, Any]) -> int:
    """Channels of images (N, C, H, W); raises ResnestError if the file has another batch or size fixed in it."""
    wanted = (job["batch"], None, job["size"], job["size"])
    for name, fixed, asked in zip(("batch", "channels", "height", "width"), shape, wanted, strict=True):
        if isinstance(fixed, int) and asked is not None and fixed != asked:
            raise ResnestError(f"{job['file']} takes a {name} of {fixed} alone, not {asked}")
    return shape[1] if isinstance(shape[1], int) else 3


def _precision(origin: str) -> str:
    """Precision of an exported file, from its metadata; float32 by default."""
    try:
        return str(json.loads(origin)["precision"]) if origin else "float32"
    except (ValueError, KeyError, TypeError):
        return "float32"


def turn(run: Run, calls: int) -> float:
    """Mean seconds per call, after one warm-up call, as caches are cold at the start of a turn."""
    if calls > 1:
        run()
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - started) / calls


def peak_mib(device: str) -> float | None:
    """Peak memory of this process in MiB; on a GPU, that allocated by torch. None: not available."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start with what the process that started this one held (man 2 getrusage)
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) / 1024
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)


def serve(read: TextIO, write: TextIO) -> None:
    def answer(**content: object) -> None:
        write.write(json.dumps(content) + "\n")
        write.flush()

    job = json.loads(read.readline())
    try:
        run, precision = open_contender(job)
        for _ in range(WARM_UP):
            run()
        answer(seconds=turn(run, 1), precision=precision)
        for line in read:
            if line.strip() == "end":
                break
            answer(seconds=turn(run, int(line.split()[1])), peak_mib=peak_mib(job["device"]))
    except ResnestError as error:
        answer(error=str(error))
    except Exception as error:
        answer(error=f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}")


def main() -> None:
    """Reads jobs; standard output is for answers, so that engines' prints go to standard error."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin, pipe)


if __name__ == "__main__":
    main()
