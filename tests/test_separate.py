"""Separating in blocks and segments, phases, and averages of models: the library."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.dsp.griffin_lim import griffin_lim
from sepcli.dsp.mel import mel_filters
from sepcli.errors import SepcliError
from sepcli.inference import blockwise, loading, separate
from sepcli.inference.blockwise import Average, Method, WithResidual
from sepcli.inference.separate import Separator
from sepcli.jobs.outputs import default_model
from sepcli.models import build, modelfile
from sepcli.nn.model import Model
from sepcli.nn.spectral import CentredStft, OfflineSpectralModel
from tests.models import TINY, complete, randomise
from tests.separators import NAME, SETTINGS, noise, tiny, vocoder_file


class Halves(Model):
    """A stereo separator that is not causal: half of the mixture, and the rest."""

    sample_rate, sources, channels = 16000, ("a", "b"), 2

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return torch.stack([x * self.weight, x - x * self.weight], 1)


@pytest.fixture(scope="module")
def separator():
    return tiny()


@pytest.mark.parametrize(("name", "model_settings"), TINY)
def test_block_by_block_equals_the_model_at_once(name, model_settings):
    torch.manual_seed(0)
    model = complete(randomise(build(name, **model_settings)))
    x = noise(2, 5000)
    expected = model(torch.from_numpy(x)[:, None]).detach().numpy()  # (C, S, 1, T)
    blocks = np.split(x, [1, 700, 701, 3333], axis=1)
    got = np.concatenate(list(Separator(model).blocks(blocks, 16000, 2)), -1)  # (S, C, T)
    np.testing.assert_allclose(got, expected[:, :, 0].swapaxes(0, 1), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    length=st.integers(0, 9000),
    sample_rate=st.sampled_from([8000, 11025, 16000, 44100, 48000]),
    channels=st.integers(1, 3),
)
def test_rate_length_and_channels_of_the_input_are_kept(length, sample_rate, channels):
    model = randomise(build(NAME, **SETTINGS))
    estimates = Separator(model).separate(noise(channels, length), sample_rate)
    assert set(estimates) == {"speech", "noise"}
    assert all(e.shape == (channels, length) for e in estimates.values())


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_the_size_of_blocks_changes_nothing(separator, sample_rate, monkeypatch):
    x = noise(1, 60000)
    at_once = separator.separate(x, sample_rate)["speech"]
    monkeypatch.setattr(blockwise, "BLOCK_SECONDS", 0.1)
    np.testing.assert_allclose(separator.separate(x, sample_rate)["speech"], at_once, atol=1e-5)


def test_resampling_inside_keeps_the_signal_in_place():
    """The two sources add up to the mixture, so at 48 kHz they must add up to it below 7 kHz."""
    model = randomise(build(NAME, **SETTINGS))
    t = np.arange(48000) / 48000
    tone = (0.3 * np.sin(2 * np.pi * 1000 * t))[None].astype(np.float32)
    parts = Separator(model).separate(tone, 48000)
    total = parts["speech"] + parts["noise"]
    np.testing.assert_allclose(total[:, 2000:-2000], tone[:, 2000:-2000], atol=1e-4)


def test_a_model_that_is_not_causal_gets_a_short_signal_at_once():
    x = noise(2, 3000)
    estimates = Separator(Halves()).separate(x, 16000)
    np.testing.assert_allclose(estimates["a"], x / 2, atol=1e-7)
    np.testing.assert_allclose(estimates["a"] + estimates["b"], x, atol=1e-7)


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(0, 20000),
    segment_s=st.floats(0.001, 1),
    overlap=st.floats(0, 0.9),
    channels=st.integers(1, 6),
    block_s=st.floats(0.01, 1),
)
def test_halves_of_any_length_and_channels_add_up_to_the_input(
    length, segment_s, overlap, channels, block_s
):
    x = noise(channels, length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "BLOCK_SECONDS", block_s)
        parts = Separator(Halves(), method=Method(segment_s, overlap)).separate(x, 16000)
    np.testing.assert_allclose(parts["a"] + parts["b"], x, rtol=0, atol=1e-6)
    np.testing.assert_allclose(parts["a"], x / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("sample_rate", "channels"), [(16000, 1), (96000, 6), (44100, 3)])
def test_in_segments_rate_length_and_channels_of_the_input_are_kept(sample_rate, channels):
    t = np.arange(sample_rate) / sample_rate
    x = np.stack([0.3 * np.sin(2 * np.pi * 100 * (c + 1) * t) for c in range(channels)])
    x = x.astype(np.float32)
    separator = Separator(Halves(), method=Method(0.2, 0.3))
    parts = separator.separate(x, sample_rate)
    assert parts["a"].shape == x.shape
    inner = slice(sample_rate // 20, -sample_rate // 20)  # the resampler rings at the ends
    np.testing.assert_allclose(parts["a"][:, inner], x[:, inner] / 2, rtol=0, atol=1e-4)


class Middles(Halves):
    """A stereo model of two sources: what both channels share, and what they do not."""

    def forward(self, x):
        middle = self.weight * (x + x.flip(1))
        return torch.stack([middle, x - middle], 1)


def test_a_stereo_model_takes_channels_two_by_two_and_a_last_one_twice():
    x = noise(5, 3000)
    middle = Separator(Middles()).separate(x, 16000)["a"]
    pairs = [(x[0] + x[1]) / 2, (x[2] + x[3]) / 2, x[4]]
    np.testing.assert_allclose(middle, np.stack(pairs)[[0, 0, 1, 1, 2]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [16000, 22050])
def test_the_residual_is_the_mixture_without_what_was_chosen(separator, sample_rate):
    x = noise(2, 30000)
    for inner in (separator, Separator(Halves(), method=Method(0.3, 0.2))):
        one = inner.sources[:1]
        found = WithResidual(inner.only(one)).separate(x, sample_rate)
        assert list(found) == [*one, "residual"]
        alone = inner.separate(x, sample_rate)[one[0]]
        np.testing.assert_allclose(found[one[0]], alone, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found[one[0]] + found["residual"], x, rtol=0, atol=1e-6)


class Masks(OfflineSpectralModel):
    """Two sources by a mask that depends on the frequency alone, and so on no other frame."""

    sample_rate, sources, channels = 16000, ("low", "high"), 2

    def __init__(self):
        super().__init__()
        self.stft = CentredStft(256, 64)
        self.mask = torch.nn.Parameter(torch.linspace(1, 0, 129)[:, None])

    def spectra(self, spectrum):
        return torch.stack([self.mask * spectrum, (1 - self.mask) * spectrum], 1)


@pytest.mark.parametrize("overlap", [0.3, 0.6])
def test_segments_give_what_the_whole_gives_where_frames_depend_on_themselves(overlap):
    x = noise(2, 20000)
    whole = Separator(Masks()).separate(x, 16000)
    parts = Separator(Masks(), method=Method(0.2, overlap)).separate(x, 16000)
    for name in ("low", "high"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=0, atol=1e-6)


def test_griffin_lim_begins_at_the_estimates_or_at_random_phases():
    x, model = noise(2, 5000), Masks()
    by_default = Separator(model, method=Method(griffin_lim=8)).only(["high"]).separate(x, 16000)
    with torch.no_grad():
        spectra = model.spectra(model.stft.analyse(torch.from_numpy(x)[None]))[0, 1]
        expected = griffin_lim(spectra, model.stft.window, 64, 5000, iterations=8)
    np.testing.assert_allclose(by_default["high"], expected.numpy(), rtol=0, atol=1e-3)

    random = Separator(model, method=Method(griffin_lim=8, gl_init="random"))
    first = random.separate(x, 16000)["high"]
    assert np.abs(first - by_default["high"]).max() > 0.1
    np.testing.assert_array_equal(first, random.separate(x, 16000)["high"])


@pytest.mark.parametrize("gl_init", ["mix", "random"])
def test_griffin_lim_has_no_seams(gl_init):
    """In segments the magnitudes are as close to those wanted as they are in one piece."""
    t = np.arange(32000) / 16000
    x = (0.3 * np.sin(2 * np.pi * 440 * t * (1 + 0.02 * t)))[None].astype(np.float32)
    x = np.concatenate([x, x])

    def error_db(method):
        y = torch.from_numpy(Separator(Masks(), method=method).separate(x, 16000)["low"])
        stft, model = CentredStft(256, 64), Masks()
        wanted = model.spectra(stft.analyse(torch.from_numpy(x))[None])[0, 0].abs()
        missing = (stft.analyse(y).abs() - wanted).square().sum((0, 1))  # of each frame
        return 10 * torch.log10(missing.max() / wanted.square().sum((0, 1)).mean()).item()

    whole = error_db(Method(10, 0.1, griffin_lim=30, gl_init=gl_init))
    assert error_db(Method(0.8, 0.4, griffin_lim=30, gl_init=gl_init)) < whole + 0.5


@pytest.mark.parametrize("length", [1, 100, 129, 300])
def test_griffin_lim_takes_signals_shorter_than_a_window(length):
    found = Separator(Masks(), method=Method(griffin_lim=3)).separate(noise(1, length), 16000)
    assert found["low"].shape == (1, length)
    assert np.isfinite(found["low"]).all()


def test_a_wiener_filter_shares_out_the_mixture_between_estimates_or_one_and_the_rest():
    x = noise(2, 4000)

    def separate_with(model, iterations):
        return Separator(model, method=Method(wiener=iterations)).separate(x, 16000)

    two = separate_with(Masks(), 2)
    np.testing.assert_allclose(two["low"] + two["high"], x, rtol=0, atol=1e-3)
    assert np.abs(two["low"] - separate_with(Masks(), 0)["low"]).max() > 0.01
    one = separate_with(OneMask(), 2)
    np.testing.assert_allclose(one["low"], two["low"], rtol=0, atol=1e-5)


class OneMask(Masks):
    """The first source of `Masks` alone."""

    sources = ("low",)

    def spectra(self, spectrum):
        return super().spectra(spectrum)[:, :1]


def test_magnitudes_of_mel_bands_keep_the_phase_of_the_estimates():
    x = noise(2, 4000)
    whole = Separator(Masks()).separate(x, 16000)["low"]
    bands = Separator(Masks(), method=Method(vocoder="mel")).separate(x, 16000)["low"]
    error_db = 10 * np.log10(np.square(bands - whole).sum() / np.square(whole).sum())
    assert -60 < error_db < -10


class Hum:
    """A vocoder of which every row is as loud as the loudest of its bands."""

    bands = 20

    def __call__(self, mel, length):
        loudest = mel.amax((1, 2))
        return loudest[:, None].expand(-1, length)


def test_a_vocoder_is_any_callable_from_bands_to_samples():
    x = noise(2, 4000)
    got = Separator(Masks(), method=Method(vocoder=Hum())).only(["high"]).separate(x, 16000)
    spectrum = (
        CentredStft(256, 64).analyse(torch.from_numpy(x)).abs() * torch.linspace(0, 1, 129)[:, None]
    )
    mel = mel_filters(16000, 256, 20) @ spectrum
    expected = mel.amax((1, 2)).log().numpy()
    np.testing.assert_allclose(got["high"], np.tile(expected[:, None], 4000), rtol=1e-4)


def test_a_vocoder_may_be_an_onnx_graph(tmp_path):
    x = noise(2, 4000)
    path = vocoder_file(tmp_path / "v.onnx", 20)
    got = Separator(Masks(), method=Method(vocoder=path)).separate(x, 16000)["low"]
    mask = torch.linspace(1, 0, 129)[:, None]
    spectrum = CentredStft(256, 64).analyse(torch.from_numpy(x)).abs() * mask
    mel = (mel_filters(16000, 256, 20) @ spectrum).clamp(min=1e-5).log()
    np.testing.assert_allclose(got[:, :63], mel.mean(1).numpy(), rtol=1e-3, atol=1e-4)
    assert (got[:, 63:] == 0).all()


def test_what_is_no_vocoder_says_so(tmp_path):
    (tmp_path / "text.onnx").write_bytes(b"text")
    for path, why in (
        (tmp_path / "text.onnx", "text.onnx: not an ONNX graph that can be run"),
        (tmp_path / "missing.onnx", "missing.onnx: No such file"),
        (vocoder_file(tmp_path / "any.onnx", "M"), "any.onnx: not a vocoder, its inputs are"),
    ):
        with pytest.raises(SepcliError, match=why):
            Separator(Masks(), method=Method(vocoder=str(path)))


def test_spectra_of_a_model_trained_so_add_up_to_the_mixture():
    x = noise(2, 3000)
    separator = Separator(OneMask())
    assert np.abs(separator.separate(x, 16000)["low"] - x).max() > 0.01
    separator.model.consistent = True
    np.testing.assert_allclose(separator.separate(x, 16000)["low"], x, rtol=0, atol=1e-6)


def test_a_model_without_spectra_has_no_griffin_lim(separator):
    with pytest.raises(SepcliError, match="the model estimates no spectra for a Wiener filter"):
        Separator(separator.model, method=Method(griffin_lim=1))


def test_sources_add_up_to_the_mixture_when_the_model_was_trained_so(tmp_path):
    path = tmp_path / "net.safetensors"
    model = randomise(build(*TINY[0][:1], **TINY[0][1]))
    x = noise(2, 5000)
    for consistent in (False, True):
        card = {"train": {"mixture_consistency": consistent}}
        modelfile.save(path, TINY[0][0], TINY[0][1], model.state_dict(), card)
        loaded = loading.load(path)
        blocks = np.split(x, [1, 700, 701, 3333], axis=1)
        total = np.concatenate(list(loaded.blocks(blocks, 16000, 2)), -1).sum(0)  # (C, T)
        assert (np.abs(total - x).max() < 1e-6) == consistent


def test_a_model_of_more_channels_refuses_other_numbers():
    model = Halves()
    model.channels = 4
    with pytest.raises(SepcliError, match="takes 4 channels but the audio has 3"):
        Separator(model).separate(noise(3, 100), 16000)


class Only(Halves):
    """A mono model that finds one source, `gain` times the mixture."""

    channels = 1

    def __init__(self, source, gain, causal=False):
        super().__init__()
        self.sources, self.gain, self.causal = (source,), gain, causal
        self.hop, self.delay = 7, 20

    def forward(self, x):
        return self.gain * x[:, None] * (2 * self.weight)

    def initial_state(self, batch):
        return torch.zeros(batch, 1, self.delay)

    def step(self, x, state):
        x = torch.cat([state, x], -1)
        return self.forward(x[..., : -self.delay]), x[..., -self.delay :]


@pytest.mark.parametrize("sample_rate", [16000, 22050])
def test_an_average_is_the_mean_over_the_models_that_find_a_source(sample_rate):
    separators = [
        Separator(Only("a", 1.0), method=Method(0.05, 0.2)),
        Separator(Halves(), method=Method(0.3, 0.5)),
        Separator(Only("c", 3.0, causal=True)),
        Separator(Only("a", 0.0, causal=True)),
    ]
    x = noise(2, 30000)
    alone = [each.separate(x, sample_rate) for each in separators]
    together = Average(separators).separate(x, sample_rate)
    assert list(together) == ["a", "b", "c"]
    expected = (alone[0]["a"] + alone[1]["a"] + alone[3]["a"]) / 3
    np.testing.assert_allclose(together["a"], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(together["b"], alone[1]["b"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(together["c"], alone[2]["c"], rtol=0, atol=1e-6)


def test_audio_without_a_channel_axis_is_refused(separator):
    with pytest.raises(ValueError, match=r"expected \(channels, samples\), got shape \(100,\)"):
        separator.separate(np.zeros(100), 16000)


def test_an_unknown_device_says_what_to_do():
    with pytest.raises(SepcliError, match="device 'quantum' is not available here; use --device"):
        separate.pick_device("quantum")


def test_default_models():
    assert default_model(["speech"]) == "denoise"
    assert default_model(["drums", "vocals"]) == default_model([]) == "vocals"
    with pytest.raises(SepcliError, match="no default model separates piano; choose one with -m"):
        default_model(["piano"])
