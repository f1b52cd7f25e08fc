"""What the notebook of the noise suppressor asserts, of the public functions and of the recipe."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import fftconvolve
from torch.utils.data import DataLoader

import sepcli
from sepcli.config import load
from sepcli.errors import SepcliError
from sepcli.losses.stfts import spectral_loss
from sepcli.losses.waveforms import si_sdr
from sepcli.models import build
from sepcli.recordings import stored
from tests import notebook
from tests.models import randomise

EXACT = 1e-12
RATE = 16000
RECIPE = Path(sepcli.__file__).parent.parent / "recipes/denoise-16k/config.yaml"


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def decaying(rt60_s, seed=0, seconds=1.5):
    t = np.arange(round(seconds * RATE)) / RATE
    return np.random.default_rng(seed).choice([-1.0, 1.0], t.size) * 10 ** (-3 * t / rt60_s)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Folders speech, noise and rooms: long, short and soft files, and one silent beginning."""
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("speech", "noise", "rooms"):
        (folder / name).mkdir()
    signals = {
        "speech/long": 0.2 * noise(0, 1, 20 * RATE),
        "speech/short": 0.2 * noise(1, 1, RATE),
        "noise/soft": 1e-4 * noise(2, 1, 5 * RATE),
        "noise/half": 0.2 * noise(3, 1, 10 * RATE) * (np.arange(10 * RATE) > 5 * RATE),
        "rooms/a": np.pad(0.5 * decaying(0.5), (100, 0))[None],
        "rooms/b": -0.7 * decaying(0.3)[None],
    }
    for name, signal in signals.items():
        sepcli.write(folder / f"{name}.wav", signal.astype(np.float32), RATE)
    return folder


# Levels


def test_levels():
    t = np.arange(RATE) / RATE
    sine = np.sin(2 * np.pi * 100 * t)
    assert sepcli.mean_square(sine) == pytest.approx(0.5, abs=EXACT)
    assert sepcli.rms(sine) == pytest.approx(1 / math.sqrt(2), abs=EXACT)
    assert sepcli.rms_db(sine) == pytest.approx(10 * math.log10(0.5), abs=EXACT)
    assert sepcli.rms_db(np.ones(100)) == 0  # re 1.0
    assert sepcli.power_to_db(1000.0) == pytest.approx(30, abs=EXACT)
    assert sepcli.db_to_power(30.0) == pytest.approx(1000, rel=EXACT)


@given(st.floats(-100, 100))
def test_gains_and_multipliers_are_inverse(gain_db):
    factor = sepcli.db_to_amplitude(gain_db)
    assert factor == pytest.approx(notebook.gain_to_multiplier(gain_db), rel=EXACT)
    assert sepcli.amplitude_to_db(factor) == pytest.approx(gain_db, abs=1e-10)
    assert factor**2 == pytest.approx(sepcli.db_to_power(gain_db), rel=1e-11)


@given(st.integers(0, 1000), st.floats(-60, 0))
def test_a_normalised_signal_has_the_level(seed, level_db):
    x = 0.01 * noise(seed, 2, 500)
    y = sepcli.normalize_to_rms(x, level_db)
    assert sepcli.rms_db(y) == pytest.approx(level_db, abs=1e-11)
    np.testing.assert_allclose(y, notebook.normalize_to_rms(x, level_db), rtol=1e-11)


@given(st.integers(0, 1000), st.floats(-40, 40))
def test_a_mixture_has_the_snr_and_the_metric_measures_it(seed, snr_db):
    clean, other = noise(seed, 1, 500), 5 * noise(seed + 1, 1, 500)
    mix = sepcli.mix_at_snr(clean, other, snr_db)
    assert sepcli.snr_db(mix, clean) == pytest.approx(snr_db, abs=1e-9)
    np.testing.assert_allclose(mix - clean, sepcli.scale_to_snr(other, clean, snr_db), atol=1e-9)
    error = mix - clean
    expected = 10 * np.log10(np.sum(clean**2) / np.sum(error**2))  # reference over error
    assert sepcli.snr_db(mix, clean) == pytest.approx(expected, abs=EXACT * 100)


# Rooms


def test_a_room_keeps_the_length_and_a_unit_impulse_the_signal():
    x, rir = noise(0, 1, 4000), decaying(0.3)
    np.testing.assert_allclose(
        sepcli.apply_rir(x, rir)[0], fftconvolve(x[0], rir)[:4000], atol=1e-9
    )
    np.testing.assert_allclose(sepcli.apply_rir(x, np.eye(1, 100)[0]), x, atol=EXACT)


