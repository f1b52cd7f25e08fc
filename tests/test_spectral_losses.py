"""Losses on the spectra of a model against those of the signals."""

import numpy as np
import pytest
import torch

from sepcli.dsp.consistency import add_up
from sepcli.errors import SepcliError
from sepcli.losses import spectral, waveforms
from sepcli.models import build
from sepcli.nn.filterbank import Stft
from sepcli.runs import runs
from sepcli.training import validation
from tests.models import EVERY, complete, randomise

SPECTRAL = [(name, s) for name, s in EVERY if hasattr(build(name, **s), "spectra")]
BETWEEN = {"name": "spectral_tasnet", "window": 64, "hop": 32, "width": 8, "hidden": 8, "blocks": 2}
TOY = {"kind": "toy", "duration_s": 0.05, "items": 4}
SOURCES = ["modulated", "sines"]


def signals(*shape):
    """Noise of float64 without a mean, to the end of which frames reach."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x - x.mean(-1, keepdim=True)


def analyse(stft, x):
    """The spectra (..., F, N) of signals (..., T), with frames before and after them."""
    padded = torch.nn.functional.pad(x, (0, stft.overlap)).flatten(0, -2)
    spectrum, _ = stft.analyse(padded, padded.new_zeros(len(padded), stft.overlap))
    return spectrum.unflatten(0, x.shape[:-1])


@pytest.mark.parametrize(
    ("kernel", "hop", "window"), [(64, 32, "sqrt_hann"), (96, 32, "hann"), (64, 16, "sqrt_hann")]
)
def test_si_sdr_of_spectra_is_that_of_the_signals(kernel, hop, window):
    stft = Stft(kernel, hop, window=window).double()
    reference, error = signals(2, 3, 2, 1, 320)  # (S.., B, C, T): any leading shape
    estimate = 0.7 * reference + 0.2 * error
    found = spectral.si_sdr(analyse(stft, estimate), analyse(stft, reference))
    torch.testing.assert_close(found, waveforms.si_sdr(estimate, reference), rtol=0, atol=1e-6)


def test_what_frames_do_not_agree_on_counts_as_an_error():
    stft = Stft(64, 32).double()
    reference = signals(4, 320)
    spectrum = analyse(stft, reference)
    masked = spectrum * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(0))
    made, _ = stft.synthesise(masked, spectrum.real.new_zeros(4, 32))
    made = made[:, 32:352] - made[:, 32:352].mean(-1, keepdim=True)
    assert (spectral.si_sdr(masked, spectrum) < waveforms.si_sdr(made, reference) - 0.1).all()


def test_si_sdr_comes_close_to_its_limit():
    t = analyse(Stft(64, 32).double(), signals(2, 320))
    assert spectral.si_sdr(2 * t, t, limit_db=30.0) == pytest.approx([30.0, 30.0], abs=1e-6)
    other = analyse(Stft(64, 32).double(), signals(4, 320)[2:])
    found = spectral.si_sdr(other, t, limit_db=30.0)
    torch.testing.assert_close(found, spectral.si_sdr(other, t), rtol=0, atol=0.1)


def test_snr_of_spectra_is_that_of_the_signals():
    stft = Stft(64, 32).double()
    reference, error = signals(2, 3, 320)
    found = spectral.snr(*(analyse(stft, x) for x in (0.9 * reference + error, reference)))
    torch.testing.assert_close(found, waveforms.snr(0.9 * reference + error, reference))


def test_the_loss_of_the_snr_minds_the_level_and_that_of_the_si_sdr_does_not():
    t = analyse(Stft(64, 32).double(), signals(2, 3, 1, 320))
    e = 0.1 * t
    assert spectral.si_sdr_loss(e, t, limit_db=25).item() == pytest.approx(-25, abs=1e-3)
    assert spectral.snr_loss(e, t).item() == pytest.approx(20 * np.log10(0.9), abs=1e-3)
    assert spectral.snr_loss(t, t, limit_db=25).item() == pytest.approx(-25, abs=1e-3)


def test_where_nobody_speaks_the_energy_of_the_estimate_counts():
    """10 log10(|e|^2 / |x|^2 + 10^-3): 0 for the mixture itself, -30 for silence."""
    x = analyse(Stft(64, 32).double(), signals(2, 1, 320))
    silence = torch.zeros_like(x)[:, None]
    for share, expected in ((1.0, 10 * np.log10(1.001)), (0.0, -30)):
        found = spectral.snr_loss(share * x[:, None], silence, x)
        assert found.item() == pytest.approx(expected, abs=1e-3)


def test_the_gradient_of_the_compressed_loss_is_its_gradient():
    shape = 1, 2, 1, 5, 4
    e, t = (torch.randn(shape, dtype=torch.complex128) for _ in range(2))

    def loss(x, y):
        return spectral.compressed_loss(x, y, power=0.4, complex_weight=0.2)

    assert torch.autograd.gradcheck(lambda x: loss(x, t), e.requires_grad_())


def test_a_normalised_loss_knows_no_level():
    e, t, x = (torch.randn(2, 1, 1, 5, 4, dtype=torch.complex128) for _ in range(3))
    found, softer = (
        spectral.compressed_loss(g * e, g * t, g * x[:, 0], normalise=True) for g in (1.0, 1e-3)
    )
    torch.testing.assert_close(found, softer, rtol=1e-5, atol=0)
    assert found > 0


def test_compressed_loss_of_a_scaled_spectrum_is_what_the_power_makes_of_it():
    """|E| = g |T| with the same phase: both parts are (1 - g^c)^2 mean |T|^(2 c)."""
    t = analyse(Stft(64, 32).double(), signals(2, 1, 1, 320))
    expected = (1 - 0.25**0.5) ** 2 * t.abs().mean()
    for weight in (0.0, 0.3, 1.0):
        found = spectral.compressed_loss(0.25 * t, t, power=0.5, complex_weight=weight)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("name", "settings"), SPECTRAL)
@pytest.mark.parametrize("length", [1601, 100])
def test_between_the_transforms_a_model_does_what_it_does_as_a_whole(name, settings, length):
    torch.manual_seed(0)
    model = complete(randomise(build(name, **settings)))
    x = torch.randn(2, model.channels, length)
    with torch.no_grad():
        spectra = model.spectra(model.analyse(x))
        assert spectra.shape[:3] == (2, len(model.sources), model.channels)
        torch.testing.assert_close(model.synthesise(spectra, length), model(x), rtol=0, atol=1e-5)


def test_the_spectra_of_all_sources_can_be_made_to_add_up():
    spectra = torch.randn(2, 3, 2, 9, 5, dtype=torch.complex64)
    mixture = torch.randn(2, 2, 9, 5, dtype=torch.complex64)
    torch.testing.assert_close(add_up(spectra, mixture).sum(1), mixture)


def config(loss, **model):
    train = {"steps": 2, "batch": 2, "log_every": 1, "validate_every": 2, "loss": loss}
    return runs.resolve(
        {
            "model": {**BETWEEN, "sources": SOURCES, **model},
            "data": {"train": TOY, "valid": TOY},
            "train": train,
        }
    )


def test_training_needs_no_inverse_transform_and_validates_the_sound(tmp_path, monkeypatch):
    run = runs.start(config({"stft_si_sdr": 0.1, "stft_compressed": 1.0}), tmp_path / "run")
    synthesised, inverse = [], Stft.synthesise

    def counted(self, *given):
        synthesised.append(run.model.training)
        return inverse(self, *given)

    monkeypatch.setattr(Stft, "synthesise", counted)
    records = list(run.records())
    assert synthesised
    assert not any(synthesised)  # by validations alone
    train = [record for record in records if record["event"] == "train"][-1]
    assert {"loss", "stft_si_sdr", "stft_compressed", "si_sdr_db"} <= set(train)
    valid = [record for record in records if record["event"] == "valid"][-1]
    data = run.valid_data
    mix, refs = (torch.stack(x) for x in zip(*(data[i] for i in range(4)), strict=True))
    with torch.no_grad():
        found = validation.measured(waveforms.si_sdr, run.state.kept(mix), refs, mix)
    assert valid["si_sdr_db"] == pytest.approx(found.mean().item(), abs=1e-4)


def test_what_a_teacher_makes_of_the_sound_is_compared_as_spectra(tmp_path):
    first = tmp_path / "first"
    for _ in runs.start(config({"stft_snr": 1.0}), first).records():
        pass
    same = config({"stft_snr": 1.0})
    same["train"] |= {"init": str(first), "teacher": str(first), "lr": 1e-9}
    records = runs.start(same, tmp_path / "second").records()
    train = [record for record in records if record["event"] == "train"][-1]
    assert train["teacher"] < train["stft_snr"] - 3  # dB, but for what its frames do not agree on


def test_a_loss_of_spectra_needs_a_model_that_has_them():
    wrong = config({"stft_si_sdr": 1.0})
    wrong["model"] = {"name": "conv_tasnet", "sources": SOURCES}
    with pytest.raises(SepcliError, match="stft_si_sdr needs a model between a Fourier transform"):
        runs.Run("", wrong)


def test_stretches_count_alike_however_loud_they_are():
    """Errors of -6 and -20 dB in two stretches: -13 dB, whatever their levels are."""
    torch.manual_seed(0)
    reference = torch.randn(2, 1, 2, 5, 8, dtype=torch.complex128)
    gains = torch.tensor([0.5, 0.1], dtype=torch.float64).repeat_interleave(4)
    for scale in (1.0, 5.0):
        level = torch.tensor([1.0, scale], dtype=torch.float64).repeat_interleave(4)
        t = reference * level
        found = spectral.stretches_loss(t * (1 - gains), t, frames=4, share=0.0)
        assert found.item() == pytest.approx(10 * np.log10(0.5 * 0.1), abs=0.05)


def test_what_silent_stretches_cost_is_bounded_by_the_mixture():
    mixture = torch.ones(1, 2, 5, 6, dtype=torch.complex64)
    reference = torch.zeros(1, 1, 2, 5, 6, dtype=torch.complex64)
    for level_db in (-20, -10, 0):
        estimate = 10 ** (level_db / 20) * mixture[:, None]
        found = spectral.stretches_loss(estimate, reference, mixture, frames=4, share=0.01)
        assert found.item() == pytest.approx(level_db + 20, abs=0.2)
    perfect = spectral.stretches_loss(reference, reference, mixture, frames=4, share=0.01)
    assert perfect.item() < -19
