"""Exported graphs: the same as torch, without torch, and refused when they do not belong."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sepcli.audio import write
from sepcli.cli import main
from sepcli.dsp.stft import ChunkedStft
from sepcli.errors import SepcliError
from sepcli.graphs import export as exporting
from sepcli.graphs.onnx import OnnxRunner, Resemblance, open_graph
from sepcli.inference.graphseparator import GraphSeparator
from sepcli.inference.live import open_runner
from sepcli.inference.loading import load
from sepcli.inference.separate import Separator
from sepcli.inference.stream import Stream
from sepcli.models import build
from sepcli.models.modelfile import SHIPPED, save
from sepcli.nn.filterbank import Stft
from sepcli.nn.runner import TorchRunner
from tests.models import SMALLEST, TINY, randomise


def make(path, name, seed=0):
    """Write a small random model of that name."""
    torch.manual_seed(seed)
    model = randomise(build(name, **SMALLEST[name]))
    save(path, name, SMALLEST[name], model.state_dict(), {})
    return path


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Give a model file of an architecture with its graph beside it, exported only once."""
    paths = {}

    def export(name):
        if name not in paths:
            path = make(tmp_path_factory.mktemp(name) / "tiny.safetensors", name)
            record = exporting.export(path, path.with_suffix(".onnx"))
            assert record["max_difference"] < 1e-5
            paths[name] = path
        return paths[name]

    return export


@pytest.fixture
def one(exported):
    return exported("spectral_tasnet")


@pytest.mark.parametrize(("kernel", "stride"), [(384, 128), (64, 32), (320, 160)])
@pytest.mark.parametrize("window", ["sqrt_hann", "hann"])
def test_the_transform_without_torch_is_that_of_the_models(kernel, stride, window):
    ours = Stft(kernel, stride, window=window)
    numpy = ChunkedStft(ours.window.numpy(), ours.synthesis_window.numpy(), stride)
    x, tail = noise(2, 5 * stride), noise(2, kernel - stride)
    spectrum, past = ours.analyse(torch.from_numpy(x), torch.from_numpy(tail))
    parts, past_of_numpy = numpy.analyse(x, tail)
    assert parts.dtype == np.float32
    np.testing.assert_allclose(parts[:, 0] + 1j * parts[:, 1], spectrum, rtol=1e-6, atol=2e-5)
    np.testing.assert_array_equal(past_of_numpy, past)
    y, rest = ours.synthesise(spectrum, torch.from_numpy(tail))
    y_of_numpy, rest_of_numpy = numpy.synthesise(parts, tail)
    np.testing.assert_allclose(y_of_numpy, y, rtol=0, atol=1e-6)
    np.testing.assert_allclose(rest_of_numpy, rest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(dict(TINY)) - {"speaker_lstm"}))
def test_the_graph_equals_torch_for_any_batch_and_number_of_hops(exported, name):
    theirs, ours = (open_runner(exported(name), engine) for engine in ("torch", "onnx"))
    assert isinstance(theirs, TorchRunner)
    assert isinstance(ours, OnnxRunner)
    for fact in ("sample_rate", "sources", "channels", "hop", "delay", "consistent"):
        assert getattr(ours, fact) == getattr(theirs, fact)
    audio = noise(2, 3001)
    for chunk_ms in (0, 10, 100):
        for target in ours.sources:
            a, b = (
                Stream(runner, 2, target=target, chunk_ms=chunk_ms) for runner in (theirs, ours)
            )
            np.testing.assert_allclose(b.push(audio), a.push(audio), rtol=0, atol=1e-4)
            np.testing.assert_allclose(b.finish(), a.finish(), rtol=0, atol=1e-4)


def test_a_prelu_of_one_slope_becomes_what_joins_a_convolution(one):
    import onnx

    operations = {node.op_type for node in onnx.load(one.with_suffix(".onnx")).graph.node}
    assert "LeakyRelu" in operations
    assert "PRelu" not in operations


def test_weights_that_halves_hold_exactly_take_half_the_room(tmp_path):
    settings = {"window": 64, "hop": 32, "width": 64, "hidden": 64, "norm": "none", "repeats": 1}
    torch.manual_seed(0)
    weights = build("spectral_tasnet", **settings).state_dict()
    sizes = []
    for name, dtype in (("full", torch.float32), ("half", torch.float16)):
        path = tmp_path / f"{name}.safetensors"
        kept = {key: value.to(dtype) for key, value in weights.items()}
        save(path, "spectral_tasnet", settings, kept, {})
        record = exporting.export(path, path.with_suffix(".onnx"))
        assert record["max_difference"] < 1e-6
        sizes.append(record["bytes"])
    large = sum(value.numel() for value in weights.values() if value.numel() >= 1024)
    assert sizes[0] - sizes[1] == pytest.approx(2 * large, rel=0.05)


