import re
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch

from sepcli.models.conv_tasnet import ConvTasNet, Separator
from tests.models import randomise

GOLDEN = Path(__file__).parent / "golden" / "asteroid_causal_cln.npz"


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"norm": "none", "bias": False, "activation": "relu"}, 241_024),
        ({"norm": "none"}, 245_861),
        ({"norm": "bn"}, 250_469),
        ({"norm": "cln"}, 250_597),
        ({"norm": "gln", "causal": False, "last_residual": False}, 246_437),
        ({"kernel": 20}, 248_933),
        ({"bottleneck": 64, "hidden": 48}, 192_581),
        ({"repeats": 2}, 172_505),
        ({"hidden": 48, "repeats": 2}, 133_913),
    ],
)
def test_the_published_sizes(settings, parameters):
    assert count(ConvTasNet(**settings)) == parameters


def torchaudios():
    """torchaudio's ConvTasNet in the default sizes of ours.

    It comes from its own file: `import torchaudio` fails when torch was built for another CUDA
    version, even where no GPU is used.
    """
    package = util.find_spec("torchaudio").submodule_search_locations[0]
    file = Path(package) / "models" / "conv_tasnet.py"
    spec = util.spec_from_file_location("torchaudio_conv_tasnet", file)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ConvTasNet(
        num_sources=2,
        enc_kernel_size=32,
        enc_num_feats=64,
        msk_kernel_size=3,
        msk_num_feats=64,
        msk_num_hidden_feats=64,
        msk_num_layers=6,
        msk_num_stacks=3,
        msk_activate="sigmoid",
    )


def renamed(key, rules):
    """The state-dict key after all the substitutions in `rules`, (pattern, replacement)."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


TORCHAUDIO = [  # its names -> ours
    (r"^encoder\.", "encoder.conv."),
    (r"^decoder\.", "decoder.conv."),
    (r"^mask_generator\.input_norm", "separator.norm"),
    (r"^mask_generator\.input_conv", "separator.bottleneck"),
    (r"^mask_generator\.output_prelu", "separator.mask.0"),
    (r"^mask_generator\.output_conv", "separator.mask.1"),
    (r"^mask_generator\.conv_layers\.(\d+)\.", r"separator.tcn.blocks.\1."),
    (r"\.conv_layers\.([012])\.", r".expand.\1."),
    (r"\.conv_layers\.3\.", ".depthwise.0."),
    (r"\.conv_layers\.4\.", ".depthwise.1."),
    (r"\.conv_layers\.5\.", ".depthwise.2."),
    (r"\.res_out\.", ".residual."),
    (r"\.skip_out\.", ".skip."),
]
ASTEROID = [  # its names in the separator -> ours
    (r"^bottleneck\.0", "norm"),
    (r"^bottleneck\.1", "bottleneck"),
    (r"^TCN\.(\d+)\.", r"tcn.blocks.\1."),
    (r"shared_block\.([012])\.", r"expand.\1."),
    (r"shared_block\.3\.0\.", "depthwise.0."),
    (r"shared_block\.4\.", "depthwise.1."),
    (r"shared_block\.5\.", "depthwise.2."),
    (r"res_conv", "residual"),
    (r"skip_conv", "skip"),
    (r"mask_net", "mask"),
    (r"gamma$", "weight"),
    (r"beta$", "bias"),
]


@pytest.mark.parametrize("length", [16000, 15999, 1601, 100])
def test_equals_torchaudio_with_its_weights(length):
    torch.manual_seed(0)
    reference = randomise(torchaudios())
    ours = ConvTasNet(norm="gln", causal=False, last_residual=False, encoder_relu=False).eval()
    weights = {renamed(k, TORCHAUDIO): v for k, v in reference.state_dict().items()}
    ours.load_state_dict(weights)  # strict: every weight has its place
    x = torch.randn(2, 1, length)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[:, :, 0], reference(x), rtol=0, atol=1e-5)


def test_equals_asteroids_causal_network_with_its_weights():
    """The golden file is made by tests/golden/make_asteroid.py with asteroid 0.7.0."""
    golden = np.load(GOLDEN)
    ours = Separator(
        8,
        2,
        6,
        norm="cln",
        bias=True,
        hidden=10,
        skip=7,
        kernel=3,
        blocks=3,
        repeats=2,
        activation="prelu",
        norm_first=False,
        causal=True,
        last_residual=True,
    )
    state = ours.state_dict()
    for key in golden:
        if key.startswith("weight:"):
            name = renamed(key.removeprefix("weight:"), ASTEROID)
            state[name] = torch.from_numpy(golden[key]).reshape(state[name].shape)
    ours.load_state_dict(state)
    masks = ours(torch.from_numpy(golden["frames"]))  # (B, S*F, N)
    torch.testing.assert_close(
        masks.reshape(golden["masks"].shape).detach(),
        torch.from_numpy(golden["masks"]),
        rtol=0,
        atol=1e-5,
    )


class AllPass(torch.nn.Module):
    """In place of the separator: every mask is one."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def initial_state(self, batch=1):
        return ()

    def step(self, frames, state):
        return frames.new_ones(len(frames), self.outputs, frames.shape[-1]), state


