import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli import audio
from sepcli.cli import main
from sepcli.data.samples import Sample, open_sample_writer, read_samples
from sepcli.engine import modelfile, separate
from sepcli.engine.separate import Average, Method, Separator, WithResidual
from sepcli.engine.stems import default_model
from sepcli.errors import SepcliError
from sepcli.models import build
from sepcli.nn.griffin_lim import griffin_lim
from sepcli.nn.mel import mel_filters
from sepcli.nn.spectral import CentredStft, OfflineSpectralModel
from tests.models import TINY, randomise

NAME, SETTINGS = "spectral_tasnet", {"width": 8, "hidden": 8, "blocks": 2, "repeats": 1}


def noise(channels, length, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, length), np.float32)


class Halves(torch.nn.Module):
    """A stereo separator that is not causal: half of the mixture, and the rest."""

    sample_rate, sources, channels, causal = 16000, ("a", "b"), 2, False

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return torch.stack([x * self.weight, x - x * self.weight], 1)


@pytest.fixture(scope="module")
def separator():
    torch.manual_seed(0)
    return Separator(randomise(build(NAME, **SETTINGS)))


@pytest.fixture(scope="module")
def model_file(separator, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    modelfile.save(path, NAME, SETTINGS, separator.model.state_dict(), {})
    return str(path)


def invoke(*args, **kwargs):
    return CliRunner().invoke(main, ["separate", *map(str, args)], **kwargs)


# The library


@pytest.mark.parametrize(("name", "model_settings"), TINY)
def test_block_by_block_equals_the_model_at_once(name, model_settings):
    torch.manual_seed(0)
    model = randomise(build(name, **model_settings))
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
    monkeypatch.setattr(separate, "BLOCK_SECONDS", 0.1)
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
        patch.setattr(separate, "BLOCK_SECONDS", block_s)
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


def vocoder_file(path, bands, frames="N"):
    """An ONNX graph that gives the mean of its bands, once a frame."""
    from onnx import TensorProto, helper, save

    shape = ["B", bands, frames]
    node = helper.make_node("ReduceMean", ["mel", "axis"], ["y"], keepdims=0)
    graph = helper.make_graph(
        [node],
        "mean",
        [helper.make_tensor_value_info("mel", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", frames])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    save(made, path)
    return str(path)


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
        (tmp_path / "missing.onnx", "missing.onnx: not an ONNX graph that can be run"),
        (vocoder_file(tmp_path / "any.onnx", "M"), "any.onnx: no vocoder, its inputs are"),
    ):
        with pytest.raises(SepcliError, match=why):
            Separator(Masks(), method=Method(vocoder=str(path)))


def test_spectra_of_a_model_trained_so_add_up_to_the_mixture():
    x = noise(2, 3000)
    separator = Separator(OneMask())
    assert np.abs(separator.separate(x, 16000)["low"] - x).max() > 0.01
    separator.consistent = True
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
        loaded = separate.load(path)
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
    with pytest.raises(SepcliError, match="no default model finds piano; choose one with -m"):
        default_model(["piano"])


# The command: audio files


@pytest.fixture
def track(tmp_path):
    audio.write(tmp_path / "track.wav", noise(2, 5000), 44100)
    return tmp_path / "track.wav"


def test_stems_of_files_go_into_a_folder_per_track(track, model_file, tmp_path):
    other = tmp_path / "other.flac"
    audio.write(other, noise(1, 3000, seed=1), 8000)
    result = invoke("-m", model_file, track, other, "-o", tmp_path / "out")
    assert (result.exit_code, result.output) == (0, "")
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.wav")}
    assert names == {f"{t}/{s}.wav" for t in ("track", "other") for s in ("speech", "noise")}
    about = audio.info(tmp_path / "out/track/speech.wav")
    assert (about.sample_rate, about.channels, about.frames) == (44100, 2, 5000)
    about = audio.info(tmp_path / "out/other/noise.wav")
    assert (about.sample_rate, about.channels, about.frames) == (8000, 1, 3000)


def test_the_default_folder_is_separated(track, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("-m", model_file, track).exit_code == 0
    assert Path("separated/tiny/track/speech.wav").exists()


def test_the_files_hold_what_the_library_returns(track, model_file, separator, tmp_path):
    assert invoke("-m", model_file, track, "-o", tmp_path / "out").exit_code == 0
    got, _ = audio.read(tmp_path / "out/track/speech.wav")
    expected = separator.separate(audio.read(track)[0], 44100)["speech"]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_one_target_fits_into_one_file_of_any_format(track, model_file, tmp_path):
    out = tmp_path / "speech.flac"
    args = ("-m", model_file, track, "--target", "speech", "--subtype", "PCM_16", "-o", out)
    assert invoke(*args).exit_code == 0
    assert (audio.info(out).format, audio.info(out).subtype) == ("FLAC", "PCM_16")


def test_names_follow_the_template(track, model_file, tmp_path):
    args = ("--filename", "{model}/{stem}-of-{track}.flac", "-o", tmp_path / "out")
    assert invoke("-m", model_file, track, *args).exit_code == 0
    assert (tmp_path / "out/tiny/speech-of-track.flac").exists()


def test_a_format_changes_the_extension_and_the_residual_is_a_stem(track, model_file, tmp_path):
    args = ("--target", "speech", "--residual", "--format", "FLAC", "-o", tmp_path / "out")
    assert invoke("-m", model_file, track, *args).exit_code == 0
    parts = [audio.read(tmp_path / f"out/track/{s}.flac")[0] for s in ("speech", "residual")]
    np.testing.assert_allclose(sum(parts), audio.read(track)[0], rtol=0, atol=1e-6)  # 24 bits
    assert not (tmp_path / "out/track/noise.flac").exists()


def test_a_format_on_standard_output(track, model_file):
    args = ("--target", "speech", "--format", "flac", "-o", "-")
    result = invoke("-m", model_file, track, *args)
    assert result.stdout_bytes[:4] == b"fLaC"


def test_a_part_of_a_file(track, model_file, separator, tmp_path):
    args = ("--start", "0.05", "--duration", "0.04", "-o", tmp_path / "out")
    assert invoke("-m", model_file, track, *args).exit_code == 0
    got, rate = audio.read(tmp_path / "out/track/noise.wav")
    part = audio.read(track)[0][:, 2205 : 2205 + 1764]
    np.testing.assert_allclose(got, separator.separate(part, rate)["noise"], rtol=0, atol=1e-6)


def test_several_models_are_averaged(track, separator, model_file, tmp_path):
    torch.manual_seed(1)
    other = randomise(build(NAME, **SETTINGS))
    modelfile.save(tmp_path / "other.safetensors", NAME, SETTINGS, other.state_dict(), {})
    args = (
        "-m",
        model_file,
        "-m",
        tmp_path / "other.safetensors",
        "--filename",
        "{model}-{stem}.wav",
    )
    assert invoke(*args, track, "-o", tmp_path / "out").exit_code == 0
    x, rate = audio.read(track)
    got, _ = audio.read(tmp_path / "out/tiny+other-speech.wav")
    both = [each.separate(x, rate)["speech"] for each in (separator, Separator(other))]
    np.testing.assert_allclose(got, sum(both) / 2, rtol=0, atol=1e-6)


UNMIX = {"window": 256, "hop": 64, "hidden": 8, "layers": 1, "sample_rate": 16000}


@pytest.fixture
def unmix_file(tmp_path):
    torch.manual_seed(0)
    model = randomise(build("open_unmix", **UNMIX))
    modelfile.save(tmp_path / "umx.safetensors", "open_unmix", UNMIX, model.state_dict(), {})
    return tmp_path / "umx.safetensors"


def test_wiener_filters_and_griffin_lim_are_options(track, unmix_file, tmp_path):
    args = ("-m", unmix_file, track, "--target", "vocals", "--segment", "0.1", "--overlap", "0.3")
    ways = {"mix": (), "gl": ("--griffin-lim",), "random": ("--griffin-lim", "--gl-init", "random")}
    ways["wiener"] = ("--wiener", "1")
    ways["mel"] = ("--vocoder", "mel")
    ways["mel, gl"] = ("--vocoder", "mel", "--griffin-lim")
    ways["vocoder"] = ("--vocoder", vocoder_file(tmp_path / "v.onnx", 20))
    ways["short"] = ("--griffin-lim", "--gl-iters", "1")
    found = []
    for name, way in ways.items():
        assert invoke(*args, *way, "-o", tmp_path / f"{name}.wav").output == ""
        found.append(audio.read(tmp_path / f"{name}.wav")[0])
        assert found[-1].shape == (2, 5000)
    assert len({each.tobytes() for each in found}) == len(ways)


def test_griffin_lim_on_samples(unmix_file, tmp_path):
    args = ("-m", unmix_file, "-", "--target", "vocals", "--residual", "--griffin-lim")
    with open_sample_writer(tmp_path / "in.tar") as writer:
        writer.write(sample(0))
    result = invoke(*args, input=(tmp_path / "in.tar").read_bytes())
    [made] = read_samples("-", stdin=io.BytesIO(result.stdout_bytes))
    assert made.names("est") == ["est.residual.wav", "est.vocals.wav"]
    total = made.audio("est.vocals") + made.audio("est.residual")
    np.testing.assert_allclose(total, made.audio("mix"), rtol=0, atol=1e-6)


USAGE = [
    (["--gl-iters", "3"], "--gl-iters and --gl-init go with --griffin-lim; add it."),
    (["--gl-init", "random"], "--gl-iters and --gl-init go with --griffin-lim; add it."),
    (["--vocoder", "v.onnx", "--griffin-lim"], "a vocoder has phases of its own; omit --griffin"),
    (["--format", "wma"], "'wma' is not one of wav, rf64, w64, flac, ogg"),
    (["--overlap", "1"], "1.0 is not in the range 0<=x<=0.9"),
    (["--segment", "0"], "0.0 is not in the range 0.1<=x<=3600"),
    (["--duration", "0"], "0.0 is not in the range x>0"),
]


@pytest.mark.parametrize(("args", "line"), USAGE)
def test_wrong_options_are_usage_errors(track, model_file, args, line):
    result = invoke("-m", model_file, track, *args)
    assert result.exit_code == 2
    assert line in result.stderr


def test_samples_that_clip_are_reported(model_file, tmp_path):
    audio.write(tmp_path / "loud.wav", 30 * noise(1, 4000), 16000)
    args = ("-m", model_file, tmp_path / "loud.wav", "--subtype", "PCM_16", "-o", tmp_path / "out")
    assert "samples clipped; --subtype FLOAT keeps them" in invoke(*args).stderr


def test_wav_in_one_signal_out_stays_wav(track, model_file):
    result = invoke("-m", model_file, "--target", "speech", "-", input=track.read_bytes())
    assert result.exit_code == 0
    with audio.open_blocks(io.BytesIO(result.stdout_bytes)) as reader:
        assert (reader.sample_rate, reader.channels) == (44100, 2)
        assert reader.rest().shape == (2, 5000)


ERRORS = [  # arguments after the model, the line
    (["missing.wav"], "missing.wav: no such file or folder; check the spelling"),
    (["track.wav", "--target", "drums"], "the model finds speech, noise, not drums; choose"),
    (["track.wav", "-o", "x.wav"], "x.wav: one file, but the model finds speech, noise; choose"),
    (["track.wav", "-o", "x.txt"], "x.txt: .txt is no audio format; use .wav or .flac, say"),
    (["track.wav", "-o", "-"], "one signal fits on standard output, not speech, noise; choose"),
    (["track.wav", "--filename", "{stem}{x}"], "unknown x; known are {track}, {stem}"),
    (["track.wav", "--filename", "{track}.wav"], "add {stem}, or stems would collide"),
    (["track.wav", "--filename", "{stem"], "file name template '{stem': expected '}'"),
    (["track.wav", "--subtype", "PCM_99"], "PCM_99"),
    (["broken.wav"], "broken.wav: "),
    (["track.wav", "--device", "quantum"], "device 'quantum' is not available here"),
    (["track.wav", "--wiener", "1"], "the model estimates no spectra for a Wiener filter, "),
    (
        ["track.wav", "--griffin-lim"],
        "the model estimates no spectra for a Wiener filter, Griffin-Lim or",
    ),
    (["track.wav", "--start", "1"], "track.wav: ends before 1 s; lower --start"),
    (
        ["track.wav", "--target", "noise", "-o", "x.flac", "--format", "wav"],
        "x.flac: its name is not one of wav; omit --format",
    ),
    (["track.wav", "track.wav", "--overwrite"], "two inputs would be written there; name a"),
]


@pytest.mark.parametrize(("args", "line"), ERRORS)
def test_an_error_is_one_line_that_says_what_to_do(
    track, model_file, tmp_path, monkeypatch, args, line
):
    monkeypatch.chdir(tmp_path)
    Path("broken.wav").write_bytes(b"RIFF\x00")
    before = set(Path().iterdir())
    result = invoke("-m", model_file, *args)
    assert result.exit_code == 1
    assert line in result.stderr
    assert "Traceback" not in result.stderr
    if "--overwrite" not in args:
        assert set(Path().iterdir()) - before <= {Path("separated")}
        assert not list(Path("separated").rglob("*.wav"))


def test_songs_are_separated_by_the_model_that_ships_unless_another_is_named(
    track, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert invoke(track).exit_code == 0
    names = {path.name for path in Path("separated").rglob("*.wav")}
    assert names == {"vocals.wav", "accompaniment.wav"}
    parts = [audio.read(Path("separated/vocals/track") / name)[0] for name in names]
    np.testing.assert_allclose(sum(parts), audio.read(track)[0], rtol=0, atol=1e-5)


def test_existing_files_are_neither_lost_nor_made_anew(track, model_file, tmp_path):
    args = ("-m", model_file, track, "-o", tmp_path / "out")
    assert invoke(*args).exit_code == 0
    target = tmp_path / "out/track/speech.wav"
    target.write_bytes(b"mine")
    result = invoke(*args)
    assert result.exit_code == 1
    assert "exists; use --overwrite or --skip-existing" in result.stderr
    assert invoke(*args, "--skip-existing").exit_code == 0
    assert target.read_bytes() == b"mine"
    assert invoke(*args, "--overwrite").exit_code == 0
    assert audio.info(target).frames == 5000


def test_the_other_files_are_done_when_one_is_broken(track, model_file, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF\x00")
    result = invoke("-m", model_file, broken, track, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "Failed: " in result.stderr
    assert "Error: 1 of 2 could not be separated, see above" in result.stderr
    assert (tmp_path / "out/track/speech.wav").exists()


# The command: samples


def sample(index, length=2000, rate=16000):
    made = Sample(f"{index:06d}", {"sample_rate": rate, "targets": ["speech"]})
    made.set_audio("mix", noise(1, length, seed=index))
    made.set_audio("ref.speech", noise(1, length, seed=index + 100))
    made.members["note.txt"] = b"kept"
    return made


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "samples.tar"
    with open_sample_writer(path) as writer:
        for index in range(3):
            writer.write(sample(index))
    return path.read_bytes()


def test_a_sample_stream_gets_estimates_and_keeps_all_else(stream, model_file, separator):
    result = invoke("-m", model_file, "-", input=stream)
    assert result.exit_code == 0
    before = list(read_samples("-", stdin=io.BytesIO(stream)))
    after = list(read_samples("-", stdin=io.BytesIO(result.stdout_bytes)))
    assert [s.key for s in after] == [s.key for s in before]
    for old, new in zip(before, after, strict=True):
        assert {name: new.members[name] for name in old.members} == old.members
        assert set(new.members) - set(old.members) == {"est.speech.wav"}
        expected = separator.separate(old.audio("mix"), 16000)["speech"]
        np.testing.assert_allclose(new.audio("est.speech"), expected, atol=1e-6)


def test_targets_choose_the_estimates(stream, model_file):
    args = ("-m", model_file, "--target", "noise", "--target", "speech", "-")
    result = invoke(*args, input=stream)
    for new in read_samples("-", stdin=io.BytesIO(result.stdout_bytes)):
        assert new.names("est") == ["est.noise.wav", "est.speech.wav"]


def test_a_folder_of_samples_goes_into_a_folder_of_samples(model_file, tmp_path):
    with open_sample_writer(tmp_path / "in") as writer:
        writer.write(sample(0))
    assert invoke("-m", model_file, tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out/000000/est.speech.wav").exists()


def test_a_stream_that_was_cut_off_is_an_error(stream, model_file):
    result = invoke("-m", model_file, "-", input=stream[:12000])
    assert result.exit_code == 1
    assert "Error: " in result.stderr
    whole = read_samples("-", stdin=io.BytesIO(result.stdout_bytes))
    with pytest.raises(SepcliError):  # and what we wrote tells the next command
        list(whole)


def test_a_sample_that_cannot_be_separated_goes_on_as_it_came(model_file, tmp_path):
    broken = sample(1)
    del broken.members["mix.wav"]
    with open_sample_writer(tmp_path / "in.tar") as writer:
        for item in (sample(0), broken, sample(2)):
            writer.write(item)
    data = (tmp_path / "in.tar").read_bytes()
    result = invoke("-m", model_file, "-", input=data)
    assert result.exit_code == 1
    assert "000001 has no mix; it holds note.txt, ref.speech.wav" in result.stderr.replace(
        "ref.speech.wav, note.txt", "note.txt, ref.speech.wav"
    )
    after = list(read_samples("-", stdin=io.BytesIO(result.stdout_bytes)))
    assert [s.has("est.speech") for s in after] == [True, False, True]


def test_a_sample_is_separated_whole(stream, model_file):
    result = invoke("-m", model_file, "-", "--duration", "1", input=stream)
    assert result.exit_code == 1
    assert "000000: samples are separated whole; omit --start and --duration" in result.stderr


def test_empty_standard_input_says_so(model_file):
    result = invoke("-m", model_file, "-", input=b"")
    assert result.exit_code == 1
    assert "standard input is empty" in result.stderr


def test_a_sample_is_handed_on_before_the_next_one_arrives(stream, model_file):
    """A live pipe: the first sample comes out while the second has not been written yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sepcli", "separate", "-m", model_file, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    second = stream.index(b"000001.json")
    process.stdin.write(stream[:second])
    process.stdin.flush()
    head = b""
    while b"000000.est.speech.wav" not in head:
        head += process.stdout.read1(4096)
    rest, _ = process.communicate(stream[second:], timeout=60)
    assert process.returncode == 0
    assert len(list(read_samples("-", stdin=io.BytesIO(head + rest)))) == 3
