"""The blocks of the GridNet: espnet's answers, shapes, independence of the batch."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sepcli.layers.gridnet import FullGridBlock, GridBlock

GOLDEN = Path(__file__).parent / "golden" / "espnet_gridnet.npz"
NAMES = (  # espnet's, and ours
    (r"intra_", "over_bands."),
    (r"inter_", "over_time."),
    (r"norm\.gamma", "norm.weight"),
    (r"norm\.beta", "norm.bias"),
    (r"rnn", "lstm"),
    (r"attn_conv_Q_(\d)\.", r"queries.\1."),
    (r"attn_conv_K_(\d)\.", r"keys.\1."),
    (r"attn_conv_V_(\d)\.", r"values.\1."),
    (r"attn_concat_proj\.", "output."),
    (r"\.0\.(weight|bias)$", r".conv.\1"),
    (r"\.1\.weight$", ".activation.weight"),
    (r"\.2\.(gamma|beta)$", r".\1"),
)


def ours(name):
    for theirs, own in NAMES:
        name = re.sub(theirs, own, name)
    return name


@pytest.mark.parametrize(("name", "kernel", "stride"), [("plain", 1, 1), ("windows", 4, 2)])
def test_the_papers_block_equals_espnets(name, kernel, stride):
    """The golden file is made by tests/golden/make_espnet.py with espnet 202511."""
    golden = np.load(GOLDEN)
    block = FullGridBlock(8, 5, 2, 7, kernel=kernel, stride=stride, keys=24)
    weights, prefix = block.state_dict(), f"{name}:weight:"
    given = {ours(key.removeprefix(prefix)): golden[key] for key in golden if prefix in key}
    assert set(given) == set(weights)
    block.load_state_dict(
        {k: torch.from_numpy(v).reshape(weights[k].shape) for k, v in given.items()}
    )
    x = torch.from_numpy(golden[f"{name}:x"]).permute(0, 2, 3, 1)  # (B, N, K, D)
    expected = torch.from_numpy(golden[f"{name}:y"]).permute(0, 2, 3, 1)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("hidden", "count"), [(192, 1_167_229), (256, 1_791_869)])
def test_the_papers_block_has_espnets_number_of_parameters(hidden, count):
    block = FullGridBlock(128, hidden, 4, 53)
    assert sum(p.numel() for p in block.parameters()) == count


@pytest.mark.parametrize(("frames", "bands"), [(5, 7), (1, 1), (9, 4)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (4, 1), (3, 2)])
def test_the_papers_block_keeps_the_shape_for_every_window(frames, bands, kernel, stride):
    block = FullGridBlock(8, 5, 2, bands, kernel=kernel, stride=stride)
    x = torch.randn(2, frames, bands, 8)
    assert block(x).shape == x.shape


@pytest.mark.parametrize("block", [GridBlock(8, 5, 2), FullGridBlock(8, 5, 2, 6)])
def test_an_item_does_not_depend_on_its_batch(block):
    x = torch.randn(3, 7, 6, 8)
    torch.testing.assert_close(block(x)[1:2], block(x[1:2]), rtol=0, atol=1e-5)
