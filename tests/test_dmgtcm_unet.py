"""The DMgTCM UNet: sizes of the reference configuration, reach, padding, and start."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sepcli.layers.gated_tcm import DoubleGatedTcm, GatedBranch
from sepcli.models.dmgtcm_unet import DmgtcmUnet
from tests.models import TINY, randomise

SMALL = next(settings for name, settings in TINY if name == "dmgtcm_unet")


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("padding", "parameters"), [(1, 1_995_211), (0, 1_929_547)])
def test_the_published_sizes(padding, parameters):
    assert count(DmgtcmUnet(padding=padding)) == parameters


def test_the_sizes_of_the_parts():
    model = DmgtcmUnet()
    assert count(model.encoder) == 67_013
    assert count(model.decoders) == 2 * 87_365
    assert [count(tcm) for tcm in model.tcms] == [132_421] * 12


def test_the_state_has_four_dilations_of_frames_for_each_convolution():
    state = DmgtcmUnet().core_state()
    assert sum(x.numel() for pair in state for x in pair) == 129_024


def test_the_exported_form_keeps_as_much_and_takes_one_frame():
    form = DmgtcmUnet().exported()
    assert (form.hops, form.core_state().numel()) == (1, 129_024)


def test_filters_of_one_frame_have_no_past_and_are_exported_as_they_are():
    model = DmgtcmUnet(**SMALL, tcm_kernel=1)
    assert model.exported() is model


def test_latency_is_one_window_at_10_ms_hops():
    model = DmgtcmUnet()
    assert (model.hop, model.latency) == (160, 320)


def test_a_frame_depends_on_exactly_897_frames():
    """By the gradient, in which no small contribution is rounded away."""
    torch.manual_seed(0)
    model = randomise(DmgtcmUnet(width=4, tcm_width=8, tcm_hidden=4)).double()
    x = torch.randn(1, 2, 161, 1000, dtype=torch.float64, requires_grad=True)
    y, _ = model.core(x, model.core_state())
    y[..., 950].sum().backward()
    reached = x.grad.abs().sum((0, 1, 2)).nonzero()[:, 0]  # frames
    assert (reached.min(), reached.max()) == (950 - 896, 950)
    assert model.receptive_field == 896 * 160 + 320


class Parallel(nn.Module):
    """The double gated TCM as drawn in the paper: four convolutions, zeros before each of them."""

    def __init__(self, tcm):
        super().__init__()
        self.tcm = tcm

    def path(self, branch, x, part):
        """One of the two paths of a branch, padded after the norm."""
        H = x.shape[1]
        own = slice(part * H, (part + 1) * H)
        slopes, norm = branch.activation
        x = torch.where(x > 0, x, slopes.weight[part] * x)
        mean, variance = norm.running_mean[own, None], norm.running_var[own, None]
        x = (x - mean) / (variance + norm.eps).sqrt() * norm.weight[own, None]
        x = F.pad(x + norm.bias[own, None], (branch.context, 0))
        weight, bias = branch.conv.weight[own], branch.conv.bias[own]
        return F.conv1d(x, weight, bias, dilation=branch.conv.dilation)

    def branch(self, branch, x):
        return self.path(branch, x, 0) * self.path(branch, x, 1).sigmoid()

    def forward(self, x):
        hidden = self.tcm.squeeze(x)
        both = [self.branch(self.tcm.primal, hidden), self.branch(self.tcm.dual, hidden)]
        return x + self.tcm.expand(torch.cat(both, 1))


@pytest.mark.parametrize(("dilation", "dual"), [(1, 8), (2, 4), (8, 1)])
def test_a_module_is_two_gated_branches_padded_with_zeros_after_the_norm(dilation, dual):
    torch.manual_seed(0)
    tcm = randomise(DoubleGatedTcm(12, 6, 5, dilation, 8)).double()
    assert (tcm.primal.conv.dilation, tcm.dual.conv.dilation) == ((dilation,), (dual,))
    x = torch.randn(2, 12, 50, dtype=torch.float64)
    y, _ = tcm.step(x, tcm.initial_state(2))
    torch.testing.assert_close(y, Parallel(tcm)(x), rtol=0, atol=1e-12)


def test_a_closed_gate_lets_nothing_through():
    branch = randomise(GatedBranch(6, 5, 2))
    with torch.no_grad():
        branch.conv.bias[6:] = -1000
    y, _ = branch.step(torch.randn(1, 6, 20), branch.initial_state())
    assert y.abs().max() == 0


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("length", [3200, 3000])
def test_equals_torch_stft_network_and_torch_istft(mask, length):
    """A length that is no multiple of the hop is that of the input padded to one."""
    torch.manual_seed(0)
    model, mapping = (
        randomise(DmgtcmUnet(**SMALL, mask=m, sources=["speech"])).double() for m in (mask, False)
    )
    mapping.load_state_dict(model.state_dict())
    x = torch.randn(2, 1, length, dtype=torch.float64)
    padded = F.pad(x[:, 0], (0, -length % 32))
    transform = {"n_fft": 64, "hop_length": 32, "window": model.stft.window}
    spectrum = torch.stft(padded, **transform, pad_mode="constant", return_complex=True)
    with torch.no_grad():
        parts = torch.view_as_real(spectrum).permute(0, 3, 1, 2)  # (B, 2, F, N)
        y, _ = mapping.core(parts, mapping.core_state(2))
        output = torch.complex(y[:, 0], y[:, 1])
        expected = torch.istft(output * spectrum if mask else output, **transform)
        # The synthesis window is rounded to float32.
        torch.testing.assert_close(model(x)[:, 0, 0], expected[:, :length], rtol=1e-6, atol=1e-6)


def test_two_sources_add_up_to_the_mixture():
    torch.manual_seed(0)
    model = randomise(DmgtcmUnet(**SMALL))
    x = torch.randn(2, 1, 1000)
    torch.testing.assert_close(model(x).sum(1), x, rtol=0, atol=1e-4)


def test_a_fresh_mask_is_near_one():
    torch.manual_seed(0)
    model = DmgtcmUnet(**SMALL, mask=True).eval()
    x = torch.randn(1, 1, 16000)
    error = model(x)[:, 0] - x
    assert 10 * torch.log10(x.square().sum() / error.square().sum()) > 20  # dB


def test_compression_makes_the_mask_nearly_blind_to_the_level():
    """Magnitudes to the power 0.001 are all nearly 1."""
    torch.manual_seed(0)
    model = randomise(DmgtcmUnet(**SMALL, mask=True, compression=0.001)).double()
    x = torch.randn(1, 1, 2000, dtype=torch.float64)
    with torch.no_grad():
        quiet, loud = model(0.1 * x) / 0.1, model(x)
    assert (quiet - loud).norm() < 0.02 * loud.norm()


@pytest.mark.parametrize("levels", [0, 7])
def test_too_few_and_too_many_levels_are_refused(levels):
    with pytest.raises(ValueError, match=f"leave some of 161 bins, not {levels}"):
        DmgtcmUnet(levels=levels, padding=0)


def test_more_than_two_sources_are_refused():
    with pytest.raises(ValueError, match="name one source, or it and the rest"):
        DmgtcmUnet(sources=("a", "b", "c"))
