"""Graphs for whole signals and for models with references: the same as torch, and without torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sepcli.audio import read, write
from sepcli.cli import main
from sepcli.dsp import stft
from sepcli.errors import SepcliError
from sepcli.graphs import export as exporting
from sepcli.graphs.onnx import OnnxRunner
from sepcli.graphs.tracing import to_onnx
from sepcli.inference.blockwise import Method
from sepcli.inference.live import open_runner
from sepcli.inference.loading import load
from sepcli.inference.stream import Stream
from sepcli.models import MODELS, build
from sepcli.models.modelfile import digest, save
from sepcli.nn.causal import CausalModel
from sepcli.nn.filterbank import Stft
from sepcli.nn.runner import TorchRunner
from sepcli.nn.spectral import CentredStft
from tests.models import SMALLEST, randomise
from tests.separators import assert_alike


class Listens(CausalModel):
    """The level of the reference is a gain, its last sample the state to begin with."""

    sample_rate, channels, hop, delay = 8000, 1, 4, 0

    def __init__(self, *, sources=("speech",)):
        super().__init__()
        self.sources = tuple(sources)
        self.gain = torch.nn.Parameter(torch.tensor(2.0))

    def condition(self, references):
        x = torch.cat(references, -1)
        return x.abs().mean((1, 2)), (x[:, :, -1],)

    def resemblance(self, x, condition):
        return (x.abs().mean((1, 2)) - condition[0]).sigmoid()

    def initial_state(self, batch=1, *condition):
        return condition[0][1][0].expand(batch, 1)

    def step(self, x, past, condition):
        y = x * (self.gain * condition[0])[:, None, None] + past[..., None]
        return y[:, None], 0.5 * past + x[..., -1]


def noise(*shape, level=0.1, seed=0):
    return np.float32(level) * np.random.default_rng(seed).standard_normal(shape, np.float32)


def make(path, name, settings=None):
    """Write a small random model of that name."""
    settings = SMALLEST[name] if settings is None else settings
    torch.manual_seed(0)
    model = randomise(build(name, **settings))
    save(path, name, settings, model.state_dict(), {"licence": "MIT"})
    return path


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """A folder of models and their graphs: whole.onnx, for whole signals, and listens.onnx."""
    folder = tmp_path_factory.mktemp("graphs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "listens", f"{__name__}:Listens")
        for stem, name in (("whole", "open_unmix"), ("listens", "listens")):
            path = make(folder / f"{stem}.safetensors", name, {} if stem == "listens" else None)
            exporting.export(path, path.with_suffix(".onnx"))
        yield folder


@pytest.mark.parametrize("size", [1, 20, 64, 1000, 3333])
@pytest.mark.parametrize(("window", "n_fft"), [(64, None), (48, 64)])
def test_the_centred_transform_without_torch_is_that_of_the_models(size, window, n_fft):
    ours = CentredStft(window, 16, n_fft=n_fft)
    numpy = stft.CentredStft(ours.window.numpy(), 16)
    x = noise(2, 3, size)
    spectrum = ours.analyse(torch.from_numpy(x))
    parts = numpy.analyse(x)
    assert parts.dtype == np.float32
    expected = torch.view_as_real(spectrum).movedim(-1, 2)
    np.testing.assert_allclose(parts, expected, rtol=0, atol=1e-6)
    y = numpy.synthesise(parts, size)
    np.testing.assert_allclose(y, ours.synthesise(spectrum, size), rtol=0, atol=1e-6)


def test_graphs_of_deep_unets_are_for_any_length_and_graphs_filter_as_models_do(tmp_path):
    path = make(tmp_path / "m.safetensors", "deep_unet")
    assert exporting.export(path, tmp_path / "m.onnx")["length_s"] is None
    method = Method(wiener=2)
    assert_alike(load(path, "cpu", method), load(tmp_path / "m.onnx", "cpu", method), None)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_graph_for_whole_signals_equals_the_model(name, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "FIXED_S", 0.05)
    path = make(tmp_path / "m.safetensors", name)
    record = exporting.export(path, tmp_path / "m.onnx", offline=True)
    assert record["kind"] == "offline"
    assert record["max_difference"] < 1e-5
    theirs, ours = load(path), load(tmp_path / "m.onnx")
    assert (ours.sources, ours.sample_rate) == (theirs.sources, theirs.sample_rate)
    assert_alike(theirs, ours, record["length_s"])


def test_the_streaming_graph_of_an_extractor_equals_the_model(tmp_path):
    path = make(tmp_path / "m.safetensors", "speaker_lstm")
    write(tmp_path / "ref.wav", noise(1, 16000, seed=1), 16000)
    exporting.export(path, tmp_path / "m.onnx")
    audio = noise(1, 5001)
    streams = [
        Stream(open_runner(path, engine, [tmp_path / "ref.wav"])) for engine in ("torch", "onnx")
    ]
    a, b = (np.concatenate([each.push(audio), each.finish()], 1) for each in streams)
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-4)


def test_lstms_of_a_graph_are_those_of_torch():
    import onnxruntime

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.deep = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
            self.first = torch.nn.LSTM(8, 5, batch_first=True, bias=False)

        def forward(self, x, past):
            y, (h, c) = self.deep(x)
            z, (last, _) = self.first(y.transpose(0, 1), (past, 2 * past))
            return z, h, c, last

    torch.manual_seed(0)
    both = Both().eval()
    outputs = ["z", "h", "c", "last"]
    inputs = torch.randn(7, 2, 3), torch.randn(1, 2, 5)
    made = to_onnx(both, inputs, [(0, 1), (1,)], (["x", "past"], outputs))
    session = onnxruntime.InferenceSession(made.SerializeToString())
    x, past = torch.randn(20, 3, 3), torch.randn(1, 3, 5)
    found = session.run(None, {"x": x.numpy(), "past": past.numpy()})
    for ours, theirs in zip(found, both(x, past), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-6)


def test_grus_of_a_graph_are_those_of_torch():
    import onnxruntime

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.deep = torch.nn.GRU(3, 4, num_layers=2, bidirectional=True)
            self.first = torch.nn.GRU(8, 5, batch_first=True, bias=False)

        def forward(self, x, past):
            y, h = self.deep(x)
            z, last = self.first(y.transpose(0, 1), past)
            return z, h, last

    torch.manual_seed(0)
    both = Both().eval()
    inputs = torch.randn(7, 2, 3), torch.randn(1, 2, 5)
    made = to_onnx(both, inputs, [(0, 1), (1,)], (["x", "past"], ["z", "h", "last"]))
    session = onnxruntime.InferenceSession(made.SerializeToString())
    x, past = torch.randn(20, 3, 3), torch.randn(1, 3, 5)
    found = session.run(None, {"x": x.numpy(), "past": past.numpy()})
    for ours, theirs in zip(found, both(x, past), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-6)


def test_a_graph_separates_any_length_and_rate_as_its_model_does(graphs):
    method = Method(segment_s=0.05)
    theirs, ours = (
        load(graphs / f"whole{end}", "cpu", method) for end in (".safetensors", ".onnx")
    )
    for rate, channels in ((44100, 2), (22050, 1)):
        audio = noise(channels, 12345)
        expected = theirs.only(["accompaniment"]).separate(audio, rate)
        found = ours.only(["accompaniment"]).separate(audio, rate)
        assert found.keys() == expected.keys()
        difference = np.abs(found["accompaniment"] - expected["accompaniment"]).max()
        assert difference < 1e-4


def test_a_graph_of_one_length_runs_on_any(tmp_path, graphs):
    record = exporting.export(graphs / "whole.safetensors", tmp_path / "w.onnx", length_s=0.03)
    assert record["length_s"] == pytest.approx(0.03, abs=0.001)
    ours, audio = load(tmp_path / "w.onnx"), noise(2, 5000)
    length = round(record["length_s"] * 44100)
    expected = load(graphs / "whole.safetensors").separate(audio[:, :length], 44100)
    for source, y in ours.separate(audio[:, :length], 44100).items():
        np.testing.assert_allclose(y, expected[source], rtol=0, atol=1e-4)
    for frames in (1, 100, 1999, 5000):
        y = ours.separate(audio[:, :frames], 44100)
        np.testing.assert_allclose(sum(y.values()), audio[:, :frames], rtol=0, atol=1e-5)


def test_a_condition_begins_with_what_was_heard(graphs, tmp_path):
    write(tmp_path / "ref.wav", noise(1, 4100, level=0.2, seed=3), 8000)
    audio = noise(2, 803)
    runners = [
        open_runner(graphs / "listens.safetensors", engine, [tmp_path / "ref.wav"])
        for engine in ("torch", "onnx")
    ]
    assert [type(each) for each in runners] == [TorchRunner, OnnxRunner]
    a, b = (np.concatenate([s.push(audio), s.finish()], 1) for s in (Stream(r, 2) for r in runners))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-6)
    assert np.abs(a[:, 0]).max() > 0


def test_a_graph_needs_its_reference_and_the_graph_of_the_condition(graphs, tmp_path):
    with pytest.raises(SepcliError, match=r"listens\.onnx: needs a reference of what to find"):
        load(graphs / "listens.onnx").separate(noise(1, 80), 8000)
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((graphs / "listens.onnx").read_bytes())
    with pytest.raises(SepcliError, match=r"alone\.condition\.onnx: missing"):
        load(alone).given([noise(1, 80)], 8000)
    with pytest.raises(SepcliError, match="the graph of a condition alone"):
        OnnxRunner(graphs / "listens.condition.onnx")
    with pytest.raises(SepcliError, match="a graph for whole signals; name a streaming graph"):
        open_runner(graphs / "whole.onnx")
    with pytest.raises(SepcliError, match="takes no reference"):
        load(graphs / "whole.onnx").given([noise(1, 80)], 8000)
    with pytest.raises(SepcliError, match="Griffin-Lim and vocoders need the model"):
        load(graphs / "whole.onnx", "cpu", Method(griffin_lim=1))
    with pytest.raises(SepcliError, match="estimates no spectra for a Wiener filter"):
        load(graphs / "listens.onnx", "cpu", Method(wiener=1))
    with pytest.raises(SepcliError, match="not available to ONNX Runtime"):
        load(graphs / "whole.onnx", "cuda")


def test_graphs_are_run_where_torch_is_not_installed(graphs, tmp_path):
    write(tmp_path / "mix.wav", noise(2, 9000), 44100)
    turns = 2 * np.pi * 150 * np.arange(8000, dtype=np.float32) / 8000
    voiced = sum(np.sin(k * turns) / k for k in range(1, 12))[None]
    write(tmp_path / "ref.wav", 0.2 * voiced, 8000)
    code = (
        "import json, sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'tensorboard', 'h5py', 'pystoi']))\n"
        "from sepcli.cli import main\n"
        "for args in json.loads(sys.argv[1]): main(args, standalone_mode=False)\n"
    )
    mix, out = str(tmp_path / "mix.wav"), tmp_path / "out"
    whole, listens = str(graphs / "whole.onnx"), str(graphs / "listens.onnx")
    commands = [
        ["separate", "-m", whole, mix, "--residual", "--threads", "1", "-o", str(out)],
        ["extract", "-m", listens, "--ref", str(tmp_path / "ref.wav"), mix, "-o", str(out / "e")],
        ["separate", "-m", "denoise", mix, "--target", "speech", "-o", str(out / "clean.wav")],
        ["stream", "-m", listens, "--ref", str(tmp_path / "ref.wav"), "--latency", "--json"],
    ]
    commands[1] += ["--json", "--confusion-check"]
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert told[-1]["engine"] == "onnx"
    args = [*commands[1][:2], str(graphs / "listens.safetensors"), *commands[1][3:], "--overwrite"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "listens", f"{__name__}:Listens")
        by_torch = json.loads(CliRunner().invoke(main, args).stdout)
    assert told[0]["presence"] == pytest.approx(by_torch["presence"], abs=1e-3)
    assert 0 < told[0]["presence"] < 1
    assert read(out / "clean.wav")[0].shape == (2, 9000)
    y, rate = read(out / "mix" / "vocals.wav")
    expected = load(graphs / "whole.safetensors").separate(read(mix)[0], rate)["vocals"]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)
    assert (out / "e" / "mix" / "speech.wav").is_file() or list(out.glob("e*"))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"kind": "streaming", "states": 3}, "7 bytes, 3 states, within 1e-07"),
        ({"kind": "offline", "length_s": None}, "for signals of any length"),
        ({"kind": "offline", "length_s": 9.99982}, "for signals of 10 s"),
    ],
)
def test_the_command_says_what_kind_of_graph_it_wrote(graphs, tmp_path, monkeypatch, record, words):
    asked = {}

    def export(name, path, **choices):
        asked.update(choices)
        return {"bytes": 7, "max_difference": 1e-7, **record}

    monkeypatch.setattr(exporting, "export", export)
    args = [str(graphs / "whole.safetensors"), "-o", str(tmp_path), "--offline", "--length", "0.5"]
    result = CliRunner().invoke(main, ["export", *args])
    assert result.exit_code == 0, result.stderr
    assert words in result.stdout
    assert str(tmp_path / "whole.onnx") in result.stdout
    assert asked == {"offline": True, "length_s": 0.5}


def test_info_shows_the_cards_of_graphs(graphs):
    run = lambda *args: CliRunner().invoke(main, ["info", *map(str, args)])  # noqa: E731
    about = json.loads(run(graphs / "listens.onnx", "--json").stdout)
    facts = [about[key] for key in ("model", "kind", "licence", "latency_ms", "conditioned")]
    assert facts == ["listens", "streaming", "MIT", 0.5, True]
    assert about["companions"] == ["listens.condition.onnx", "listens.resemblance.onnx"]
    assert about["weights_sha256"] == digest(graphs / "listens.safetensors")
    lines = run(graphs / "whole.onnx").stdout.splitlines()
    assert ["licence", "MIT"] in [line.split() for line in lines]
    assert run(graphs / "none.onnx").exit_code == 1


def test_the_card_is_inside(graphs):
    import onnxruntime

    for name in ("whole.onnx", "listens.onnx", "listens.condition.onnx"):
        session = onnxruntime.InferenceSession(graphs / name)
        about = json.loads(session.get_modelmeta().custom_metadata_map["sepcli"])
        assert about["card"] == {"licence": "MIT"}
        assert "hop" in about


def test_real_parts_know_the_transform_of_causal_models():
    from sepcli.graphs.realparts import RealParts

    class Round(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stft = Stft(64, 16)

        def forward(self, x):
            tail = x.new_zeros(len(x), 48)
            y, _ = self.stft.synthesise(self.stft.analyse(x, tail)[0] * 1j * -1j, tail)
            return y

    x = torch.randn(2, 160)
    program = torch.export.export(Round(), (x,))
    np.testing.assert_allclose(RealParts(program)(x), Round()(x), rtol=0, atol=1e-5)
