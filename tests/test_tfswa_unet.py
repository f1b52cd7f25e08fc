"""Attention over time, frequency and windows against torch's own, and the U-Net made of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from sepcli.inference.blockwise import Method
from sepcli.inference.separate import Separator
from sepcli.layers import tfswa
from sepcli.layers.tfswa import Axis, Windows
from sepcli.models import build
from sepcli.models.tfswa_resunet import TfswaResunet
from sepcli.models.tfswa_unet import TfswaUnet, codes
from tests.models import RESUNET, TFSWA, randomise

SIZES = [(16, 24), (8, 8), (1, 1), (3, 30), (17, 9), (5, 5), (30, 4)]


def torchs(layer):
    """torch's own layer with the weights of a `Transformer`."""
    d, heads = layer.norm1.weight.numel(), layer.attention.heads
    theirs = nn.TransformerEncoderLayer(
        d, heads, layer.linear1.out_features, 0.0, "gelu", batch_first=True, norm_first=True
    ).double()
    weights = {
        "self_attn.in_proj_weight": layer.attention.qkv.weight,
        "self_attn.in_proj_bias": torch.zeros(3 * d),
        "self_attn.out_proj.weight": layer.attention.out.weight,
        "self_attn.out_proj.bias": layer.attention.out.bias,
    }
    for name in ("linear1", "linear2", "norm1", "norm2"):
        for part in ("weight", "bias"):
            weights[f"{name}.{part}"] = getattr(getattr(layer, name), part)
    theirs.load_state_dict(weights)
    return theirs


