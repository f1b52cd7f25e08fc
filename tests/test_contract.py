"""What a model has to be, and that one written as the README says goes through every command."""

import json
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import sepcli
from sepcli import models
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.inference.blockwise import Method
from sepcli.inference.separate import Separator
from sepcli.models import modelfile
from sepcli.nn.causal import CausalModel, SpectralModel, conform
from sepcli.nn.model import Model, checked, expanded
from sepcli.nn.runner import TorchRunner
from sepcli.nn.spectral import OfflineSpectralModel
from sepcli.runs.runs import Run, resolve
from sepcli.training.settings import Settings

# As the README says: a plain module, and one that can run chunk by chunk.
PACKAGE = '''
import torch
from torch import nn

from sepcli.nn.causal import CausalModel


class Gains(nn.Module):
    """A gain for each source."""

    sample_rate, channels = 16000, 1

    def __init__(self, *, sources=("modulated", "sines"), gain=0.4):
        super().__init__()
        self.sources = tuple(sources)
        self.gains = nn.Parameter(torch.full((len(self.sources),), gain))

    def forward(self, x):
        return self.gains[:, None, None] * x[:, None]


class Filters(CausalModel):
    """A filter for each source."""

    sample_rate, channels, hop, delay = 16000, 1, 80, 16

    def __init__(self, *, sources=("modulated", "sines"), taps=33):
        super().__init__()
        self.sources = tuple(sources)
        self.conv = nn.Conv1d(1, len(self.sources), taps)

    def initial_state(self, batch=1):
        return self.conv.weight.new_zeros(batch, 1, self.conv.kernel_size[0] - 1)

    def step(self, x, past):
        x = torch.cat([past, x], -1)
        return self.conv(x).unsqueeze(2), x[..., x.shape[-1] - past.shape[-1] :]
'''
CONFIG = """
model: {{name: {name}}}
data:
  train: {{kind: toy, items: 4, duration_s: 0.25}}
  valid: {{kind: toy, items: 2, duration_s: 0.25}}
train: {{steps: 2, batch: 2, loss: {{l1: 1.0}}, log_every: 1}}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `own_models` with the two of them, in a folder on Python's path."""
    (tmp_path / "own_models.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_models", None)


def invoke(*args, code=0, **kwargs):
    result = CliRunner().invoke(main, list(map(str, args)), **kwargs)
    assert result.exit_code == code, result.output
    return result


def trained(folder, name):
    """The run folder of a model that `sepcli train` has trained."""
    config, run = folder / f"{name}.yaml", folder / f"run-{name}"
    config.write_text(CONFIG.format(name=name))
    invoke("train", config, "-o", run, "-q")
    return config, run


def test_a_plain_module_goes_through_every_command(package, monkeypatch):
    monkeypatch.setitem(models.MODELS, "gains", "own_models:Gains")
    config, run = trained(package, "gains")
    for name in (config, run):
        about = json.loads(invoke("info", name, "--json").stdout)
        assert (about["parameters"], about["causal"]) == (2, False)
    sepcli.write(package / "x.wav", np.zeros((2, 3000), np.float32), 44100)
    invoke("separate", "-m", run, package / "x.wav", "-o", package / "out")
    assert sepcli.read(package / "out" / "x" / "sines.wav")[0].shape == (2, 3000)
    invoke("export", run, "-o", package / "gains.onnx")
    invoke("separate", "-m", package / "gains.onnx", package / "x.wav", "-o", package / "graph")
    found, expected = (sepcli.read(package / x / "x" / "sines.wav")[0] for x in ("graph", "out"))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for command in (("quantize",), ("stream", "--latency", "-m")):
        result = invoke(*command, run, *(() if command[1:] else ("-o", package / "y")), code=1)
        assert "not causal" in result.stderr
        assert len(result.stderr.splitlines()) <= 2
    invoke("export-max78000", run, "--check")


def test_a_causal_model_goes_through_every_command(package, monkeypatch):
    monkeypatch.setitem(models.MODELS, "filters", "own_models:Filters")
    _, run = trained(package, "filters")
    assert json.loads(invoke("info", run, "--json").stdout)["latency_ms"] == 6.0
    sepcli.write(package / "x.wav", 0.1 * np.ones((1, 3000), np.float32), 16000)
    invoke("separate", "-m", run, package / "x.wav", "-o", package / "out")
    invoke("stream", "-m", run, "--verify", package / "x.wav")
    invoke("export", run, "-o", package / "filters.onnx")
    small = ("--calib-minutes", "0.01", "--items", "1", "--max-drop", "99", "--no-onnx", "-q")
    invoke("quantize", run, "-o", package / "int8.safetensors", *small)
    invoke("stream", "-m", package / "int8.safetensors", "--verify", package / "x.wav")
    assert "a tcn_max78000" in invoke("quantize", run, "--target", "max78000", code=1).stderr


