"""Programs of torch.export: the same as the model, as data, and refused where they are more."""

import json
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sepcli.audio import read, write
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.graphs import export as exporting
from sepcli.graphs import tracing
from sepcli.graphs.operations import operation
from sepcli.graphs.programs import Program
from sepcli.inference.live import open_runner
from sepcli.inference.loading import load
from sepcli.models import MODELS
from tests.separators import assert_alike
from tests.test_export_whole import make, noise

ANY_LENGTH = {
    "conv_tasnet", "dmgtcm_unet", "mask_unet", "open_unmix", "spectral_tasnet", "tcn_max78000",
    "ul_unas", "usef_gridnet",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_program_equals_the_model(name, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "FIXED_S", 0.05)
    path = make(tmp_path / "m.safetensors", name)
    record = exporting.export(path, tmp_path / "m.pt2")
    assert record["max_difference"] < 1e-5
    assert (record["length_s"] is None) == (name in ANY_LENGTH)
    theirs, ours = load(path), load(tmp_path / "m.pt2")
    assert (ours.sources, ours.sample_rate) == (theirs.sources, theirs.sample_rate)
    theirs, ours, reference, audio = assert_alike(theirs, ours, record["length_s"])
    assert ours.compares == theirs.compares
    if ours.compares:
        for signal in (reference, audio[:1]):
            wanted = theirs.resemblance(signal)
            assert ours.resemblance(signal) == pytest.approx(wanted, abs=1e-4)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A model with its program beside it."""
    path = make(tmp_path_factory.mktemp("one") / "m.safetensors", "mask_unet")
    exporting.export(path, path.with_suffix(".pt2"))
    return path.with_suffix(".pt2")


def test_a_program_separates_files_of_any_length_and_rate(one, tmp_path):
    write(tmp_path / "x.wav", noise(1, 30_000), 22050)
    outputs = []
    for path in (one, one.with_suffix(".safetensors")):
        args = ["separate", "-m", path, tmp_path / "x.wav", "--target", "vocals"]
        args += ["--segment", "0.4", "--overwrite", "-o", tmp_path / "y.wav"]
        result = CliRunner().invoke(main, [*map(str, args)])
        assert result.exit_code == 0, result.stderr
        y, rate = read(tmp_path / "y.wav")
        assert (rate, y.shape) == (22050, (1, 30_000))
        outputs.append(y)
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-4)


def test_other_programs_can_load_it_and_it_tells_nothing_of_the_machine(one):
    model = torch.export.load(one).module()
    x = torch.from_numpy(noise(2, 2, 2, 65, 40))
    ours = Program(one)
    (name,) = (node.name for node in ours.get_inputs())
    (y,) = ours.run(None, {name: x.numpy()})
    np.testing.assert_allclose(y, model(x).detach(), rtol=0, atol=1e-6)
    assert ours.about["card"] == {"licence": "MIT"}
    data = one.read_bytes()
    assert b".py" not in data
    assert b"/site-packages" not in data


def test_a_program_is_for_whole_signals(one):
    with pytest.raises(SepcliError, match="a graph for whole signals; name a streaming graph"):
        open_runner(str(one))


def test_info_shows_the_cards_of_graphs(one):
    result = CliRunner().invoke(main, ["info", str(one), "--json"])
    about = json.loads(result.stdout)
    assert (about["model"], about["licence"], about["kind"]) == ("mask_unet", "MIT", "offline")
    assert about["sources"] == ["vocals", "accompaniment"]
    assert about["bytes"] == one.stat().st_size
    assert "licence" in CliRunner().invoke(main, ["info", str(one)]).stdout


# Files that would run code where torch.export.load opened them.


def changed(path, target, change):
    """Copy an archive with `change` of the bytes of each entry, {end of a name: function}."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w") as copy:
        for info in archive.infolist():
            data = archive.read(info)
            for end, function in change.items():
                if info.filename.endswith(end):
                    data = function(data)
            copy.writestr(info.filename, data)
    return target


def of_json(function):
    def change(data):
        about = json.loads(data)
        function(about)
        return json.dumps(about).encode()

    return change


def first_node(about):
    return about["graph_module"]["graph"]["nodes"][0]


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def pickled(about):
    next(iter(about["config"].values()))["use_pickle"] = True


