"""Training losses against values worked out on paper."""

import math

import numpy as np
import pytest
import torch

from sepcli import losses
from sepcli.dsp.consistency import add_up
from sepcli.errors import SepcliError
from sepcli.losses import stfts, waveforms


@pytest.fixture
def noise():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 1, 4000, dtype=torch.float64, generator=generator)


def test_si_sdr_of_a_tenth_of_quadrature_noise_is_20_db():
    n = torch.arange(1000, dtype=torch.float64)
    reference = torch.sin(2 * torch.pi * 5 * n / 1000)
    estimate = reference + 0.1 * torch.cos(2 * torch.pi * 5 * n / 1000)
    assert waveforms.si_sdr(estimate, reference).item() == pytest.approx(20.0, abs=1e-6)
    for changed in (3 * estimate, -estimate, estimate + 7):  # scale, sign, offset
        assert waveforms.si_sdr(changed, reference).item() == pytest.approx(20.0, abs=1e-6)


def test_snr_counts_a_wrong_level_and_a_wrong_sign(noise):
    for factor, expected in ((0.9, 20.0), (1.1, 20.0), (-1, -10 * math.log10(4)), (0, 0.0)):
        value = waveforms.snr(factor * noise, noise)
        assert value.shape == noise.shape[:-1]
        torch.testing.assert_close(value, torch.full_like(value, expected))


def test_si_sdr_loss_is_the_mean_over_sources_not_of_the_energies():
    n = torch.arange(1000, dtype=torch.float64)
    sine, cosine = (f(2 * torch.pi * 5 * n / 1000) for f in (torch.sin, torch.cos))
    reference = torch.stack([sine, 100 * sine])[None, :, None]  # (1, 2, 1, T)
    estimate = torch.stack([sine + 0.1 * cosine, 100 * sine + cosine])[None, :, None]  # 20, 40 dB
    assert waveforms.si_sdr_loss(estimate, reference).item() == pytest.approx(-30.0, abs=1e-5)


def test_si_sdr_stays_finite_with_its_gradient_for_silence_and_for_a_perfect_estimate():
    tone = torch.sin(torch.arange(1000.0))
    for estimate, reference in ((tone, 0 * tone), (0 * tone, tone), (tone, tone)):
        estimate = estimate.clone().requires_grad_()
        value = waveforms.si_sdr(estimate, reference)
        value.backward()
        assert value.isfinite()
        assert estimate.grad.isfinite().all()


DECIBELS = (
    "si_sdr",
    "stft_si_sdr",
    "stft_snr",
    "stft_stretches",
    "scene",
    "energy",
)  # of which the least is not zero