def test_a_model_of_ones_own_is_trained_by_the_name_of_its_class(package, monkeypatch):
    config, run = trained(package, "own_models:Gains")
    assert json.loads(invoke("info", config, "--json").stdout)["model"] == "own_models:Gains"
    monkeypatch.setenv("SEPCLI_MODELS", "other=json:JSONDecoder, own_models:Gains")
    assert modelfile.load_model(run)[0].sources == ("modulated", "sines")
    monkeypatch.setenv("SEPCLI_MODELS", "gains=own_models:Gains")
    assert models.build("gains").sample_rate == 16000


def test_a_model_file_gets_no_code_imported(package):
    (package / "evil.py").write_text("raise SystemExit('imported')")
    path = package / "net.safetensors"
    modelfile.save(path, "evil:Net", {}, {"x": torch.zeros(1)}, {})
    for read in (modelfile.load_model, sepcli.load, sepcli.describe):
        with pytest.raises(SepcliError, match=r"'evil:Net'.* SEPCLI_MODELS=evil:Net"):
            read(path)
    sepcli.write(package / "x.wav", np.zeros((1, 300), np.float32), 16000)
    audio = package / "x.wav"
    for command in (
        ("separate", "-m", path, audio),
        ("stream", "-m", path, "--verify", audio),
        ("quantize", path),
        ("export", path),
        ("export-max78000", path, "--check"),
        ("info", path),
    ):
        assert "SEPCLI_MODELS=evil:Net" in invoke(*command, code=1).stderr
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere:Net", "model nowhere:Net: No module named 'nowhere'; check nowhere:Net"),
        ("own_models:Net", "has no attribute 'Net'"),
        ("own", "unknown model 'own'; choose from band_lstm, conv"),
    ],
)
def test_a_class_that_is_not_there_is_one_line(package, name, line):
    (package / "c.yaml").write_text(CONFIG.format(name=name))
    assert line in invoke("train", package / "c.yaml", code=1).stderr


def test_the_class_of_a_model_says_which_method_it_lacks():
    def made(base, **methods):
        return type("Net", (base,), methods)

    def method(self, *args):
        return args

    for base, methods, missing in (
        (Model, {}, "forward"),
        (CausalModel, {}, "initial_state and no step"),
        (CausalModel, {"step": method}, "initial_state"),
        (SpectralModel, {"core": method}, "core_state"),
        (OfflineSpectralModel, {}, "spectra"),
    ):
        with pytest.raises(SepcliError, match=f"Net has no {missing}; define it"):
            made(base, **methods)
    made(SpectralModel, core=method, core_state=method)
    with pytest.raises(SepcliError, match="Net has no forward"):
        conform(made(nn.Module))


class Fixed(Model):
    """Gives what it is told to."""

    sample_rate, sources, channels = 8000, ("a", "b"), 1

    def __init__(self, **facts):
        super().__init__()
        for name, value in facts.items():
            setattr(self, name, value)

    def forward(self, x):
        return x[:, None]


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"sample_rate": 0}, "Fixed.sample_rate is 0, but should be Hz, such as 16000"),
        ({"sample_rate": "8 kHz"}, "Fixed.sample_rate is '8 kHz'"),
        ({"sources": "speech"}, r"Fixed.sources is 'speech', but should be the names"),
        ({"sources": ("a", "a")}, r"Fixed.sources is \('a', 'a'\)"),
        ({"channels": True}, "Fixed.channels is True, but should be how many"),
        ({"hop": 0.5}, "Fixed.hop is 0.5, but should be samples"),
    ],
)
def test_what_a_model_says_of_itself_is_checked(facts, line):
    with pytest.raises(SepcliError, match=line):
        checked(Fixed(**facts))


def test_what_a_model_does_not_say_is_named():
    class Silent(CausalModel):
        sample_rate, sources, channels = 8000, ("a",), 1

        def initial_state(self, batch=1):
            return ()

        def step(self, x, state):
            return x[:, None], ()

    with pytest.raises(SepcliError, match="Silent has no delay; set it in __init__: samples by"):
        Separator(Silent())
    with pytest.raises(SepcliError, match=r"Linear is not a sepcli\.nn\.model\.Model"):
        Separator(nn.Linear(1, 1))