def test_an_output_of_the_graph_is_not_overwritten_by_later_ones(one):
    runner = open_runner(one, "onnx")
    core = runner.initial_state()[1]
    x = noise(8, 1, 2, 49, 1)  # (steps, B, 2, F, N)
    first = core.run(x[0])
    kept = first.copy()
    for later in x[1:]:
        core.run(later)
    np.testing.assert_array_equal(first, kept)


def test_states_made_from_one_graph_know_nothing_of_each_other(one):
    runner, audio = open_runner(one, "onnx"), noise(2, 1, 4000)
    streams, parts = [Stream(runner) for _ in audio], [[], []]
    for at in range(0, 4000, 500):
        for channel, stream, own in zip(audio, streams, parts, strict=True):
            own.append(stream.push(channel[:, at : at + 500]))
    for channel, own in zip(audio, parts, strict=True):
        np.testing.assert_array_equal(np.concatenate(own, 1), Stream(runner).push(channel))


def test_a_graph_tells_nothing_of_the_machine_that_made_it(one):
    data = one.with_suffix(".onnx").read_bytes()
    assert b".py" not in data
    assert os.getcwd().encode() not in data


def test_the_graph_beside_the_weights_is_run_if_it_was_made_from_them(one, tmp_path):
    assert open_runner(one).engine == "onnx"
    assert open_runner(one.with_suffix(".onnx")).engine == "onnx"
    copy = make(tmp_path / "other.safetensors", "spectral_tasnet", seed=1)
    assert open_runner(copy).engine == "torch"
    with pytest.raises(SepcliError, match=r"other\.onnx: no such graph; make it: sepcli export"):
        open_runner(copy, "onnx")
    (tmp_path / "other.onnx").write_bytes(one.with_suffix(".onnx").read_bytes())
    assert open_runner(copy).engine == "torch"
    with pytest.raises(SepcliError, match="made from other weights than other"):
        open_runner(copy, "onnx")


def test_every_shipped_graph_was_made_from_the_weights_beside_it():
    for graph in SHIPPED.glob("*.onnx"):
        name, _, part = graph.stem.partition(".")
        if open_graph(graph).kind == "offline":
            continue
        runner = open_runner(SHIPPED / f"{name}.safetensors", "onnx")
        assert runner.engine == "onnx"
        if part:
            given = runner.given([noise(1, 16000)])
            if part == "resemblance":
                compare = Resemblance(graph, runner.sha256)
                assert 0 <= compare(noise(1, 1, 16000), given.condition) <= 1


def test_the_model_for_songs_runs_by_its_graph_and_gives_what_torch_gives():
    ours, theirs = (load("vocals", engine=engine) for engine in ("auto", "torch"))
    assert (type(ours), type(theirs)) == (GraphSeparator, Separator)
    song = noise(2, 60_000)
    expected = theirs.separate(song, 44100)
    for source, y in ours.separate(song, 44100).items():
        np.testing.assert_allclose(y, expected[source], rtol=0, atol=1e-5)
    with pytest.raises(SepcliError, match="the model is not causal"):
        open_runner("vocals")


