"""Losses of extracting one speaker, by numbers that are known without computing them."""

import math

import pytest
import torch

from sepcli.losses import stfts
from sepcli.losses.scene import amplitude_loss, energy_loss, scene_loss

SINE = torch.sin(2 * torch.pi * 5 * torch.arange(8000) / 8000)
COSINE = torch.cos(2 * torch.pi * 5 * torch.arange(8000) / 8000)
SILENCE = 0 * SINE


def batch(*signals):
    """(B, 1, 1, T)."""
    return torch.stack(signals)[:, None, None]


MIXTURE = batch(SINE + COSINE, COSINE, COSINE)[:, 0]
REFERENCE = batch(SINE, SILENCE, SILENCE)  # one present, two absent


def test_present_targets_count_by_si_sdr_and_absent_ones_by_level():
    estimate = batch(SINE + 0.1 * COSINE, 0.1 * math.sqrt(2) * COSINE, 1e-3 * COSINE)
    # SI-SDR of 20 dB; levels of -20 dB, which is 10 too many, and of -63 dB.
    assert energy_loss(estimate, REFERENCE, MIXTURE).item() == pytest.approx(5, abs=1e-3)
    assert scene_loss(estimate, REFERENCE, MIXTURE).item() == pytest.approx(
        0.9 * -20 + 0.1 * 5, abs=1e-3
    )
    value = scene_loss(estimate, REFERENCE, MIXTURE, absent_weight=0.5)
    assert value.item() == pytest.approx(-7.5, abs=1e-3)


def test_what_is_quiet_enough_wins_nothing_by_being_quieter():
    estimate = (1e-3 * batch(COSINE, COSINE)).requires_grad_()
    value = energy_loss(estimate, REFERENCE[1:], MIXTURE[1:])
    value.backward()
    assert value == 0
    assert not estimate.grad.any()


@pytest.mark.parametrize("loss", [scene_loss, energy_loss, amplitude_loss])
@pytest.mark.parametrize("kept", [[0], [1, 2]])
def test_batches_of_one_kind_have_a_value_and_a_gradient(loss, kept):
    estimate = batch(SINE + COSINE, COSINE, SILENCE)[kept].requires_grad_()
    value = loss(estimate, REFERENCE[kept], MIXTURE[kept])
    value.backward()
    assert value.isfinite()
    assert estimate.grad.isfinite().all()
    if loss is scene_loss and kept == [0]:
        assert value.item() == pytest.approx(0, abs=1e-3)  # 0 dB


def test_the_amplitude_is_that_of_present_targets():
    for gain, expected in ((1, 0), (math.e, 1), (1 / math.e, 1), (1e-4, math.log(0.05) ** 2)):
        estimate = batch(gain * SINE, COSINE, COSINE)
        value = amplitude_loss(estimate, REFERENCE, MIXTURE)
        assert value.item() == pytest.approx(expected, abs=1e-4)


def test_the_phase_is_part_of_the_phase_loss():
    x = batch(torch.randn(8000, generator=torch.Generator().manual_seed(0)))
    assert stfts.phase_loss(x, x) == 0
    turned = stfts.phase_loss(-x, x)
    assert turned.item() == pytest.approx(2 * stfts.phase_loss(0 * x, x).item(), rel=1e-5)
    assert stfts.mr_stft_loss(-x, x).item() == pytest.approx(0, abs=1e-6)  # which is deaf to it


def test_without_a_mixture_the_references_are_what_silence_is_measured_against():
    reference = torch.stack([SILENCE, SINE])[None, :, None]
    estimate = torch.stack([COSINE, SINE])[None, :, None]
    value = energy_loss(estimate, reference)
    assert value.item() == pytest.approx(30 + 10 * math.log10(0.5), abs=1e-3)
