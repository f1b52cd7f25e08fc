"""Model files, graphs, packs, reports and settings that others made, to break what reads them."""

import io
import json

import h5py
import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner

from sepcli import audio, config
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.inference.loading import load
from sepcli.models import build, modelfile
from sepcli.runs import runs
from sepcli.samples.pack import Pack
from sepcli.samples.streams import read_samples
from sepcli.scoring import report
from tests.separators import noise
from tests.torture import material, sealed

# Graphs


def graph_that_says(path, like="streaming", **changed):
    """A graph with other metadata."""
    graph = onnx.load_from_string(material.graphs()[f"{like}.onnx"])
    entry = next(each for each in graph.metadata_props if each.key == "sepcli")
    entry.value = json.dumps({**json.loads(entry.value), **changed})
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["streaming", "offline", "spectral"])
@pytest.mark.parametrize(
    "changed",
    [
        {"sources": ["../../etc/cron.d/x"]}, {"sources": []}, {"sources": "speech"},
        {"sources": ["a", "a"]}, {"sample_rate": None}, {"sample_rate": 0}, {"sample_rate": 1e9},
        {"hop": 0}, {"hop": 2**40}, {"delay": -1}, {"delay": 0.5}, {"channels": 65}, {"kind": "x"},
        {"kind": []}, {"states": 3}, {"states": [[2**24, 2**24]]}, {"states": [[-1]]},
        {"length": 3}, {"length": 0}, {"stft": 5}, {"stft": {"window": [1.0], "stride": 1}},
        {"states": [[1] * 100]},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_graph_that_says_nonsense_of_itself_is_refused(tmp_path, kind, changed):
    with pytest.raises(SepcliError, match=r"x\.onnx: .*; make it again$") as caught:
        load(graph_that_says(tmp_path / "x.onnx", kind, **changed), threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hop", [3, 7, 8])
def test_a_graph_of_spectra_whose_hop_is_not_that_of_its_transform_is_refused(tmp_path, hop):
    with pytest.raises(SepcliError, match=r"x\.onnx: .*\(hop is \d\); make it again$"):
        load(graph_that_says(tmp_path / "x.onnx", "spectral", hop=hop), threads=1)


def test_a_graph_that_cannot_be_run_is_one_line(tmp_path, capfd):
    for states in ([[1, 100]], []):
        separator = load(graph_that_says(tmp_path / "x.onnx", states=states), threads=1)
        with pytest.raises(SepcliError, match=r"x\.onnx: not a graph that sepcli export made"):
            separator.separate(noise(1, 400), material.RATE)
    assert capfd.readouterr() == ("", "")


def test_a_healthy_graph_is_run(tmp_path):
    for kind in ("streaming", "offline", "fixed", "spectral"):
        separator = load(graph_that_says(tmp_path / "x.onnx", kind), threads=1)
        assert separator.separate(noise(1, 400), material.RATE)["speech"].shape == (1, 400)


# Model files


def model_that_says(path, about=None, **settings):
    """A model file of small weights with other settings, or saying something else at all."""
    data = material.models()["0.safetensors"]
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    told = json.loads(header["__metadata__"]["sepcli"])
    told["settings"] |= settings
    header["__metadata__"]["sepcli"] = json.dumps({**told, **(about or {})})
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": 10**6}, {"filters": 10**6}, {"kernel": 10**6}, {"blocks": 10**6},
        {"repeats": 10**6}, {"bottleneck": 10**30}, {"hidden": -1}, {"hidden": 0}, {"hidden": "x"},
        {"kernel": 0}, {"sources": ["../x"]}, {"sources": [[]]}, {"unheard_of": 1},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_settings_of_another_model_are_refused_before_they_take_memory(tmp_path, settings):
    path = model_that_says(tmp_path / "x.safetensors", **settings)
    before = resident()
    with pytest.raises(SepcliError) as caught:
        modelfile.load_model(path)
    assert "\n" not in str(caught.value)
    assert resident() - before < 300e6


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize(
    "about",
    [
        {"card": []}, {"card": {"train": 3}}, {"card": {"licence": ["MIT"]}}, {"settings": []},
        {"card": {"quantized": {}}}, {"card": {"quantized": "cpu"}}, {"model": ["conv_tasnet"]},
        {"card": {"quantized": {"target": 5}}}, {"format": {}},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_card_of_other_kinds_is_no_card(tmp_path, about):
    path = model_that_says(tmp_path / "x.safetensors", about)
    with pytest.raises(SepcliError, match=r"x\.safetensors: (weights without|model format)"):
        modelfile.read_card(path)


# Packs


def pack_with(path, change, name="int16.h5"):
    """A pack that `change` made another, with the seal that it should have."""
    stream = io.BytesIO(material.packs()[name])
    with h5py.File(stream, "r+") as file:
        change(file)
    path.write_bytes(sealed.resealed(stream.getvalue(), material.packs()[name]))
    return path


def put(column, values):
    return lambda file: file["speech/some"][column].__setitem__(slice(None), values)


def replace(column, values):
    def change(file):
        del file["speech/some"][column]
        if values is not None:
            file["speech/some"][column] = values

    return change


def say(name, value):
    return lambda file: file["speech/some"].attrs.__setitem__(name, value)


CHANGES = {
    "70,000 channels": put("channels", 70_000),
    "no channel": put("channels", 0),
    "longer than it is": put("lengths", 2**40),
    "more of it than there is": put("sizes", 2**60),
    "before its begin": put("offsets", -1),
    "no names": replace("names", None),
    "names that are numbers": replace("names", np.arange(2)),
    "one name": replace("names", np.array([b"x"])),
    "a number as column": replace("sizes", 5),
    "a column elsewhere": replace("names", h5py.ExternalLink("/etc/passwd", "x")),
    "a column that is a link": replace("names", h5py.SoftLink("/speech/some/speakers")),
    "no checksums": replace("blocks", np.zeros(0, np.uint32)),
    "an unknown dtype": say("dtype", "x"),
    "another dtype": say("dtype", "float32"),
    "a sample rate that is text": say("sample_rate", "x"),
    "a sample rate of 0": say("sample_rate", 0),
    "a sample rate of 2 GHz": say("sample_rate", 2**31),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_pack_whose_index_makes_no_sense_is_refused(tmp_path, case):
    path = pack_with(tmp_path / "x.h5", CHANGES[case])
    with pytest.raises(SepcliError, match=r"x\.h5: its index is damaged \(.*; copy it again, or"):
        list(read_samples(path))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"5", b"{}", b'{"bytes": 1}', b"\xff", b"[" * 200, b'{"bytes": 1, "pcm": [1]}'],
)
def test_a_seal_that_says_nonsense_is_refused(tmp_path, text):
    (tmp_path / "x.h5").write_bytes(sealed.with_seal(material.packs()["int16.h5"], text))
    with pytest.raises(SepcliError, match=r"x\.h5: (its seal|cut off|longer|damaged)"):
        Pack(tmp_path / "x.h5")


# Settings, reports


@pytest.mark.parametrize("value", ["[1]", "{a: 1}", "[[]]", "5", "null"])
@pytest.mark.parametrize("name", ["model.name", "data.train.kind", "train.loss"])
def test_a_name_in_settings_that_is_none_is_refused(tmp_path, name, value):
    (tmp_path / "x.yaml").write_bytes(material.configs()["0.yaml"])
    settings = config.load(tmp_path / "x.yaml", [f"{name}={value}"])
    with pytest.raises(SepcliError):
        runs.resolve(settings)


@pytest.mark.parametrize("key", [5, None, [], {}, 1.5])
def test_a_report_whose_keys_are_no_text_is_none(tmp_path, key):
    items = [{"key": key, "target": "speech"}]
    (tmp_path / "x.json").write_text(json.dumps({"items": items}))
    with pytest.raises(SepcliError, match=r"x\.json: not a report"):
        report.load(tmp_path / "x.json")


# What a run that was killed left of an item


def test_stems_that_are_missing_are_made_and_the_others_stay(tmp_path):
    audio.write(tmp_path / "a.wav", noise(1, 4000), 16000)
    (tmp_path / "m.safetensors").write_bytes(material.models()["1.safetensors"])
    args = ["separate", "a.wav", "-m", "m.safetensors", "-o", "out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert CliRunner().invoke(main, args).exit_code == 0
        one, two = sorted((tmp_path / "out/a").iterdir())
        expected = two.read_bytes()
        one.write_bytes(b"mine")
        two.unlink()
        assert CliRunner().invoke(main, [*args, "--skip-existing"]).exit_code == 0
    assert (one.read_bytes(), two.read_bytes()) == (b"mine", expected)


HALF = "\ud800"  # half a character, which JSON can have and no file system


def test_names_that_no_file_has_are_refused_in_samples_and_lists(tmp_path):
    from sepcli.samples.sample import Sample
    from sepcli.samples.streams import open_sample_writer

    for name in (f"{HALF}.wav", "a\0.wav"):
        with pytest.raises(SepcliError, match="not the name of a file"):
            audio.read(tmp_path / name)
    with open_sample_writer(tmp_path / "out") as writer:
        with pytest.raises(SepcliError, match="cannot be the name of a folder"):
            writer.write(Sample(HALF, {}, {"a.txt": b"x"}))
        with pytest.raises(SepcliError, match="cannot be the name of a file"):
            writer.write(Sample("a", {}, {f"{HALF}.txt": b"x"}))


@pytest.mark.parametrize("text", ["[" * 3000, "{a: " * 3000, "- " * 3000])
def test_settings_that_are_nested_too_deeply_are_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SepcliError, match=r"x\.yaml: "):
        config.load(tmp_path / "x.yaml")


def saved(path, model, settings, **card):
    """A model file of these settings, with a healthy model's weights."""
    net = build(model, **{**settings, **({"window": 128} if "window" in settings else {})})
    modelfile.save(path, model, settings, net.state_dict(), card)


def test_windows_that_come_far_too_often_are_refused(tmp_path):
    """A second of sound would take minutes and gigabytes."""
    settings = {"bins": 32, "hop": 32, "last": 2, "widths": [4, 6, 6]}
    saved(tmp_path / "x.safetensors", "deep_unet", {**settings, "window": 128_001})
    with pytest.raises(SepcliError, match=r"a window of 128001 is over 128 times its hop of 32"):
        modelfile.load_model(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="a window of 1032 is over 128 times its hop of 8"):
        build("spectral_tasnet", window=1032, hop=8)


@pytest.mark.parametrize("odd", ["\ud800", "\x1b[31m", "a\nb\0"])
def test_what_a_card_says_steers_no_terminal(tmp_path, odd):
    settings = {"filters": 8, "kernel": 20, "bottleneck": 4, "hidden": 4, "skip": 4, "blocks": 1}
    saved(tmp_path / "x.safetensors", "conv_tasnet", {**settings, "repeats": 1}, odd={odd: odd})
    result = CliRunner().invoke(main, ["info", str(tmp_path / "x.safetensors")])
    assert result.exit_code == 0, result.stderr
    assert repr(odd)[1:-1] in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())


def msst_with(folder, **changed):
    """A checkpoint of Music-Source-Separation-Training with other settings of its network."""
    for name, content in material.msst().items():
        (folder / name).write_bytes(content)
    settings = yaml.safe_load((folder / "m.yaml").read_text())
    settings["model"] |= changed
    (folder / "m.yaml").write_text(yaml.safe_dump(settings))
    return folder / "m.ckpt"


@pytest.mark.parametrize("changed", [{"expand": 1000}, {"sources": []}], ids=str)
def test_a_network_of_others_gets_no_more_memory_than_its_weights(tmp_path, capfd, changed):
    load(msst_with(tmp_path))
    with pytest.raises(SepcliError, match=r"m\.yaml: describes no model that is known"):
        load(msst_with(tmp_path, **changed))
    assert capfd.readouterr() == ("", "")


def test_a_bag_whose_models_have_impossible_names_is_refused(tmp_path):
    (tmp_path / "bag.yaml").write_text(f"models: [{'x' * 5000}]\n")
    with pytest.raises(SepcliError, match=r"bag\.yaml: needs x+\.safetensors or"):
        load(tmp_path / "bag.yaml")