def test_streaming_a_graph_never_imports_torch(one):
    code = (
        "import sys; from sepcli.cli import main\n"
        "sys.argv = ['sepcli', 'stream', '-t', 'raw', '-m', sys.argv[1]]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert not {'torch', 'scipy', 'rich'} & set(sys.modules)"
    )
    audio = noise(1, 1000)
    result = subprocess.run(
        [sys.executable, "-c", code, str(one)],
        input=audio.tobytes(),
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    stream = Stream(open_runner(one, "torch"))
    expected = np.concatenate([stream.push(audio), stream.finish()], 1)
    np.testing.assert_allclose(np.frombuffer(result.stdout, "<f4")[None], expected, atol=1e-4)


def test_verify_compares_the_graph_with_torch_over_the_whole_file(one, tmp_path):
    write(tmp_path / "x.wav", 0.1 * noise(2, 5001), 16000)
    args = ["stream", "-m", str(one), "--verify", str(tmp_path / "x.wav"), "--json"]
    record = json.loads(CliRunner().invoke(main, args).stdout)
    assert (record["engine"], record["tolerance"], record["equal"]) == ("onnx", 1e-4, True)
    assert record["max_difference"] < 1e-5


def test_a_graph_by_its_name_is_verified_if_its_weights_lie_beside_it(one, tmp_path):
    write(tmp_path / "x.wav", 0.1 * noise(1, 4000), 16000)

    def verify(graph):
        args = ["stream", "-m", str(graph), "--verify", str(tmp_path / "x.wav"), "--json"]
        return CliRunner().invoke(main, args)

    record = json.loads(verify(one.with_suffix(".onnx")).stdout)
    assert (record["engine"], record["equal"], record["model"]) == ("onnx", True, str(one))
    graph = tmp_path / "alone.onnx"
    graph.write_bytes(one.with_suffix(".onnx").read_bytes())
    alone = verify(graph)
    assert alone.exit_code == 1
    assert alone.stderr == (
        f"Error: {graph}: the weights that it was made from are missing, so there is nothing to "
        "compare it with; put them beside it as alone.safetensors\n"
    )
    make(tmp_path / "alone.safetensors", "spectral_tasnet", seed=1)
    other = verify(graph)
    assert other.exit_code == 1
    assert "not the weights that alone.onnx was made from" in other.stderr


def test_the_command_writes_the_graph_and_says_how_close_it_is(one, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = one.with_suffix(".onnx").read_bytes()
    monkeypatch.setattr(exporting, "encode", lambda *_: graph)  # tracing takes seconds
    run = lambda *args: CliRunner().invoke(main, ["export", str(one), *args])  # noqa: E731
    result = run()
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("tiny.onnx: ")
    assert (tmp_path / "tiny.onnx").read_bytes() == graph
    refused = run()
    assert refused.exit_code == 1
    assert "exists; use --overwrite" in refused.stderr
    record = json.loads(run("--overwrite", "-o", "tiny.onnx", "--json").stdout)
    assert record["bytes"] == len(graph)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


def test_a_graph_that_computes_something_else_is_not_written(one, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    monkeypatch.setattr(exporting, "encode", lambda *_: one.with_suffix(".onnx").read_bytes())
    with pytest.raises(SepcliError, match="differs from the model by"):
        exporting.export(one, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_that_needs_the_whole_signal_has_no_streaming_graph(tmp_path):
    settings = {**SMALLEST["conv_tasnet"], "norm": "gln", "causal": False}
    model = build("conv_tasnet", **settings)
    save(tmp_path / "x.safetensors", "conv_tasnet", settings, model.state_dict(), {})
    with pytest.raises(SepcliError, match="not causal"):
        open_runner(tmp_path / "x.safetensors")
    with pytest.raises(SepcliError, match="no such graph"):
        open_runner(tmp_path / "x.safetensors", "onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_exporter_is_one_line_naming_the_extra(one, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(main, ["export", str(one), "-o", str(tmp_path / "x.onnx")])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"exporting needs {package}" in result.stderr
    assert "pip install 'sepcli[export]'" in result.stderr


def test_no_folder_to_write_to_is_one_line(one, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "encode", lambda *_: b"")
    (tmp_path / "file").touch()
    with pytest.raises(SepcliError, match="file: a file, where a folder is needed"):
        exporting.export(one, tmp_path / "file" / "x.onnx")


@pytest.mark.parametrize("data", [b"", b"not a graph"])
def test_what_is_no_graph_is_refused(tmp_path, data):
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(SepcliError, match=r"x\.onnx: not a graph that sepcli export made"):
        open_runner(tmp_path / "x.onnx")


def test_a_graph_of_another_maker_is_refused(one, tmp_path):
    import onnx

    graph = onnx.load(one.with_suffix(".onnx"))
    onnx.helper.set_model_props(graph, {})
    onnx.save(graph, tmp_path / "x.onnx")
    with pytest.raises(SepcliError, match="not a graph that sepcli export made"):
        OnnxRunner(tmp_path / "x.onnx")
    onnx.helper.set_model_props(graph, {"sepcli": '{"format": 99}'})
    onnx.save(graph, tmp_path / "x.onnx")
    with pytest.raises(SepcliError, match="graph format 99, but this version reads 1"):
        OnnxRunner(tmp_path / "x.onnx")


@pytest.mark.parametrize("level", [1e-4, 1e-6])
def test_a_graph_is_right_for_soft_sound_too(tmp_path, level):
    """An optimiser that drops the floor of 1e-10 under a power changes it by 1 % and more."""
    torch.manual_seed(0)
    settings = {"window": 96, "hop": 32, "width": 8, "hidden": 12, "blocks": 3, "repeats": 1}
    model = randomise(build("spectral_tasnet", **settings))
    save(tmp_path / "m.safetensors", "spectral_tasnet", settings, model.state_dict(), {})
    exporting.export(tmp_path / "m.safetensors", tmp_path / "m.onnx")
    graph, x = (
        OnnxRunner(tmp_path / "m.onnx"),
        level * np.random.default_rng(0).standard_normal((1, 1, 640)),
    )
    y, _ = graph.step(x.astype(np.float32), graph.initial_state(1))
    expected, _ = model.double().step(torch.from_numpy(x), model.double().initial_state(1))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=0, atol=1e-4 * level)