@pytest.mark.parametrize("rt60_s", [0.3, 0.5, 1.0])
def test_a_decayed_room_keeps_the_beginning_and_is_shorter(rt60_s):
    rir = np.concatenate([np.zeros(50), decaying(rt60_s)])
    short = sepcli.decay_rir(rir, RATE)
    early = 50 + RATE // 50
    np.testing.assert_array_equal(short[: early + 1], rir[: early + 1])
    np.testing.assert_allclose(short, notebook.decay(rir), atol=EXACT)
    assert short[early + round(0.3 * RATE)] / rir[early + round(0.3 * RATE)] == pytest.approx(1e-3)
    combined = 1 / (1 / rt60_s + 1 / 0.3)
    for method in ("schroeder", "regression"):
        measured = sepcli.measure_rir(short, RATE, method=method).rt60_s
        assert measured == pytest.approx(combined, rel=0.05)
        assert sepcli.measure_rir(rir, RATE, method=method).rt60_s == pytest.approx(
            rt60_s, rel=0.05
        )


# Samplers


def test_crops_have_the_length_and_no_file_is_read_whole(recordings, monkeypatch):
    asked, read = [], stored.read

    def noted(path, *, start=0, stop=None, **how):
        asked.append((path, stop - start))
        return read(path, start=start, stop=stop, **how)

    monkeypatch.setattr(stored, "read", noted)
    sampler = sepcli.SignalSampler(recordings / "speech/long.wav", duration_s=2)
    crops = list(islice(sampler, 20))
    assert all(crop.shape == (2 * RATE,) and crop.dtype == np.float32 for crop in crops)
    assert {frames for _, frames in asked} == {2 * RATE}
    whole = sepcli.read(recordings / "speech/long.wav")[0][0]
    for k, crop in enumerate(crops):
        _, [piece] = sampler.draw_with_record(k)
        np.testing.assert_array_equal(crop, whole[piece["start"] : piece["stop"]])
    assert len({piece.tobytes() for piece in crops}) == 20


def test_soft_crops_are_drawn_again_and_short_recordings_joined(recordings):
    for crop in islice(sepcli.SignalSampler(recordings / "noise", duration_s=1), 20):
        assert sepcli.rms_db(crop) > -38
    sampler = sepcli.SignalSampler([recordings / "speech/short.wav"], duration_s=3.5)
    crop, pieces = sampler.draw_with_record(0)
    assert (crop.size, len(pieces)) == (round(3.5 * RATE), 4)
    with pytest.raises(SepcliError, match="quieter than -38 dB"):
        sepcli.SignalSampler(recordings / "noise/soft.wav").draw(0)
    with pytest.raises(SepcliError, match="duration_s must be above 0"):
        sepcli.SignalSampler(recordings / "noise", duration_s=0)


