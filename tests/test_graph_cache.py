"""A model without a graph beside it gets one in the cache, once."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sepcli import __version__
from sepcli.audio import read, write
from sepcli.errors import SepcliError
from sepcli.graphs import cached
from sepcli.graphs import export as exporting
from sepcli.inference import loading
from sepcli.inference.blockwise import Method
from sepcli.inference.graphseparator import GraphSeparator
from sepcli.inference.live import open_runner
from sepcli.inference.loading import load
from sepcli.inference.separate import Separator
from sepcli.inference.stream import Stream
from sepcli.models import MODELS, build
from sepcli.models.modelfile import digest, save
from sepcli.models.weights.cache import cache_folder
from sepcli.nn.causal import CausalModel
from tests.models import randomise
from tests.separators import noise
from tests.trainings import trained


class Gain(CausalModel):
    """The mixture times a number, and what was before."""

    sample_rate, sources, channels, hop, delay = 8000, ("speech",), 1, 4, 0

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(2.0))

    def initial_state(self, batch=1):
        return self.gain.new_zeros(batch, 1)

    def step(self, x, past):
        return (self.gain * x + past[..., None])[:, None], x[..., -1]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "gain", f"{__name__}:Gain")
    monkeypatch.setenv("SEPCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(path, gain=2.0):
    save(path, "gain", {}, {"gain": torch.tensor(gain)}, {})
    return path


def graph_of(path):
    return f"{digest(path)}-{__version__}.onnx"


def kept(cache):
    return sorted(path.name for path in (cache / "graphs").iterdir())


def test_a_graph_is_made_once_and_then_needs_no_torch(cache, tmp_path, caplog):
    path = make(tmp_path / "m.safetensors")
    audio = np.random.default_rng(0).standard_normal((1, 803), np.float32)
    stream = Stream(open_runner(path))
    assert stream.runner.engine == "onnx"
    assert [f"making its streaming graph, once: {cache}" in text for text in caplog.messages] == [
        True
    ]
    assert kept(cache) == [graph_of(path)]
    expected = np.concatenate([stream.push(audio), stream.finish()], 1)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from sepcli.cli import main\n"
        "main(['stream', '-t', 'raw', '-m', sys.argv[1]], standalone_mode=False)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        input=audio.tobytes(),
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    np.testing.assert_array_equal(np.frombuffer(result.stdout, "<f4")[None], expected)


STREAM = "from sepcli.cli import main\nmain()"


def streamed(path, audio):
    call = [sys.executable, "-c", STREAM, "stream", "-t", "raw", "-m", str(path)]
    return subprocess.run(call, input=audio.tobytes(), capture_output=True, timeout=120)


def test_stream_does_not_wait_for_the_graph_of_the_next_time(cache, tmp_path):
    """By torch, and then by the graph that another process has made meanwhile."""
    settings = {"filters": 64, "bottleneck": 16, "skip": 16, "hidden": 16, "blocks": 1}
    torch.manual_seed(0)
    model = randomise(build("conv_tasnet", **settings))
    path = tmp_path / "fresh.safetensors"
    save(path, "conv_tasnet", settings, model.state_dict(), {})
    audio = noise(1, 4000)
    first = streamed(path, audio)
    assert first.returncode == 0
    assert b"run by torch; a faster graph is being made for the next time" in first.stderr
    graph = cache / "graphs" / graph_of(path)
    deadline = time.monotonic() + 600
    while not graph.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = streamed(path, audio)
    assert (second.returncode, second.stderr) == (0, b"")
    one, other = (np.frombuffer(run.stdout, "<f4") for run in (first, second))
    assert len(one) == 4000
    np.testing.assert_allclose(other, one, atol=1e-4)


def test_why_there_is_no_graph_is_told_the_next_time(cache, tmp_path, monkeypatch, caplog):
    path = make(tmp_path / "m.safetensors")
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    monkeypatch.setattr(os, "nice", lambda _by: 0)
    (cache / "graphs").mkdir(parents=True)
    cached.make_later(path)
    assert kept(cache) == [graph_of(path).replace(".onnx", ".txt"), "lock"]
    assert open_runner(path, later=True).engine == "torch"
    assert "differs from the model" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("run by torch")


def test_a_graph_is_made_by_one_process_at_a_time(cache, tmp_path, monkeypatch):
    """Whoever comes second waits, and then finds it."""
    path, order = make(tmp_path / "m.safetensors"), []
    monkeypatch.setattr(os, "nice", lambda _by: 0)
    (cache / "graphs").mkdir(parents=True)
    made = cached._made

    def slowly(*args, **settings):
        order.append("made")
        time.sleep(0.2)
        return made(*args, **settings)

    monkeypatch.setattr(cached, "_made", slowly)
    threads = [threading.Thread(target=cached.make_later, args=(path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["made"]
    assert kept(cache) == [graph_of(path), "lock"]


def test_other_weights_have_another_graph_and_a_damaged_one_is_made_again(cache, tmp_path):
    path, other = make(tmp_path / "m.safetensors"), make(tmp_path / "n.safetensors", 3.0)
    for one in (path, other, path):
        open_runner(one)
    assert kept(cache) == sorted(map(graph_of, (path, other)))
    graph = cache / "graphs" / graph_of(path)
    whole = graph.read_bytes()
    graph.write_bytes(whole[:100])
    assert open_runner(path).engine == "onnx"
    assert graph.read_bytes() == whole


def test_torch_runs_what_cannot_be_made_and_the_reason_is_told(
    cache, tmp_path, monkeypatch, caplog
):
    path = make(tmp_path / "m.safetensors")
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    assert open_runner(path).engine == "torch"
    assert "differs from the model" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("run by torch")
    assert kept(cache) == []
    monkeypatch.setattr(cached, "find_spec", lambda _name: None)
    assert open_runner(path).engine == "torch"
    assert "pip install 'sepcli[export]'" in caplog.messages[-1]
    with pytest.raises(SepcliError, match="no such graph; make it: sepcli export"):
        open_runner(path, "onnx")


@pytest.mark.parametrize("later", [False, True])
def test_a_cache_that_cannot_be_written_is_told(tmp_path, cache, caplog, later):
    path = make(tmp_path / "m.safetensors")
    cache.write_text("a file")
    assert open_runner(path, later=later).engine == "torch"
    assert "cache: a file, where a folder is needed" in caplog.messages[-1]


def test_the_cache_is_where_the_environment_or_the_system_says(monkeypatch, tmp_path):
    assert os.environ["SEPCLI_CACHE"] == "off"
    assert cache_folder() is None
    monkeypatch.setenv("SEPCLI_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SEPCLI_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "sepcli"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "sepcli"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path(tmp_path, "Library", "Caches", "sepcli")


UNMIX = {"window": 256, "hop": 64, "hidden": 8, "layers": 1, "sample_rate": 16000}


def make_unmix(path, **settings):
    torch.manual_seed(0)
    model = randomise(build("open_unmix", **UNMIX, **settings))
    save(path, "open_unmix", UNMIX | settings, model.state_dict(), {})
    return path


def separate(*args, without_torch=False):
    code = "import sys; sys.modules['torch'] = None\n" if without_torch else ""
    code += "from sepcli.cli import main\nmain()"
    call = [sys.executable, "-c", code, "separate", *map(str, args)]
    return subprocess.run(call, capture_output=True, text=True, timeout=120)


def test_separate_runs_the_graph_that_is_kept_without_torch(cache, tmp_path):
    path = make_unmix(tmp_path / "u.safetensors")
    write(tmp_path / "song.wav", noise(2, 30_000), 44100)
    common = ("-m", path, tmp_path / "song.wav", "--segment", "0.2", "--wiener", "1", "-o")
    made = separate(*common, tmp_path / "a", "--engine", "onnx")
    assert (made.returncode, "making its graph, once" in made.stderr) == (0, True)
    assert kept(cache) == [graph_of(path).replace(".onnx", ".whole.onnx")]
    assert separate(*common, tmp_path / "b", without_torch=True).returncode == 0
    assert separate(*common, tmp_path / "c", "--engine", "torch").returncode == 0
    for source in ("vocals", "accompaniment"):
        ours, again, expected = (
            read(tmp_path / run / "song" / f"{source}.wav")[0] for run in ("b", "a", "c")
        )
        np.testing.assert_array_equal(ours, again)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
        assert np.abs(expected).max() > 1e-3


def test_torch_separates_what_no_graph_does_or_it_does_faster(cache, tmp_path, monkeypatch):
    names = ("vocals", "drums", "bass", "other")
    path = make_unmix(tmp_path / "u.safetensors", sources=names, residual=False)
    assert isinstance(load(path, engine="auto"), Separator)  # there is none, and it makes none
    four = load(path, engine="onnx")
    assert [type(four.only(names[:n])) for n in (1, 2, 3)] == [Separator, Separator, GraphSeparator]
    monkeypatch.setattr(loading, "may_have_gpu", lambda: False)
    assert isinstance(load(path, "auto", engine="auto"), GraphSeparator)
    assert isinstance(load(path, engine="torch"), Separator)
    assert isinstance(load(path, method=Method(griffin_lim=1), engine="onnx"), Separator)
    monkeypatch.setattr(loading, "may_have_gpu", lambda: True)
    assert isinstance(load(path, "auto", engine="auto"), Separator)
    causal = make(tmp_path / "m.safetensors")
    exporting.export(causal, causal.with_suffix(".onnx"), offline=True)
    assert isinstance(load(causal, engine="onnx"), Separator)


@pytest.mark.usefixtures("folder")
def test_a_training_leaves_the_graph_of_its_best_model(cache, caplog):
    trained()
    assert kept(cache) == [graph_of("run/best.safetensors")]
    assert open_runner("run").engine == "onnx"
    assert caplog.messages == []
