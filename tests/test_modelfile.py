import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from sepcli.errors import SepcliError
from sepcli.models import build, modelfile
from tests.models import EVERY, TINY, complete, randomise


def save(path, name="conv_tasnet", settings=TINY[0][1], card=None):
    model = randomise(build(name, **settings))
    modelfile.save(path, name, settings, model.state_dict(), card or {"licence": "MIT"})
    return model


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_a_saved_model_answers_as_before(tmp_path, name, settings):
    path = tmp_path / "net.safetensors"
    model = save(path, name, settings)
    loaded, card = modelfile.load_model(path)
    x = torch.randn(1, model.channels, 1000)
    with torch.no_grad():
        torch.testing.assert_close(complete(loaded)(x), complete(model)(x), rtol=0, atol=0)
    assert card.card == {"licence": "MIT"}
    assert not loaded.training


def test_the_file_is_plain_safetensors_with_the_configuration_in_its_metadata(tmp_path):
    path = tmp_path / "net.safetensors"
    model = save(path)
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["sepcli"])
        assert set(file.keys()) == set(model.state_dict())
    assert about["model"] == "conv_tasnet"
    assert about["settings"] == TINY[0][1]


def test_saving_again_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "net.safetensors"
    save(path)
    save(path, card={"licence": "none"})
    assert modelfile.read_card(path).card == {"licence": "none"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "net.safetensors"
    model = save(path)
    with pytest.raises(TypeError):
        modelfile.save(path, "conv_tasnet", {}, model.state_dict(), {"not JSON": object()})
    assert modelfile.read_card(path).card == {"licence": "MIT"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_folder_stands_for_its_best_model(tmp_path):
    save(tmp_path / "last.safetensors", card={"which": "last"})
    assert modelfile.read_card(tmp_path).card == {"which": "last"}
    save(tmp_path / "best.safetensors", card={"which": "best"})
    assert modelfile.read_card(tmp_path).card == {"which": "best"}


def test_a_missing_model_names_the_shipped_ones():
    with pytest.raises(SepcliError, match=r"no model 'denose': .*choose one with -m"):
        modelfile.read_card("denose")


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path):
    with pytest.raises(SepcliError, match=r"a folder without best\.safetensors or last"):
        modelfile.read_card(tmp_path)


@pytest.mark.parametrize("content", [b"", b"RIFF", bytes(100), b"\xff" * 100])
def test_what_is_no_model_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(SepcliError, match=r"net\.safetensors: not a model file") as error:
        modelfile.load_model(path)
    assert "\n" not in str(error.value)


def test_a_truncated_model_file_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SepcliError, match="not a model file"):
        modelfile.load_model(path)


def test_weights_of_others_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(SepcliError, match="weights without sepcli's metadata"):
        modelfile.load_model(path)


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    path = tmp_path / "net.safetensors"
    model = build("conv_tasnet", **TINY[0][1])
    modelfile.save(path, "conv_tasnet", {"filters": 32}, model.state_dict(), {})
    with pytest.raises(SepcliError, match="do not fit their configuration") as error:
        modelfile.load_model(path)
    assert "\n" not in str(error.value)


def test_a_file_from_a_later_version_says_so(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    monkeypatch.setattr(modelfile, "FORMAT", 2)
    save(path)
    monkeypatch.undo()
    with pytest.raises(SepcliError, match="model format 2, but this version reads 1"):
        modelfile.read_card(path)
