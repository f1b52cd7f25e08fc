"""Models of Demucs: as the package itself computes them, from files that never run code."""

import hashlib
import inspect
import io
import json
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from demucs import demucs, hdemucs, hf, htdemucs, repo
from demucs.apply import apply_model
from safetensors.torch import save_file

from sepcli.audio import read, write
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.inference.blockwise import Method
from sepcli.inference.loading import load
from sepcli.models.weights import demucs as ours

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of the package's own networks

SOURCES = ["drums", "vocals"]
RATE = 8000
LAYOUTS = {
    "Demucs": (
        demucs.Demucs,
        {"channels": 8, "depth": 2, "norm_starts": 1, "dconv_attn": 1, "dconv_lstm": 1},
    ),
    "HDemucs": (
        hdemucs.HDemucs,
        {"channels": 8, "depth": 3, "nfft": 256, "norm_starts": 2, "dconv_attn": 2},
    ),
    "HTDemucs": (
        htdemucs.HTDemucs,
        {"channels": 8, "depth": 2, "nfft": 256, "dconv_comp": 4, "bottom_channels": 8}
        | {"t_layers": 2, "t_heads": 2, "t_hidden_scale": 1.0, "use_train_segment": True},
    ),
}
SEGMENT = Fraction(1, 4)


def network(layout, seed=0, **settings):
    """(The package's network with small random weights, its settings)."""
    klass, given = LAYOUTS[layout]
    settings = {"sources": SOURCES, "samplerate": RATE, "segment": SEGMENT} | given | settings
    torch.manual_seed(seed)
    return klass(**settings).eval(), settings


def package(net, settings, **other):
    """What a file .th holds, as the package's own `states.serialize_model` leaves it."""
    half = {key: value.half() for key, value in net.state_dict().items()}
    net.load_state_dict({key: value.float() for key, value in half.items()})
    about = {"klass": type(net), "args": (), "kwargs": settings, "state": half}
    return about | {"training_args": {"epochs": 3}} | other


def save_th(path, net, settings, **other):
    """Write a .th file named after its digits; return it."""
    data = io.BytesIO()
    torch.save(package(net, settings, **other), data)
    digits = hashlib.sha256(data.getvalue()).hexdigest()[:8]
    path = path.with_name(f"{path.name}-{digits}.th")
    path.write_bytes(data.getvalue())
    return path


def encoded(value):
    if isinstance(value, Fraction):
        return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
    raise TypeError(value)


def save_tensors(path, net, settings, **other):
    """Write a .safetensors file as the package's own tool does for its hub."""
    klass = f"{type(net).__module__}.{type(net).__name__}"
    about = {"klass": klass, "args": "[]", "kwargs": json.dumps(settings, default=encoded)}
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_file(state, path, about | other)
    return path


def bag(folder, layouts, weights=None, segment=None, save=save_th):
    """Write a bag and its models; return its file."""
    names = []
    for seed, layout in enumerate(layouts):
        names.append(f"{seed:08x}")
        end = ".safetensors" if save is save_tensors else ""
        save(folder / f"{names[-1]}{end}", *network(layout, seed))
    about = {"models": names, "weights": weights, "segment": segment}
    (folder / "bag.yaml").write_text(yaml.dump({k: v for k, v in about.items() if v is not None}))
    return folder / "bag.yaml"


def noise(channels, length, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, length), np.float32)


def of_the_package(model, audio, **choices):
    """The sources (S, C, T) by the package's own way to run a model on one segment."""
    return apply_model(model, torch.from_numpy(audio)[None], shifts=0, **choices)[0].numpy()


def invoke(*args, **choices):
    return CliRunner().invoke(main, list(map(str, args)), **choices)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("length", [2000, 1999, 700, 1])