def test_an_output_of_another_shape_is_one_line():
    with pytest.raises(SepcliError, match=r"Fixed\.forward gave \(1, 1, 1, 50\), not \(batch, sou"):
        Separator(Fixed()).separate(np.zeros((1, 50), np.float32), 8000)


# --- Models with a condition


class Told(CausalModel):
    """Gives the mixture times the mean level of the reference, a sample late, from a first one."""

    sample_rate, sources, channels, hop, delay = 8000, ("speech",), 1, 10, 1

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.encoded = 0

    def condition(self, references):
        self.encoded += 1
        level = torch.stack([x.mean(-1) for x in references]).mean(0)  # (B, 1)
        return level, (self.gain * level,)

    def initial_state(self, batch=1, condition=None):
        return condition[0].reshape(batch, 1, 1)

    def step(self, x, past, condition):
        x = torch.cat([past, x], -1)
        return condition[1][0][:, :, None, None] * x[:, None, :, :-1], x[..., -1:]


class ToldLater(Told):
    """The same, not causal."""

    causal = False


@pytest.mark.parametrize("kind", [Told, ToldLater])
def test_a_condition_is_computed_once_and_used_by_every_way_to_run_a_model(kind):
    x = np.random.default_rng(0).standard_normal((2, 4000)).astype(np.float32)
    model = kind()
    references = [np.full((1, 50), 0.5, np.float32), np.full((2, 70), 1.5, np.float32)]
    found = Separator(model, method=Method(0.1)).given(references, 8000)
    np.testing.assert_allclose(found.separate(x, 8000)["speech"], x, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.separate(x, 8000)["speech"], x, rtol=0, atol=1e-6)
    if model.causal:
        stream = found.stream(8000, 2)
        y = np.concatenate([stream.push(x[:, :333]), stream.push(x[:, 333:]), stream.finish()], 1)
        np.testing.assert_allclose(y, x, rtol=0, atol=1e-6)
    assert model.encoded == 1
    assert model.conditioned
    assert not found.model.conditioned


def test_references_have_a_rate_of_their_own():
    low = np.full((1, 4410), 0.25, np.float32)
    found = Separator(Told()).given([low], 44100)
    y = found.separate(np.ones((1, 4000), np.float32), 8000)["speech"]
    np.testing.assert_allclose(y[:, 100:], 0.25, atol=0.01)


def test_a_conditioned_model_without_a_reference_is_one_line():
    for run in (TorchRunner, lambda model: Separator(model).separate(np.zeros((1, 9)), 8000)):
        for model in (Told(), ToldLater()):
            if run is TorchRunner and not model.causal:
                continue
            with pytest.raises(SepcliError, match="needs a reference of what to find"):
                run(model)
    with pytest.raises(SepcliError, match="takes no reference; choose another model"):
        Separator(Fixed()).given([np.zeros((1, 9), np.float32)], 8000)


def test_a_condition_is_for_as_many_as_there_are():
    condition = torch.arange(2.0)[None], (torch.ones(1, 3, 4), torch.ones(5, 1))
    one, (two, three) = expanded(condition, 5)
    assert [x.shape for x in (one, two, three)] == [(5, 2), (5, 3, 4), (5, 1)]


def test_a_conditioned_model_learns_from_enrolments(package, monkeypatch):
    (package / "told.py").write_text(
        "from tests.test_contract import Told\n\n\nclass Net(Told):\n    sample_rate = 16000\n"
    )
    for speaker in "abcd":
        for number in range(2):
            noise = 0.1 * np.random.default_rng(number).standard_normal((1, 16000))
            path = package / "speech" / speaker / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sepcli.write(path, noise.astype(np.float32), 16000)
    speakers = {"kind": "speakers", "speech": [str(package / "speech")], "duration_s": 0.3}
    speakers |= {"enroll_s": 0.5, "items": 2}
    config = resolve(
        {
            "model": {"name": "told:Net"},
            "data": {"train": speakers, "valid": speakers},
            "train": {"steps": 1, "batch": 2, "loss": {"l1": 1.0}},
        }
    )
    (package / "run").mkdir()
    run = Run(package / "run", config)
    before = run.model.gain.item()
    assert [record["event"] for record in run.records()][-1] == "valid"
    assert run.model.gain.item() != before
    assert Settings(**config["train"]).batch == 2