def judge():
    """A small network whose features are compared."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv1d(1, 6, 9), torch.nn.ReLU(), torch.nn.Conv1d(6, 2, 9))


def only(name):
    """The loss `name` alone, with what it cannot do without."""
    needs = {"features": {"network": "tests.test_losses:judge", "layers": ["0", "2"]}}
    return losses.weighted({name: needs.get(name, 1.0)})


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_perfect_estimate_is_the_minimum_and_the_gradient_is_finite(name, noise):
    loss = only(name)
    if losses.WAVEFORM not in losses.takes([name]):
        noise = torch.fft.rfft(noise.unflatten(-1, (-1, 40))).transpose(-1, -2)  # (..., F, N)
    perfect, _ = loss(noise, noise)
    estimate = (0.9 * noise + 0.1 * noise.roll(1, -1)).requires_grad_()
    worse, _ = loss(estimate, noise)
    worse.backward()
    assert worse > perfect or name == "energy"  # nobody is absent
    assert estimate.grad.isfinite().all()
    if name not in DECIBELS:
        assert 0 <= perfect < 1e-3


def batch_with_silence(name, *, silent=1, leak=0.25):
    """(estimate, reference, mixture) of 8 items of a source, of which some references are silent.

    Estimates are 6 dB SI-SDR or, where there is silence, the mixture 12 dB softer.
    """
    generator = torch.Generator().manual_seed(1)
    reference, noise = 0.05 * torch.randn(2, 8, 1, 1, 8000, generator=generator)
    reference[:silent] = 0
    mixture = reference + noise
    estimate = reference + 0.5 * noise
    estimate[:silent] = leak * mixture[:silent]
    signals = estimate, reference, mixture[:, 0]
    if losses.WAVEFORM in losses.takes([name]):
        return signals
    window = torch.hann_window(64)
    flat = (x.flatten(0, -2) for x in signals)
    spectra = (torch.stft(x, 64, 32, window=window, return_complex=True) for x in flat)
    return tuple(X.unflatten(0, x.shape[:-1]) for X, x in zip(spectra, signals, strict=True))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_silent_reference_among_eight_does_not_drown_the_others(name):
    loss = only(name)
    with_silence, without = (loss(*batch_with_silence(name, silent=n))[0].item() for n in (1, 0))
    limit = 3.0 if name in DECIBELS else 1.2 * without  # a decibel has no zero
    assert abs(with_silence - without) < limit


@pytest.mark.parametrize("silent", [1, 8])
@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_gradient_of_silence_does_not_grow_as_the_estimate_gets_quieter(name, silent):
    def gradient(leak):
        estimate, *others = batch_with_silence(name, silent=silent, leak=leak)
        estimate.requires_grad_()
        only(name)(estimate, *others)[0].backward()
        return estimate.grad[0].abs().square().sum().sqrt().item()

    loud, *quieter = map(gradient, (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6))
    # Logarithms of magnitudes get steeper down to the floor under them, at -60 dB.
    assert max(quieter) <= (500 if name == "mr_stft" else 50) * loud
    assert quieter[-1] <= loud * (1 + 1e-6) or name == "compressed"


def test_the_loss_of_silence_is_the_energy_of_the_estimate_re_the_mixture():
    """From -30 dB for silence to 0 for the mixture itself, whatever its level above -40 dB."""
    generator = torch.Generator().manual_seed(1)
    mixture = torch.randn(2, 1, 4000, dtype=torch.float64, generator=generator)
    silence = torch.zeros(2, 1, 1, 4000, dtype=torch.float64)
    for x in (0.02 * mixture, mixture):
        loudness = x.square().mean((-2, -1)).sqrt()[:, None, None, None]
        estimate = (x / x.square().mean(-1, keepdim=True).sqrt())[:, None] * loudness
        for gain, expected in ((0, 1e-3), (1, 1 + 1e-3), (0.1, 1e-2 + 1e-3)):
            loss = waveforms.si_sdr_loss(gain * estimate, silence, x)
            assert loss.item() == pytest.approx(10 * math.log10(expected))


def test_how_silent_is_silent_can_be_said():
    tone = torch.sin(torch.arange(1000.0))[None, None, None]
    mixture = tone[:, 0] + 0.5
    soft = 1e-2 * tone  # 40 dB less
    default = losses.weighted({"si_sdr": 1.0})
    strict = losses.weighted({"si_sdr": {"silence_db": -30.0}})
    assert default(0.3 * soft + 0.01, soft, mixture)[0] < -40  # a mean is no error of the SI-SDR
    assert -31 < strict(soft, soft, mixture)[0] < -20


def test_mr_stft_of_half_the_signal_is_one_half_plus_ln_2(noise):
    assert stfts.mr_stft_loss(0.5 * noise, noise).item() == pytest.approx(
        0.5 + math.log(2), abs=1e-6
    )


def test_mr_stft_l1_is_linear_in_the_difference_of_the_magnitudes(noise):
    half = stfts.mr_stft_l1_loss(0.5 * noise, noise).item()
    quarter = stfts.mr_stft_l1_loss(0.75 * noise, noise).item()
    assert half == pytest.approx(2 * quarter, rel=1e-6)
    assert stfts.mr_stft_l1_loss(-noise, noise).item() == 0  # magnitudes do not see the sign


def test_l1_of_a_constant_offset_is_the_offset(noise):
    assert waveforms.l1_loss(noise + 0.25, noise).item() == pytest.approx(0.25)


def test_spectral_loss_of_a_tone_in_a_bin_is_what_the_window_makes_of_it():
    """A Hann window of N samples gives a cosine of amplitude a the magnitudes a N/8, a N/4, a N/8
    in three of the N/2 + 1 bins: mean |X|^2 = (1/64 + 1/16 + 1/64) (a N)^2 / (N/2 + 1)."""
    N = 256
    n = torch.arange(16 * N, dtype=torch.float64)
    tone = torch.cos(2 * torch.pi * 20 * n / N)[None, None, None]
    mean = 6 / 64 * N**2 / (N / 2 + 1)

    def loss(estimate, weight):
        value = stfts.spectral_loss(estimate, tone, n_fft=N, hop=N, complex_weight=weight)
        return value.item()

    # With the hop N every frame holds whole periods; at the ends they are reflected, which a
    # cosine that starts at its crest continues.
    assert loss(0.5 * tone, 0.0) == pytest.approx(0.25 * mean, rel=1e-3)
    assert loss(-tone, 0.0) == pytest.approx(0, abs=1e-9)
    assert loss(-tone, 1.0) == pytest.approx(4 * mean / 2, rel=1e-3)  # half: real and imaginary
    assert loss(-tone, 0.3) == pytest.approx(0.3 * loss(-tone, 1.0))


def test_compressed_loss_of_a_scaled_signal_scales_with_the_compressed_power(noise):
    """|E| = g |T| with the same phase: both parts are (1 - g^0.3)^2 mean |T|^0.6."""
    small, large = (stfts.compressed_loss(g * noise, noise).item() for g in (0.5, 0.1))
    assert large / small == pytest.approx((1 - 0.1**0.3) ** 2 / (1 - 0.5**0.3) ** 2, rel=1e-3)
    magnitude = stfts.compressed_loss(-noise, noise, complex_weight=0.0)
    flipped = stfts.compressed_loss(-noise, noise, complex_weight=1.0)
    assert magnitude.item() == pytest.approx(0, abs=1e-12)
    assert flipped.item() == pytest.approx(
        4 * stfts.compressed_loss(0 * noise, noise, complex_weight=1.0).item(), rel=1e-3
    )


def test_magnitude_loss_is_that_of_the_spectrograms_and_sees_no_phase(noise):
    window = torch.hann_window(512, dtype=noise.dtype)
    estimate = 0.5 * noise.flip(-1)
    e, t = (
        torch.stft(x.reshape(-1, x.shape[-1]), 512, 128, window=window, return_complex=True)
        for x in (estimate, noise)
    )
    expected = torch.nn.functional.mse_loss(e.abs(), t.abs())
    of_sound = stfts.magnitude_loss(estimate, noise, n_fft=512, hop=128)
    torch.testing.assert_close(of_sound, expected)
    torch.testing.assert_close(stfts.magnitude_loss(e, t), expected)
    assert stfts.magnitude_loss(1j * t, t) < 1e-12


def test_a_spectral_loss_says_how_much_audio_it_needs():
    short = torch.zeros(1, 1, 1, 1000)
    with pytest.raises(ValueError, match="expected more than 1024 samples, got 1000"):
        stfts.mr_stft_loss(short, short)


def test_a_weighted_sum_reports_each_term(noise):
    loss = losses.weighted({"l1": 2, "mr_stft": {"weight": 0.5}})
    total, terms = loss(0.5 * noise, noise)
    l1, mr_stft = 0.5 * noise.abs().mean().item(), 0.5 + math.log(2)
    assert terms["l1"].item() == pytest.approx(l1)
    assert total.item() == pytest.approx(2 * l1 + 0.5 * mr_stft, abs=1e-6)


def test_a_term_can_begin_later_and_rise(noise):
    loss = losses.weighted({"l1": 1, "mr_stft": {"weight": 2, "from_step": 10, "ramp_steps": 4}})
    one, l1 = (x.item() for x in (loss(noise / 2, noise)[1]["mr_stft"], (noise / 2).abs().mean()))
    for step, share in ((0, 0), (10, 0), (11, 0.25), (13, 0.75), (14, 1), (99, 1), (None, 1)):
        total, terms = loss(noise / 2, noise, None, step)
        assert total.item() == pytest.approx(l1 + 2 * share * one, abs=1e-6)
        assert ("mr_stft" in terms) == bool(share)
    sudden = losses.weighted({"l1": {"from_step": 3}})
    assert [float(sudden(noise / 2, noise, None, k)[0]) > 0 for k in (2, 3)] == [False, True]


def test_a_term_can_set_the_keywords_of_its_loss(noise):
    loss = losses.weighted({"compressed": {"complex_weight": 0.0, "n_fft": 256}})
    assert loss(-noise, noise)[0].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"sisdr": 1.0}, "unknown loss 'sisdr'; choose from amplitude, compressed, "),
        ({}, r"train\.loss must be like"),
        ("si_sdr", r"train\.loss must be like .* not 'si_sdr'"),
        ({"l1": "much"}, r"train\.loss\.l1 must be a number, not 'much'"),
        ({"compressed": {"nfft": 9}}, r"unknown setting train\.loss\.compressed\.nfft; did you"),
        ({"l1": {"from_step": 0.5}}, r"train\.loss\.l1: from_step and ramp_steps must be numbers"),
        ({"l1": {"reference": 9}}, r"unknown setting train\.loss\.l1\.reference"),
        (
            {"si_sdr": 1, "stft_compressed": 2},
            "train.loss: si_sdr needs waveform, stft_compressed needs spectra; choose losses of",
        ),
    ],
)
def test_a_wrong_loss_is_an_error_that_names_the_right_ones(terms, message):
    with pytest.raises(SepcliError, match=message):
        losses.weighted(terms)


def test_mixture_consistency_makes_estimates_add_up_and_changes_nothing_twice(noise):
    mixture = torch.randn(2, 1, 4000, dtype=torch.float64)
    once = add_up(noise, mixture)
    torch.testing.assert_close(once.sum(1), mixture)
    torch.testing.assert_close(add_up(once, mixture), once)
    # Both sources move by half of what was missing.
    missing = mixture - noise.sum(1)
    torch.testing.assert_close(once - noise, torch.stack([missing, missing], 1) / 2)
    np.testing.assert_allclose(add_up(noise.numpy(), mixture.numpy()), once.numpy())


def test_the_parts_of_the_spectral_loss_are_what_numpy_makes_of_the_frames(noise):
    """Frame by frame: a Hann window of 64, hops of 32, and the discrete Fourier transform."""
    estimate, reference = noise[:1, :1], noise[1:, :1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)

    def spectrum(x):
        padded = np.pad(x[0, 0, 0].numpy(), 32, mode="reflect")
        starts = range(0, len(padded) - 63, 32)
        return np.stack([np.fft.rfft(window * padded[i : i + 64]) for i in starts])

    e, t = spectrum(estimate), spectrum(reference)
    complex_part = np.mean(np.stack([(e - t).real, (e - t).imag]) ** 2)
    magnitude = np.mean((np.abs(e) - np.abs(t)) ** 2)
    loss = losses.weighted({"spectral": {"weight": 2.0, "n_fft": 64, "hop": 32}})
    total, values = loss(estimate, reference)
    assert values["spectral.complex"].item() == pytest.approx(complex_part, rel=1e-9)
    assert values["spectral.magnitude"].item() == pytest.approx(magnitude, rel=1e-9)
    assert total.item() == pytest.approx(2 * (0.3 * complex_part + 0.7 * magnitude), rel=1e-9)


@pytest.mark.parametrize("name", ["si_sdr", "spectral", "l1", "magnitude", "scene", "phase"])
def test_sources_count_by_their_shares_and_those_of_no_share_not_at_all(noise, name):
    estimate, reference = noise, noise.roll(1, -1) + 0.1 * noise.flip(0)
    mix = reference.sum(1)
    alone = [
        losses.weighted({name: 1.0})(estimate[:, s : s + 1], reference[:, s : s + 1], mix)[0].item()
        for s in range(2)
    ]
    for shares in ([1.0, 0.0], [0.0, 2.0], [1.0, 3.0]):
        total, values = losses.weighted({name: 1.0}, shares)(estimate, reference, mix)
        expected = np.average(alone, weights=shares)
        assert total.item() == pytest.approx(expected, rel=1e-9)
        assert values[name].item() == pytest.approx(expected, rel=1e-9)
    other = torch.stack([estimate[:, 0], estimate[:, 1] * 7], 1)
    vocals = losses.weighted({name: 1.0}, [1.0, 0.0])
    assert vocals(other, reference, mix)[0] == vocals(estimate, reference, mix)[0]