def test_the_estimates_of_a_pickle_are_those_of_the_package(tmp_path, layout, length):
    net, settings = network(layout)
    path = save_th(tmp_path / "955717e8", net, settings)
    theirs = repo.LocalRepo(tmp_path).get_model("955717e8").eval()
    audio = noise(2, length)
    found = load(path).separate(audio, RATE)
    assert list(found) == SOURCES
    if length == 1 and layout == "HDemucs":  # theirs is not a number then
        assert np.isfinite(list(found.values())).all()
        return
    expected = of_the_package(theirs, audio, split=False)
    np.testing.assert_allclose(list(found.values()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_estimates_of_safetensors_are_those_of_the_package(tmp_path, layout):
    path = save_tensors(tmp_path / "m.safetensors", *network(layout))
    theirs = hf.load_safetensors_model(path).eval()
    audio = noise(2, 2000)
    found = load(path).separate(audio, RATE)
    expected = of_the_package(theirs, audio, split=False)
    np.testing.assert_allclose(list(found.values()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("save", [save_th, save_tensors])
@pytest.mark.parametrize("weights", [None, [[1, 0.5], [0, 1], [1, 0]]])
def test_the_estimates_of_a_bag_are_those_of_the_package(tmp_path, save, weights):
    path = bag(tmp_path, LAYOUTS, weights, 0.2, save)
    if save is save_th:
        local = repo.LocalRepo(tmp_path)
        theirs = repo.BagOnlyRepo(tmp_path, local).get_model("bag")
    else:
        files = sorted(tmp_path.glob("*.safetensors"))
        theirs = repo.BagOfModels([hf.load_safetensors_model(f) for f in files], weights, 0.2)
    audio = noise(2, 1600)
    expected = of_the_package(theirs.eval(), audio, split=False)
    for name in (path, tmp_path):
        found = load(name).separate(audio, RATE)
        np.testing.assert_allclose(list(found.values()), expected, rtol=0, atol=1e-6)


def test_only_the_networks_that_a_source_needs_are_run(tmp_path):
    path = bag(tmp_path, ["Demucs", "Demucs"], [[1, 0], [0, 1]])
    separator, audio = load(path), noise(2, 3000)
    chosen = separator.only(["vocals"])
    assert len(separator.model.nets) == 2
    assert len(chosen.model.nets) == 1
    found, everything = (each.separate(audio, RATE) for each in (chosen, separator))
    np.testing.assert_array_equal(found["vocals"], everything["vocals"])


def test_long_audio_is_run_on_segments_of_at_most_what_the_model_was_made_for(tmp_path):
    """So a longer --segment gives the same, and memory is that of one segment."""
    path = save_th(tmp_path / "a", *network("HTDemucs"))
    audio = noise(2, 9000)
    found = load(path).separate(audio, RATE)
    longer = load(path, "cpu", Method(segment_s=3.0)).separate(audio, RATE)
    for source, y in found.items():
        assert y.shape == (2, 9000)
        np.testing.assert_array_equal(longer[source], y)
    lengths = []
    separator = load(path)
    run = separator.model.nets[0].forward
    separator.model.nets[0].forward = lambda x: lengths.append(x.shape[-1]) or run(x)
    separator.separate(audio, RATE)
    assert set(lengths) == {2000}
    assert len(lengths) >= 5


def test_a_bag_separates_files_and_pipes_as_any_model_and_info_says_its_licence(tmp_path):
    path = bag(tmp_path, ["HTDemucs", "Demucs"])
    song = noise(1, 20_000)
    write(tmp_path / "song.wav", song, 22050)
    args = ("separate", "-m", path, tmp_path / "song.wav", "--residual", "-o", tmp_path / "out")
    result = invoke(*args)
    assert result.exit_code == 0, result.stderr
    stems = [read(tmp_path / "out/song" / f"{n}.wav")[0] for n in (*SOURCES, "residual")]
    np.testing.assert_allclose(sum(stems), song, rtol=0, atol=1e-6)
    piped = invoke(
        "separate", "-m", path, "--target", "vocals", "-",
        input=(tmp_path / "song.wav").read_bytes(),
    )  # fmt: skip
    assert piped.exit_code == 0, piped.stderr
    y, rate = read(io.BytesIO(piped.stdout_bytes))
    assert rate == 22050
    np.testing.assert_allclose(y, stems[1], rtol=0, atol=1e-6)
    about = json.loads(invoke("info", path, "--json").stdout)
    assert (about["licence"], about["sources"], about["model"]) == ("not stated", SOURCES, "demucs")
    assert about["bytes"] == sum(file.stat().st_size for file in tmp_path.glob("*.th"))
    assert [each["klass"] for each in about["settings"]["models"]] == ["HTDemucs", "Demucs"]
    assert "licence" in invoke("info", path).stdout


class Evil:
    """What runs code where a file is unpickled as Python does it."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


ATTACKS = {
    "a call": {"training_args": Evil(print, ("run",))},
    "another class": {"klass": print},
    "an object of an allowed class": {"args": Evil(demucs.Demucs, (["a"],))},
    "a fraction that takes for ever": {"args": (Evil(Fraction, ("1e999999999",)),)},
    "an attribute": {"state": Evil(getattr, ("x", "upper"))},
    "no class": {"klass": "demucs.demucs.Demucs"},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_runs_code_is_refused_in_one_line(tmp_path, attack, capsys):
    torch.save(package(*network("Demucs"), **ATTACKS[attack]), tmp_path / "m.th")
    with pytest.raises(SepcliError, match=r"m\.th: not a model of Demucs \(") as error:
        load(tmp_path / "m.th")
    assert "\n" not in str(error.value)
    assert "run" not in capsys.readouterr().out


def test_a_plain_pickle_and_other_bytes_are_refused(tmp_path, capsys):
    for content in (pickle.dumps(Evil(print, ("run",))), b"", b"PK\3\4", b"\x80\x02."):
        (tmp_path / "m.th").write_bytes(content)
        result = invoke("info", tmp_path / "m.th")
        assert result.exit_code == 1
        assert "m.th: not a model of Demucs (" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert "run" not in capsys.readouterr().out


def test_a_class_that_is_not_on_the_list_is_not_imported(tmp_path):
    net, settings = network("Demucs")
    path = save_tensors(tmp_path / "m.safetensors", net, settings, klass="antigravity.fly")
    with pytest.raises(
        SepcliError, match=r"antigravity\.fly is not a model of Demucs; only demucs"
    ):
        load(path)
    save_tensors(path, net, settings, klass="demucs.model.Demucs")
    with pytest.raises(SepcliError, match="is of an old version of Demucs"):
        load(path)
    save_tensors(path, net, settings, structure="{}")
    with pytest.raises(SepcliError, match="quantised by DiffQ, which is not read"):
        load(path)


def test_sources_whose_names_lead_elsewhere_are_refused(tmp_path):
    for name in ("../x", "/x", "", "."):
        path = save_th(tmp_path / "a", *network("Demucs", sources=["vocals", name]))
        with pytest.raises(SepcliError, match="sources is "):
            load(path)
        path.unlink()


def test_what_does_not_belong_together_is_one_line(tmp_path):
    net, settings = network("Demucs")
    path = save_th(tmp_path / "a", net, {**settings, "channels": 4})
    with pytest.raises(SepcliError, match="not a model that demucs can run"):
        load(path)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(SepcliError, match=r"damaged, its SHA-256 begins with \w{8}, not \w{8}"):
        load(path)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"models": ["x"]}, "needs x.safetensors or x-DIGITS.th beside it, and there are none"),
        ({"models": ["../x"]}, "not the name of a model beside it: '../x'"),
        ({"models": ["a"], "weights": [[1, 1], [1, 1]]}, "weights: a list of numbers"),
        ({"models": ["a"], "weights": [[1, 0]]}, "none without any model"),
        ({"models": ["a"], "weights": 3}, "not a bag of Demucs"),
        ({"models": ["a"], "segment": 0}, "segment: 0"),
        ({"models": []}, "models: none"),
        ({"models": ["a", "b"]}, "the models differ in sources, sample rate or channels"),
    ],
)
def test_a_bag_that_is_wrong_is_one_line(tmp_path, about, words):
    save_th(tmp_path / "a", *network("Demucs"))
    save_th(tmp_path / "b", *network("Demucs", sources=["vocals", "drums"]))
    (tmp_path / "bag.yaml").write_text(yaml.dump(about))
    with pytest.raises(SepcliError, match=words.replace("'", ".")) as error:
        load(tmp_path / "bag.yaml")
    assert str(error.value).startswith(str(tmp_path / "bag.yaml"))


def test_the_classes_that_a_file_may_name_are_those_of_the_package():
    for name in ours.KLASSES:
        module, _, cls = name.rpartition(".")
        assert inspect.isclass(getattr({"demucs.demucs": demucs, "demucs.hdemucs": hdemucs,
                                        "demucs.htdemucs": htdemucs}[module], cls))  # fmt: skip
