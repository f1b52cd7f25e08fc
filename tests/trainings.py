"""Tiny trainings by the command line."""

import json
import os
from pathlib import Path

import torch
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.models import modelfile
from sepcli.runs import runlog

TINY = """
model: {name: conv_tasnet, sources: [modulated, sines], filters: 8, kernel: 20, bottleneck: 4,
        hidden: 4, skip: 4, blocks: 2, repeats: 1}
data:
  train: {kind: toy, items: 10, duration_s: 0.05}
  valid: {kind: toy, items: 3, duration_s: 0.05}
train: {steps: 12, batch: 2, warmup: 2, log_every: 1, validate_every: 5, ema: 0.9}
"""


TIMES = ("minutes", "items_per_s")


# Runs `sepcli` and does something to its own process right after step 8 was logged.
AT_STEP_8 = """
import os, signal
from sepcli.runs import runlog
write = runlog.RunLog.write
def write_and_act(self, record):
    write(self, record)
    if record["event"] == "train" and record["step"] == 8:
        {action}
runlog.RunLog.write = write_and_act
from sepcli.cli import main
main()
"""


def sepcli(*arguments):
    return CliRunner().invoke(main, ["train", "--threads", "1", *map(str, arguments)])


def trained(*arguments, output="run"):
    result = sepcli("tiny.yaml", "-o", output, "--device", "cpu", *arguments)
    assert result.exit_code == 0, result.output
    return result


def records(output="run"):
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = map(json.loads, Path(output, "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def weights(output="run"):
    """Every tensor of the checkpoint, as one list."""
    state = torch.load(f"{output}/last.ckpt", weights_only=True)
    moments = [x for s in state["optimizer"]["state"].values() for x in s.values()]
    return [*state["model"].values(), *state["average"].values(), *moments]


def assert_same_run(one, other):
    assert records(one) == records(other)
    pairs = list(zip(weights(one), weights(other), strict=True))
    assert len(pairs) > 50
    assert all(torch.equal(a, b) for a, b in pairs)
    for name in ("best", "last"):
        models = [modelfile.load_model(f"{run}/{name}.safetensors")[0] for run in (one, other)]
        states = [list(model.state_dict().values()) for model in models]
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def stop_at_step_8(monkeypatch, number):
    """Send this process the signal `number` while step 8 is logged, once."""
    write = runlog.RunLog.write

    def write_and_signal(self, record):
        write(self, record)
        if record["event"] == "train" and record["step"] == 8:
            monkeypatch.setattr(runlog.RunLog, "write", write)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(runlog.RunLog, "write", write_and_signal)