def test_a_draw_is_a_function_of_seed_and_index(recordings):
    first, again, other = (
        sepcli.SignalSampler(recordings / "speech", duration_s=1, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.draw(3), list(islice(again, 4))[3])
    assert not np.array_equal(first.draw(3), other.draw(3))


def test_rooms_are_drawn_with_the_direct_sound_at_one(recordings):
    rirs = list(islice(sepcli.RirSampler(recordings / "rooms"), 10))
    for rir in rirs:
        assert np.abs(rir).max() == rir.max() == 1
    assert {int(np.argmax(rir)) for rir in rirs} == {0, 100}
    sepcli.write(recordings / "silence.wav", np.zeros((1, 100), np.float32), RATE)
    with pytest.raises(SepcliError, match="silent, so it is not an impulse response"):
        sepcli.RirSampler(recordings / "silence.wav").draw(0)


# Mixtures


def dataset(recordings, **settings):
    given = {"speech": recordings / "speech", "noise": recordings / "noise/half.wav"}
    rooms = {"rir": recordings / "rooms", "preset": "poconet", "duration_s": 0.5}
    return sepcli.Dataset(**{**given, **rooms, "items": 64, "seed": 7, **settings})


def test_workers_make_different_items_and_always_the_same(recordings):
    items = [dataset(recordings)[i] for i in range(64)]
    mixes = torch.stack([mix for mix, _ in items])
    assert mixes.shape == (64, 1, RATE // 2)
    assert len({mix.numpy().tobytes() for mix in mixes}) == 64
    for workers in (0, 2):
        batches = list(DataLoader(dataset(recordings), batch_size=16, num_workers=workers))
        torch.testing.assert_close(torch.cat([mix for mix, _ in batches]), mixes, rtol=0, atol=0)
        assert all(refs.shape == (16, 1, 1, RATE // 2) for _, refs in batches)


def test_a_dataset_has_a_length_and_an_end(recordings):
    data = dataset(recordings, items=3)
    assert len(data) == 3
    torch.testing.assert_close(data[-1][0], data[2][0], rtol=0, atol=0)
    for number in (3, -4):
        with pytest.raises(IndexError, match=f"item {number} of 3"):
            _ = data[number]
    for settings, message in (
        ({"items": 0}, "items must be at least 1"),
        ({"kind": "mixtrues"}, "unknown data.kind 'mixtrues'"),
        ({"snr": 3}, "snr"),
        ({"speech": recordings / "nothing"}, "no such file"),
    ):
        with pytest.raises(SepcliError, match=message):
            dataset(recordings, **settings)


def test_mixtures_have_the_levels_of_the_notebook(recordings):
    """The target at -20 dB, the noise within 5 dB of it, and all of it -25 to 5 dB louder."""
    spec = sepcli.Dataset(
        speech=recordings / "speech",
        noise=recordings / "noise/half.wav",
        rir=recordings / "rooms",
        preset="poconet",
        duration_s=1,
        sources=("speech", "noise"),
    )
    records = [spec.source.draw(0, i) for i in range(100)]
    levels = [sepcli.rms_db(item.refs["speech"]) for item in records]
    gains = [item.record["mixture_gain_db"] for item in records]
    for item, level_db, gain_db in zip(records, levels, gains, strict=True):
        limit = item.record["peak_gain_db"]
        assert level_db == pytest.approx(-20 + gain_db + limit, abs=1e-3)
        assert -5 <= level_db - sepcli.rms_db(item.refs["noise"]) <= 5.001
    assert min(gains) < -23
    assert 3 < max(gains) <= 5
    rooms = [item.record["sources"]["speech"]["rir"] is not None for item in records]
    assert 0.35 < np.mean(rooms) < 0.65


# The network and its loss


def copied(net, model):
    """The package's model with the weights of the notebook's network."""
    own = model.state_dict()
    theirs = net.state_dict()

    def put(name, *sources):
        for kind in ("weight", "bias", "running_mean", "running_var"):
            if f"{name}.{kind}" in own:
                value = torch.cat([theirs[f"{source}.{kind}"] for source in sources])
                own[f"{name}.{kind}"].copy_(value.reshape(own[f"{name}.{kind}"].shape))

    for level in range(len(net.encoder)):
        for layer in range(3):
            put(f"encoder.levels.{level}.{layer}", f"encoder.{level}.{layer}")
        put(f"decoders.skips.{level}", f"real.skips.{level}", f"imaginary.skips.{level}")
        for layer in range(len(net.real.levels[level])):
            name = f"levels.{level}.{layer}"
            put(f"decoders.{name}", f"real.{name}", f"imaginary.{name}")
    for name in ("flatten", "unflatten"):
        put(name, name)
    for i in range(len(net.tcms)):
        put(f"tcms.{i}.squeeze", f"tcms.{i}.squeeze")
        for layer in range(3):
            put(f"tcms.{i}.expand.{layer}", f"tcms.{i}.expand.{layer}")
        for branch in ("primal", "dual"):
            for place, layer in (("activation.0", 0), ("activation.1", 1), ("conv", 2)):
                paths = (f"tcms.{i}.{branch}.{path}.{layer}" for path in ("main", "gate"))
                put(f"tcms.{i}.{branch}.{place}", *paths)
    return model


def test_the_network_is_that_of_the_notebook():
    torch.manual_seed(0)
    net = randomise(notebook.Net()).eval()
    model = build("dmgtcm_unet", sources=["speech"])
    assert sum(p.numel() for p in net.parameters()) == 1_995_211
    assert sum(p.numel() for p in model.parameters()) == 1_995_211
    model = copied(net.double(), model.double()).eval()
    x = 0.1 * torch.randn(2, 1, RATE).double()
    with torch.no_grad():
        expected, found = net(x[:, 0]), model(x)[:, 0, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_the_loss_and_the_measure_are_those_of_the_notebook():
    settings = load(RECIPE)["train"]
    assert settings["loss"] == {"spectral": 1.0}
    assert (settings["lr"], settings["batch"], settings["clip"]) == (2e-4, 10, 4.0)
    torch.manual_seed(0)
    estimate, target = torch.randn(2, 3, 1, 1, RATE)
    torch.testing.assert_close(
        spectral_loss(estimate, target), notebook.loss(estimate[:, 0, 0], target[:, 0, 0])
    )
    torch.testing.assert_close(
        si_sdr(estimate, target)[:, 0, 0], notebook.si_sdr(estimate[:, 0, 0], target[:, 0, 0])
    )
