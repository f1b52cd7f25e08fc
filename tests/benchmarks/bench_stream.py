"""Live chunks of 10 ms on one thread, torch beside ONNX Runtime; and start-up to the first output.

Where a model has a form of its own for its graph, that is compared with the graph of the model as
it is, in turns.
Wall-clock percentiles tell of this machine as it is now; the CPU time per chunk hardly depends on
what else it runs. Models have random weights, which cost as much as trained ones.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from sepcli.graphs.export import about, encode, export
from sepcli.graphs.onnx import OnnxRunner
from sepcli.inference.live import open_runner
from sepcli.inference.stream import Stream
from sepcli.inference.streamcheck import measure
from sepcli.models import MODELS, build, model_class
from sepcli.models.modelfile import load_model, save
from sepcli.nn.causal import CausalModel

SECONDS = 10


def cpu_ms(runner):
    """CPU time per chunk, in ms."""
    stream = Stream(runner)
    audio = np.zeros((1, 500 * stream.chunk), np.float32)
    stream.push(audio[:, : 10 * stream.chunk])
    start = time.process_time()
    stream.push(audio)
    return 1000 * (time.process_time() - start) / 500


def first_output_seconds(path, engine):
    """Wall-clock time from the start of `sepcli stream` to its first audio."""
    code = "import sys; from sepcli.__main__ import main; sys.argv[0] = 'sepcli'; main()"
    command = [sys.executable, "-c", code, "stream", "-t", "raw", "-m", str(path)]
    command += ["--engine", engine]
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    start = time.perf_counter()
    with subprocess.Popen(command, bufsize=0, **pipes) as process:
        process.stdin.write(bytes(8000))
        process.stdout.read(4)
        elapsed = time.perf_counter() - start
        process.stdin.close()
        process.stdout.read()
    return elapsed


def gain(path):
    """(CPU ms per chunk of the graph beside `path`, how much longer the model as it is takes)."""
    model, card = load_model(path)
    plain = path.with_suffix(".plain.onnx")
    plain.write_bytes(encode(model, model, about(model, model, card)))
    runners = [OnnxRunner(each) for each in (path.with_suffix(".onnx"), plain)]
    turns = [[cpu_ms(runner) for runner in runners] for _ in range(5)]
    ours, theirs = (min(each) for each in zip(*turns, strict=True))
    return ours, theirs / ours


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(MODELS):
            if not issubclass(model_class(name), CausalModel):
                continue
            path = Path(folder, f"{name}.safetensors")
            save(path, name, {}, build(name).state_dict(), {})
            torch_start = min(first_output_seconds(path, "torch") for _ in range(3))
            export(path, path.with_suffix(".onnx"))
            onnx_start = min(first_output_seconds(path, "onnx") for _ in range(3))
            for engine, start in (("torch", torch_start), ("onnx", onnx_start)):
                runner = open_runner(path, engine)
                record = measure(runner, seconds=SECONDS)
                print(
                    f"{name:16} {engine:6} chunk {record['chunk_ms']:2.0f} ms, "
                    f"latency {record['latency_ms']:2.0f} ms; per chunk p50 "
                    f"{record['p50_ms']:.2f}, p95 {record['p95_ms']:.2f}, "
                    f"p99 {record['p99_ms']:.2f}, max {record['max_ms']:.2f} ms, "
                    f"CPU {cpu_ms(runner):.2f} ms; first output after {start:.2f} s"
                )
            model = build(name)
            if model.exported() is not model and not model.conditioned:
                ours, ratio = gain(path)
                print(f"{name:16} its graph CPU {ours:.2f} ms, {ratio:.2f} x less than as it is")


if __name__ == "__main__":
    main()
