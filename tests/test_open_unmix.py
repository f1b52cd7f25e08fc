import json

import pytest
import soundfile
import torch
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.models import build, modelfile
from sepcli.models.open_unmix import OpenUnmix
from sepcli.models.weights import openunmix as openunmix_files
from sepcli.nn.spectral import CentredStft
from tests.models import randomise
from tests.openunmix_package import openunmix

SIZE = {"window": 128, "hop": 32, "hidden": 8, "bandwidth_hz": 16000.0}


def count(model):
    return sum(p.numel() for p in model.parameters())


def network_of_theirs(hidden=8, layers=3, bidirectional=True, seed=0):
    """openunmix's network with random weights and statistics, 65 bins of which 47 are read."""
    torch.manual_seed(seed)
    return randomise(
        openunmix("model").OpenUnmix(
            nb_bins=65, nb_channels=2, hidden_size=hidden, nb_layers=layers,
            unidirectional=not bidirectional, max_bin=47,
        )
    )  # fmt: skip


def separator_of_theirs(networks, **settings):
    Separator = openunmix("model").Separator
    return Separator(networks, n_fft=128, n_hop=32, **settings).double().eval()


def save_folder(folder, targets=("vocals", "drums", "bass", "other"), about=None, name="{}.pth"):
    """Leave what openunmix's training leaves; returns the networks."""
    folder.mkdir(exist_ok=True)
    networks = {}
    for seed, target in enumerate(targets):
        networks[target] = network_of_theirs(seed=seed)
        torch.save(networks[target].state_dict(), folder / name.format(target))
        (folder / f"{target}.json").write_text(
            json.dumps({"args": {"nfft": 128, "nb_channels": 2, "hidden_size": 8}})
        )
    about = about or {"nfft": 128, "nhop": 32, "sample_rate": 44100, "nb_channels": 2}
    (folder / "separator.json").write_text(json.dumps(about))
    return networks


def noise(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# The architecture


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, 8_893_348),  # umx and umxhq
        ({"hidden": 1024}, 28_257_188),  # umxl
        ({"bidirectional": False}, 8_893_348 - 4_730_880 + 3 * 4 * (512 * 2 * 512 + 2 * 512)),
        ({"layers": 0}, 8_893_348 - 4_730_880 - 512 * 512),
        ({"sources": ("vocals", "drums", "bass", "other"), "residual": False}, 4 * 8_893_348),
    ],
)  # fmt: skip
def test_the_published_sizes(settings, parameters):
    assert count(OpenUnmix(**settings)) == parameters


def test_the_networks_read_the_published_1487_bins():
    assert len(OpenUnmix().networks["vocals"].input_mean) == 1487


def test_names_and_shapes_are_those_of_the_published_weights():
    theirs = openunmix("model").OpenUnmix(nb_bins=2049, nb_channels=2, max_bin=1487).state_dict()
    ours = OpenUnmix().networks["vocals"].state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_one_target_and_the_rest_equal_openunmix(layers, bidirectional):
    theirs = network_of_theirs(layers=layers, bidirectional=bidirectional)
    ours = OpenUnmix(**SIZE, layers=layers, bidirectional=bidirectional)
    ours.networks["vocals"].load_state_dict(theirs.state_dict())
    x = noise(2, 2, 5000)
    with torch.no_grad():
        expected = separator_of_theirs({"vocals": theirs}, residual=True)(x)
        torch.testing.assert_close(ours.double().eval()(x), expected, rtol=0, atol=1e-6)


def test_without_a_mask_the_networks_give_the_magnitudes_themselves():
    with_mask, without = (randomise(OpenUnmix(**SIZE, mask=mask)) for mask in (True, False))
    without.load_state_dict(with_mask.state_dict())
    magnitude = noise(1, 2, 65, 9).float().abs()
    masked = with_mask.magnitudes(magnitude)
    torch.testing.assert_close(without.magnitudes(magnitude) * magnitude, masked)


def test_the_rest_of_the_mixture_is_what_the_networks_leave():
    model = randomise(OpenUnmix(sources=("vocals", "drums", "rest"), **SIZE))
    x = noise(1, 2, 3000).float()
    torch.testing.assert_close(model(x).sum(1), x, rtol=0, atol=1e-5)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="residual needs a source beside"):
        OpenUnmix(sources=("vocals",))
    with pytest.raises(ValueError, match="hidden must be even for both directions, not 9"):
        OpenUnmix(hidden=9)
    with pytest.raises(ValueError, match="window >= 2"):
        OpenUnmix(window=512, hop=512)


@pytest.mark.parametrize(("window", "hop"), [(4096, 1024), (400, 100)])
def test_the_transform_is_that_of_torch(window, hop):
    x = noise(2, 3, 9000).float()
    ours = CentredStft(window, hop)
    theirs = torch.stft(
        x[1], window, hop, window=torch.hann_window(window), center=True, pad_mode="reflect",
        return_complex=True,
    )  # fmt: skip
    torch.testing.assert_close(ours.analyse(x)[1], theirs)
    back = ours.synthesise(ours.analyse(x), 9000)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)
    other = theirs * torch.rand(theirs.shape)  # of no signal: the overlap has to be weighted
    expected = torch.istft(other, window, hop, window=torch.hann_window(window), length=9000)
    torch.testing.assert_close(ours.synthesise(other, 9000), expected, rtol=0, atol=1e-5)


# Checkpoints


