"""Checkpoints of Music-Source-Separation-Training: as the package itself computes them."""

import json

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from sepcli.audio import read, write
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.inference.loading import load

AUDIO = {"chunk_size": 4416, "sample_rate": 44100, "num_channels": 2}
ROFORMER = {
    "dim": 8, "depth": 1, "stereo": True, "num_stems": 1, "num_bands": 6, "dim_head": 4, "heads": 2,
    "time_transformer_depth": 1, "freq_transformer_depth": 1, "stft_n_fft": 256,
    "stft_hop_length": 64, "stft_win_length": 256, "mask_estimator_depth": 1, "flash_attn": False,
}  # fmt: skip
BS_ROFORMER = {key: value for key, value in ROFORMER.items() if key != "num_bands"} | {
    "freqs_per_bands": (2, 4, 8, 16, 32, 67), "num_stems": 2,
}  # fmt: skip
MDX23C = {
    "act": "gelu", "norm": "InstanceNorm", "bottleneck_factor": 4, "growth": 4, "num_channels": 4,
    "num_blocks_per_scale": 1, "num_scales": 1, "num_subbands": 4, "scale": [2, 2],
}  # fmt: skip
HTDEMUCS = {
    "channels": 8, "depth": 2, "nfft": 256, "dconv_comp": 4, "bottom_channels": 8, "t_layers": 1,
    "t_heads": 2, "t_hidden_scale": 1.0, "use_train_segment": True,
}  # fmt: skip
SCNET = {
    "sources": ["drums", "vocals"], "audio_channels": 2, "dims": [4, 4, 8, 8], "nfft": 256,
    "hop_size": 64, "win_size": 256, "num_dplayer": 2, "expand": 1,
}  # fmt: skip
LAYOUTS = {
    "roformer": {
        "audio": AUDIO,
        "model": ROFORMER,
        "training": {"instruments": ["vocals", "other"], "target_instrument": "vocals"},
    },
    "scnet": {
        "audio": AUDIO,
        "model": SCNET,
        "training": {"instruments": ["drums", "vocals"], "target_instrument": None},
    },
    "bs_roformer": {
        "audio": AUDIO,
        "model": BS_ROFORMER,
        "training": {"instruments": ["drums", "vocals"], "target_instrument": None},
    },
    "mdx23c": {
        "audio": AUDIO | {"dim_f": 128, "dim_t": 70, "hop_length": 64, "n_fft": 256},
        "model": MDX23C,
        "training": {"instruments": ["drums", "vocals"], "target_instrument": None},
    },
    "htdemucs": {
        "audio": AUDIO,
        "model": "htdemucs",
        "htdemucs": HTDEMUCS,
        "training": {
            "instruments": ["drums", "vocals"], "target_instrument": None, "samplerate": 44100,
            "channels": 2, "segment": 0.2, "use_amp": True,
        },
    },
}  # fmt: skip


def make(folder, layout, under=None):
    """Write a checkpoint of small random weights; return it and the package's own network."""
    from pymss_core import get_model_from_config

    folder.mkdir(exist_ok=True)
    config = folder / "m.yaml"
    config.write_text(yaml.dump(LAYOUTS[layout]))
    torch.manual_seed(0)
    net, _ = get_model_from_config("auto", str(config))
    state = net.state_dict()
    torch.save({under: state} if under else state, folder / "m.ckpt")
    return folder / "m.ckpt", net.eval()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the package's own network
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("under", [None, "state_dict"])
def test_the_estimates_are_those_of_the_package(tmp_path, layout, under):
    path, net = make(tmp_path, layout, under)
    separator = load(path)
    audio = 0.1 * np.random.default_rng(0).standard_normal((2, 4416), np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(audio)[None])[0].reshape(-1, 2, 4416).numpy()
    found = separator.separate(audio, 44100)
    assert list(found) == (["vocals"] if layout == "roformer" else ["drums", "vocals"])
    for y, one in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(y, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["m.chpt", "m.th", "m.safetensors"])
def test_weights_of_other_endings_with_their_yaml_file_are_the_same(tmp_path, name):
    path, net = make(tmp_path, "scnet", "state_dict")
    expected = load(path).separate(audio := np.ones((2, 4416), np.float32), 44100)
    path.unlink()
    if name.endswith("safetensors"):
        save_file({key: x.contiguous() for key, x in net.state_dict().items()}, tmp_path / name)
    else:
        torch.save({"state": net.state_dict(), "klass": HTDemucs}, tmp_path / name)
    found = load(tmp_path / name).separate(audio, 44100)
    for source, y in expected.items():
        np.testing.assert_array_equal(found[source], y)


def test_a_checkpoint_separates_files_as_any_model_and_info_says_its_licence(tmp_path):
    path, _ = make(tmp_path / "m", "roformer")
    song = 0.1 * np.random.default_rng(0).standard_normal((1, 20_000), np.float32)
    write(tmp_path / "song.wav", song, 22050)
    run = lambda *args: CliRunner().invoke(main, list(map(str, args)))  # noqa: E731
    args = ("-m", path, tmp_path / "song.wav", "--residual", "-o", tmp_path)
    result = run("separate", *args)
    assert result.exit_code == 0, result.stderr
    stems = [read(tmp_path / "song" / f"{name}.wav")[0] for name in ("vocals", "residual")]
    np.testing.assert_allclose(sum(stems), song, rtol=0, atol=1e-6)
    about = json.loads(run("info", path, "--json").stdout)
    assert (about["licence"], about["sources"]) == ("not stated", ["vocals"])


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_no_checkpoint_is_one_line(tmp_path, capsys):
    path, _ = make(tmp_path, "roformer")
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(SepcliError, match=r"m\.ckpt: not a checkpoint .* \(it holds more"):
        load(path)
    assert "run" not in capsys.readouterr().out
    torch.save({"x": torch.ones(1)}, path)
    with pytest.raises(SepcliError, match=r"m\.ckpt: the weights do not fit m\.yaml"):
        load(path)
    config = tmp_path / "m.yaml"
    config.write_text("training: !!python/object/apply:os.getcwd []")
    with pytest.raises(SepcliError, match=r"m\.yaml: not the settings of a model"):
        load(path)
    config.write_text("training: {instruments: [a]}\nmodel: {x: 1}")
    with pytest.raises(SepcliError, match="describes no model that is known"):
        load(path)
    config.unlink()
    with pytest.raises(SepcliError, match="no YAML files beside it; put its own there as"):
        load(path)