ATTACKS = {
    "a function of torch": (
        "model.json",
        of_json(lambda about: first_node(about).update(target="torch.os.system")),
    ),
    "a library": (
        "model.json",
        of_json(lambda about: first_node(about).update(target="torch.ops.load_library")),
    ),
    "a file that is read": (
        "model.json",
        of_json(lambda about: first_node(about).update(target="torch.ops.aten.from_file.default")),
    ),
    "an operator on more than numbers": (
        "model.json",
        of_json(lambda about: first_node(about).update(target="_operator.mul")),
    ),
    "a graph inside": (
        "model.json",
        of_json(
            lambda about: first_node(about)["inputs"][0].update(arg={"as_graph": {"name": "x"}})
        ),
    ),
    "weights that are pickled": ("model_weights_config.json", of_json(pickled)),
    "constants that are pickled": (
        "model_constants_config.json",
        of_json(lambda about: about["config"].update(x={"use_pickle": True, "tensor_meta": None})),
    ),
    "another version": (
        "model.json",
        of_json(lambda about: about["schema_version"].update(major=9)),
    ),
    "sizes beyond the bytes": (
        "model_weights_config.json",
        of_json(
            lambda about: next(iter(about["config"].values()))["tensor_meta"].update(
                sizes=[{"as_int": 1 << 40}], strides=[{"as_int": 1}]
            )
        ),
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_program_that_is_more_than_operations_is_refused_in_one_line(one, tmp_path, attack):
    end, change = ATTACKS[attack]
    path = changed(one, tmp_path / "m.pt2", {end: change})
    with pytest.raises(
        SepcliError, match=r"m\.pt2: (not a program that sepcli export made|does not run) \("
    ) as error:
        load(path).separate(noise(2, 2000), 44100)
    assert "\n" not in str(error.value)


def test_code_and_pickles_in_an_archive_are_never_looked_at(one, tmp_path, capsys):
    """Guards are Python, and example inputs a pickle: both are run by torch.export.load."""
    path = changed(
        one,
        tmp_path / "m.pt2",
        {
            "model.json": of_json(lambda about: about.update(guards_code=["print('run')"])),
            "sample_inputs/model.pt": lambda _: pickle.dumps(Evil()),
        },
    )
    found, expected = (load(each).separate(noise(2, 2000), 44100)["vocals"] for each in (path, one))
    np.testing.assert_array_equal(found, expected)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"no archive", struct.pack("<Q", 3) + b"{}"])
def test_what_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "m.pt2").write_bytes(data)
    with pytest.raises(SepcliError, match="not a program that sepcli export made"):
        load(tmp_path / "m.pt2")


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(one, tmp_path):
    with (
        zipfile.ZipFile(one) as archive,
        zipfile.ZipFile(tmp_path / "m.pt2", "w", zipfile.ZIP_DEFLATED) as copy,
    ):
        for info in archive.infolist():
            copy.writestr(info.filename, archive.read(info))
    with pytest.raises(SepcliError, match="it is compressed"):
        load(tmp_path / "m.pt2")
    with pytest.raises(SepcliError, match=r"none\.pt2: No such file"):
        exporting.OnnxWhole(tmp_path / "none.pt2")


NO_OPERATIONS = (
    "torch.ops.aten.from_file.default", "torch.ops.aten.save.default", "torch.load",
    "builtins.eval", "_operator.attrgetter", "torch.ops.aten.add.nothing",
    "torch.ops.aten.add.__class__",
)  # fmt: skip


@pytest.mark.parametrize("target", NO_OPERATIONS)
def test_no_other_operations_are_found(target):
    with pytest.raises(ValueError, match=r"none of the operations|does not exist"):
        operation(target)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_tracing_leaves_torch_as_it_was(kind):
    operator = getattr(torch.ops.aten, kind).input
    autocast, kernels = torch.autocast, dict(operator.py_kernels)
    layer = getattr(torch.nn, kind.upper())(3, 4, batch_first=True, bidirectional=True).eval()
    made = tracing.to_program(layer, [torch.randn(2, 5, 3)], [(0, 1)], [[torch.randn(1, 50, 3)]])
    x = torch.randn(3, 9, 3)
    torch.testing.assert_close(made.module()(x)[0], layer(x)[0])
    assert torch.autocast is autocast
    assert operator.py_kernels == kernels


def test_a_program_with_an_operation_that_is_not_run_is_not_written(tmp_path, monkeypatch):
    path = make(tmp_path / "m.safetensors", "mask_unet")
    monkeypatch.setattr("sepcli.graphs.operations.TENSORS", frozenset({"add"}))
    with pytest.raises(SepcliError, match="none of the operations that are run"):
        exporting.export(path, tmp_path / "m.pt2")
    assert [each.name for each in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_copy_without_its_companion_says_so(tmp_path):
    path = make(tmp_path / "m.safetensors", "usef_gridnet")
    exporting.export(path, tmp_path / "m.pt2", length_s=0.02)
    shutil.move(tmp_path / "m.condition.pt2", tmp_path / "other.pt2")
    with pytest.raises(SepcliError, match=r"m\.condition\.pt2: missing"):
        load(tmp_path / "m.pt2").given([noise(1, 4000)], 16000)