@pytest.mark.parametrize("length", [16000, 12345, 1])
@pytest.mark.parametrize(("filters", "kernel"), [(64, 32), (64, 20), (47, 20)])
def test_perfect_reconstruction_init_gives_back_the_input(length, filters, kernel):
    torch.manual_seed(0)
    model = ConvTasNet(init="pr", filters=filters, kernel=kernel).eval()
    model.separator = AllPass(2 * filters)
    x = torch.randn(2, 1, length)
    with torch.no_grad():
        error = model(x)[:, 0] - x
    assert 10 * torch.log10(x.square().sum() / error.square().sum()) > 100  # dB; > 30 is asked


def test_perfect_reconstruction_needs_twice_as_many_filters_as_samples():
    with pytest.raises(ValueError, match=r"filters >= 2 \* kernel = 64, not 63"):
        ConvTasNet(init="pr", filters=63)


def test_dense_convolutions_have_the_published_number_of_weights():
    """N=B=H=64, P=3, X=6, R=3, L=32: XR (BHP + HB + 2 HB) + NB + 2 BN + 2 NL, and 2 NL outside."""
    for depthwise, total in ((True, 241_024), (False, 458_752)):
        model = ConvTasNet(depthwise=depthwise, bias=False, norm="none")
        weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
        assert weights == total
        x = torch.randn(1, 1, 800)
        with torch.no_grad():
            torch.testing.assert_close(model.train()(x), model.eval()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("setting", [{"norm": "gn"}, {"activation": "gelu"}, {"init": "zeros"}])
def test_an_unknown_setting_names_the_known_ones(setting):
    with pytest.raises(ValueError, match="choose"):
        ConvTasNet(**setting)


def test_a_norm_over_the_future_is_refused_in_a_causal_model():
    with pytest.raises(ValueError, match="gln averages over the future"):
        ConvTasNet(norm="gln")


def test_the_receptive_field_is_380_ms():
    assert ConvTasNet().receptive_field == 6080  # 379 frames: 378 hops of 16 and one kernel of 32


SMALL = {"filters": 8, "bottleneck": 6, "hidden": 5, "skip": 4, "blocks": 3, "repeats": 2}


@pytest.mark.parametrize(
    ("settings", "lean"),
    [
        ({}, True),
        ({"norm_first": True, "last_residual": False}, True),
        ({"norm": "none", "bias": False, "activation": "relu"}, True),
        ({"depthwise": False, "sources": ("speech",), "tcn_kernel": 2}, True),
        ({"norm": "cln"}, False),
        ({"skip": 0}, False),
    ],
)
def test_the_form_for_graphs_computes_the_same(settings, lean):
    torch.manual_seed(0)
    model = randomise(ConvTasNet(**SMALL | settings)).double().eval()
    form, x = model.exported(), torch.randn(2, 1, 40 * model.hop, dtype=torch.float64)
    assert (form is not model) == lean
    expected, _ = model.step(x, model.initial_state(2))
    state, parts = form.core_state(2), []
    with torch.no_grad():
        for part in x.split([model.hop, 9 * model.hop, 30 * model.hop], -1):
            y, state = form.core(part, state)
            parts.append(y)
    torch.testing.assert_close(torch.cat(parts, -1), expected, rtol=0, atol=1e-12)