def tiles(N, F, size, shift):
    """In which window every frame and frequency (N*F, 2) is, counted from where the grid begins."""
    shift = [0 if extent <= w else s for extent, w, s in zip((N, F), size, shift, strict=True)]
    places = np.stack(np.mgrid[:N, :F], -1).reshape(-1, 2)
    return torch.from_numpy((places - shift) // size)


@pytest.fixture(params=[1 << 22, 300])
def chunk(request, monkeypatch):
    monkeypatch.setattr(tfswa, "CHUNK", request.param)


@pytest.mark.parametrize("time", [True, False])
def test_an_axis_computes_what_torch_does(time, chunk):
    torch.manual_seed(0)
    axis = randomise(Axis(8, 2, time=time)).double()
    x = torch.randn(2, 7, 12, 8, dtype=torch.float64)
    rows = x.transpose(1, 2) if time else x
    expected = torchs(axis.layer)(rows.flatten(0, 1)).unflatten(0, (2, -1))
    expected = expected.transpose(1, 2) if time else expected
    torch.testing.assert_close(axis(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(axis(x), expected)


@pytest.mark.parametrize("position", [True, False])
@pytest.mark.parametrize(("size", "shift"), [((8, 8), (0, 0)), ((8, 8), (4, 4)), ((5, 4), (2, 3))])
@pytest.mark.parametrize("extent", SIZES)
def test_windows_are_attention_to_what_is_in_the_same_tile(extent, size, shift, position, chunk):
    """Of the whole spectrogram at once, with torch's layer and a mask: whatever its size."""
    torch.manual_seed(0)
    windows = randomise(Windows(8, 2, size, shift, position=position)).double()
    x = torch.randn(2, *extent, 8, dtype=torch.float64)
    tile = tiles(*extent, size, shift)
    alike = (tile[:, None] == tile[None]).all(-1)  # (N*F, N*F)
    mask = torch.where(alike, 0.0, -torch.inf).double()[None]
    if position:
        places = np.stack(np.mgrid[: extent[0], : extent[1]], -1).reshape(-1, 2)
        offset = torch.from_numpy(places[:, None] - places[None]) + torch.tensor(size) - 1
        entry = offset[..., 0] * (2 * size[1] - 1) + offset[..., 1]
        bias = windows.position[torch.where(alike, entry, 0)].permute(2, 0, 1)
        mask = (mask + bias).detach()
    mask = mask.expand(2, -1, -1).repeat(2, 1, 1)  # (B*heads, L, L)
    expected = torchs(windows.layer)(x.flatten(1, 2), src_mask=mask).unflatten(1, extent)
    torch.testing.assert_close(windows(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(windows(x), expected)


@pytest.mark.parametrize("extent", SIZES)
def test_a_change_in_one_window_reaches_no_other(extent):
    torch.manual_seed(0)
    windows = randomise(Windows(8, 2, (8, 8), (4, 4)))
    x = torch.randn(1, *extent, 8)
    tile = tiles(*extent, (8, 8), (4, 4))
    with torch.no_grad():
        before = windows(x).flatten(0, 2)
        for one in tile.unique(dim=0):
            inside = (tile == one).all(-1)
            other = x + inside.reshape(1, *extent, 1) * torch.randn_like(x)
            changed = (windows(other).flatten(0, 2) != before).any(-1)
            assert torch.equal(changed, inside)


@pytest.mark.parametrize("layer", [Axis(4, 2, time=True), Axis(4, 2, time=False)])
def test_a_map_has_the_attention_of_every_place(layer):
    x = torch.randn(1, 9, 13, 4)
    shown = layer.map(x)
    assert shown.shape == ((9, 9) if layer.time else (13, 13))
    torch.testing.assert_close(shown.sum(-1), torch.ones(len(shown)))


def trained(**settings):
    """The gradients and the running statistics after one backward pass."""
    torch.manual_seed(0)
    model = build("tfswa_unet", **TFSWA | {"position": True} | settings).double()
    model(torch.randn(2, 2, 900, dtype=torch.float64)).square().sum().backward()
    return [p.grad for p in model.parameters()], list(model.buffers())


def test_chunks_change_no_gradient(monkeypatch):
    whole, _ = trained()
    monkeypatch.setattr(tfswa, "CHUNK", 2000)
    for a, b in zip(whole, trained()[0], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("block", ["parallel", "residual"])
def test_computing_again_changes_no_bit_of_gradients_and_statistics(block):
    plain, again = (trained(block=block, checkpointing=x) for x in (False, True))
    for kinds in zip(plain, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(*kinds, strict=True))


def test_what_a_layer_is_given_at_a_time_does_not_grow_with_the_length(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(tfswa, "CHUNK", 5000)
    model = build("tfswa_unet", **TFSWA).eval()
    most = []

    def note(_layer, inputs):
        most.append(inputs[0].numel())

    for layer in model.modules():
        if isinstance(layer, tfswa.Transformer):
            layer.register_forward_pre_hook(note)
    with torch.no_grad():
        model(torch.randn(2, 2, 10_000))
    assert max(most) <= 5000
    assert len(most) > 4 * 6 * 3 * 2  # items, blocks, layers: some are in parts


def test_the_sizes():
    def size(**settings):
        return sum(p.numel() for p in TfswaUnet(**settings).parameters())

    assert size() == 15_404_834
    assert 4 * size() < 60 * 2**20  # bytes of a file
    assert size(position=True) == 15_404_834 + 22 * 1800
    assert size(sources=("vocals", "drums", "bass", "other")) == 15_404_834 + 2 * 33
    assert size(multiscale=True) - 15_404_834 == sum(
        3 * d + 33 * d + 32 - d for d in (64, 128, 256)
    )


def test_masks_are_real_and_between_0_and_1_and_the_highest_frequency_has_that_below():
    torch.manual_seed(0)
    model = randomise(build("tfswa_unet", **TFSWA))
    spectrum = torch.randn(2, 2, 65, 21, dtype=torch.complex64)
    mask = model(spectrum) / spectrum[:, None]
    torch.testing.assert_close(mask.imag, torch.zeros_like(mask.imag), rtol=0, atol=1e-5)
    assert ((mask.real > 0) & (mask.real < 1)).all()
    torch.testing.assert_close(mask[..., -1, :], mask[..., -2, :], rtol=0, atol=1e-5)
    assert mask.real.std() > 0.01


def test_levels_of_frequencies_and_other_channels_change_no_mask():
    torch.manual_seed(0)
    model = randomise(build("tfswa_unet", **TFSWA))
    spectrum = torch.randn(1, 2, 65, 21, dtype=torch.complex64)
    gains = torch.rand(2, 65, 1) + 0.5
    before = model(spectrum)
    torch.testing.assert_close(model(spectrum * gains), before * gains, rtol=1e-3, atol=1e-4)
    other = torch.stack([spectrum[:, 0], torch.randn_like(spectrum[:, 1])], 1)
    assert torch.equal(model(other)[:, :, 0], before[:, :, 0])


def test_frequencies_have_codes_of_their_own():
    """Neighbours differ, and what is twice as fine has the same codes in between."""
    found = codes(64, 32, torch.zeros(1))
    assert found.shape == (32, 64)
    apart = torch.cdist(found.T, found.T) + 9 * torch.eye(64)
    assert apart.min() > 0.5
    torch.testing.assert_close(codes(192, 8, found)[:, 1::3], codes(64, 8, found))


def test_silence_stays_silent_and_has_finite_gradients():
    model = build("tfswa_unet", **TFSWA)
    y = model(torch.zeros(1, 2, 3000))
    assert not y.any()
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_songs_in_segments_are_those_that_the_model_makes_of_each():
    """One segment is the model itself; the first of several is what the model makes of it."""
    torch.manual_seed(0)
    model = randomise(build("tfswa_unet", **TFSWA | {"sample_rate": 8000}))
    x = np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32)
    whole = model(torch.from_numpy(x)[None])[0, 0].detach().numpy()
    found = Separator(model, method=Method(1.0)).separate(x, 8000)["vocals"]
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6)
    parts = Separator(model, method=Method(0.5, 0.2)).separate(x, 8000)["vocals"]
    alone = model(torch.from_numpy(x[:, :4000])[None])[0, 0].detach().numpy()
    np.testing.assert_allclose(parts[:, :3200], alone[:, :3200], rtol=0, atol=1e-6)
    # Beyond the segment lies what attention to the whole song would have heard: its border effect.
    assert np.abs(parts - whole).max() < 0.5 * np.abs(whole).max()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"dims": (4, 8, 16)}, "one number each for every level"),
        ({"heads": 3}, "4 features cannot be split among 3 heads"),
        ({"block": "serial"}, "unknown block 'serial'; choose from parallel, residual"),
        ({"output": "phase"}, "unknown output 'phase'; choose from mask, spectrum"),
        ({"patch": (0, 1)}, r"patch must be like \(1, 1\)"),
        ({"shift": 4}, r"windows of \(4, 4\) cannot be shifted by \(4, 4\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        TfswaUnet(**TFSWA | settings)


def test_the_documentation_has_the_size_of_every_variant():
    lines = (Path(__file__).parent.parent / "docs/models.md").read_text().splitlines()
    start = lines.index("| settings | what | parameters |") + 2
    rows = [line.strip("| ").split(" | ") for line in lines[start : lines.index("", start)]]
    sizes = {}
    for settings, _, parameters in rows:
        said = yaml.safe_load("{" + settings.strip("`").removeprefix("none") + "}")
        sizes[settings] = sum(p.numel() for p in TfswaUnet(**said).parameters())
        assert f"{sizes[settings]:,}" == parameters
    assert len(sizes) == 6
    assert min(sizes.values()) < 2_000_000


def test_the_resunet_has_about_the_published_size():
    size = sum(p.numel() for p in TfswaResunet().parameters())
    assert size == 44_435_744
    assert abs(size / 44.3e6 - 1) < 0.005


def test_the_resunet_estimates_magnitudes_that_have_the_phase_of_the_mixture():
    torch.manual_seed(0)
    model = randomise(build("tfswa_resunet", **RESUNET))
    spectrum = torch.randn(1, 2, 65, 21, dtype=torch.complex64)
    gain = (model(spectrum) / spectrum[:, None])[..., :-1, :]
    torch.testing.assert_close(gain.imag, torch.zeros_like(gain.imag), rtol=0, atol=1e-4)
    assert (gain.real >= 0).all()
    assert gain.real.std() > 0.01
    assert not model(torch.zeros(1, 2, 3000)).any()


def test_the_bands_of_the_resunet_are_put_back_where_they_were():
    """With an encoder of one level, whose skip is all that reaches the output, unchanged."""
    model = TfswaResunet(**RESUNET | {"dims": (8,), "tile": (2, 2)}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for units, at in ((model.encoder[0], 0), (model.decoder[0], 8)):
            for i, unit in enumerate(units):
                unit.shortcut.weight[:, (at if i == 0 else 0) :][:, :8] = torch.eye(8)[
                    ..., None, None
                ]
    magnitudes = torch.rand(2, 2, 64, 9)
    torch.testing.assert_close(model.magnitudes(magnitudes), magnitudes[:, None])