def test_a_folder_of_four_targets_equals_openunmix(tmp_path):
    networks = save_folder(tmp_path / "umx")
    model, card = modelfile.load_model(tmp_path / "umx")
    assert model.sources == ("vocals", "drums", "bass", "other")
    assert (model.sample_rate, model.hop, card.model) == (44100, 32, "open_unmix")
    x = noise(1, 2, 4000)
    with torch.no_grad():
        expected = separator_of_theirs(networks)(x)
        torch.testing.assert_close(model.double()(x), expected, rtol=0, atol=1e-6)


def test_a_file_gives_its_target_and_the_rest(tmp_path):
    networks = save_folder(tmp_path, ["vocals", "drums"], name="{}-0123abcd.pth")
    model, _ = modelfile.load_model(tmp_path / "vocals-0123abcd.pth")
    assert model.sources == ("vocals", "accompaniment")
    model, _ = modelfile.load_model(tmp_path / "drums-0123abcd.pth")
    assert model.sources == ("drums", "rest")
    state = model.networks["drums"].state_dict()
    assert all(torch.equal(state[k], v) for k, v in networks["drums"].state_dict().items())


def test_the_keys_of_2019_are_left_out_and_give_the_sample_rate(tmp_path):
    state = network_of_theirs().state_dict()
    old = {"sample_rate": torch.tensor(22050.0), "stft.window": torch.ones(128)}
    torch.save({**state, **old, "transform.0.window": torch.ones(128)}, tmp_path / "vocals.pth")
    model, card = modelfile.load_model(tmp_path / "vocals.pth")
    assert (model.sample_rate, model.hop) == (22050, 32)
    assert len(model.networks["vocals"].input_mean) == 47
    assert len(card.sha256) == 64


def test_a_checkpoint_to_resume_from_gives_its_weights(tmp_path):
    state = network_of_theirs(layers=1, bidirectional=False).state_dict()
    saved = {"epoch": 3, "state_dict": state, "best_loss": 0.5, "optimizer": {}, "scheduler": {}}
    torch.save(saved, tmp_path / "vocals.chkpnt")
    settings, weights = openunmix_files.read(tmp_path / "vocals.chkpnt")
    assert (settings["layers"], settings["bidirectional"], settings["hidden"]) == (1, False, 8)
    build("open_unmix", **settings).load_state_dict(weights)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("boo",)

    torch.save({"input_mean": Evil(), "fc1.weight": 0}, tmp_path / "vocals.pth")
    with pytest.raises(SepcliError, match=r"vocals\.pth: not a checkpoint of Open-Unmix"):
        modelfile.load_model(tmp_path / "vocals.pth")


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "vocals.pth").write_bytes(content)
    with pytest.raises(SepcliError, match=r"vocals\.pth: not a checkpoint of Open-Unmix") as error:
        modelfile.load_model(tmp_path / "vocals.pth")
    assert "\n" not in str(error.value)


def test_a_checkpoint_without_some_of_its_weights_says_so(tmp_path):
    state = network_of_theirs().state_dict()
    torch.save({k: v for k, v in state.items() if k != "bn2.bias"}, tmp_path / "vocals.pth")
    with pytest.raises(SepcliError, match=r"do not fit .*bn2\.bias"):
        modelfile.load_model(tmp_path / "vocals.pth")
    torch.save({k: v for k, v in state.items() if k != "output_mean"}, tmp_path / "vocals.pth")
    with pytest.raises(SepcliError, match=r"not a checkpoint of Open-Unmix .'output_mean'"):
        modelfile.load_model(tmp_path / "vocals.pth")


def test_a_folder_of_theirs_separates_a_song(tmp_path):
    networks = save_folder(tmp_path / "umx", about={"nfft": 128, "nhop": 32, "sample_rate": 8000})
    song = 0.1 * noise(2, 3000)
    soundfile.write(tmp_path / "song.wav", song.T.numpy(), 8000, subtype="FLOAT")
    command = ["separate", "-m", tmp_path / "umx", tmp_path / "song.wav", "-o", tmp_path / "out"]
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == 0, result.output
    with torch.no_grad():
        expected = separator_of_theirs(networks)(song[None])[0]
    for target, signal in zip(networks, expected, strict=True):
        got, rate = soundfile.read(tmp_path / "out" / "song" / f"{target}.wav")
        assert rate == 8000
        torch.testing.assert_close(torch.from_numpy(got.T), signal, rtol=0, atol=1e-5)


def test_info_describes_a_folder_of_theirs(tmp_path):
    save_folder(tmp_path, ["vocals", "drums"])
    result = CliRunner().invoke(main, ["info", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    assert (about["model"], about["sources"]) == ("open_unmix", ["vocals", "drums"])
    assert about["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.pth"))


def test_two_files_for_a_target_are_refused(tmp_path):
    save_folder(tmp_path, ["vocals"])
    save_folder(tmp_path, ["vocals"], name="{}-0123abcd.pth")
    with pytest.raises(SepcliError, match=r"a second file for vocals, beside .*; name the one"):
        modelfile.load_model(tmp_path)


def test_networks_of_different_sizes_are_refused(tmp_path):
    save_folder(tmp_path)
    torch.save(network_of_theirs(hidden=12).state_dict(), tmp_path / "bass.pth")
    with pytest.raises(SepcliError, match=r"bass\.pth: differs in size from vocals\.pth"):
        modelfile.load_model(tmp_path)


def test_a_separator_file_that_does_not_fit_is_refused(tmp_path):
    save_folder(tmp_path, about={"nfft": 256, "nhop": 64, "sample_rate": 44100})
    with pytest.raises(SepcliError, match=r"65 frequencies, but separator\.json says nfft 256"):
        modelfile.load_model(tmp_path)
    (tmp_path / "separator.json").write_text("{")
    with pytest.raises(SepcliError, match=r"separator\.json: not what Open-Unmix writes"):
        modelfile.load_model(tmp_path)
