"""Mixtures made as whole batches from excerpts in memory: what they are, and what decides."""

import json

import numpy as np
import pytest
import soundfile
import torch

from sepcli.data import batched, datasets
from sepcli.data.excerpts import Excerpts
from sepcli.data.specs import ExcerptSpec
from sepcli.errors import SepcliError
from sepcli.runs import runs

RATE = 8000
SMALL = {
    "sample_rate": RATE, "duration_s": 0.25, "excerpt_s": 0.5, "speech_minutes": 0.05,
    "noise_minutes": 0.05, "rooms": 3, "rir_s": 0.1,
}  # fmt: skip
EVERYTHING = {
    "speed": (0.8, 1.2), "noise_speed": (0.7, 1.4), "equaliser_db": 4.0, "noise_equaliser_db": 4.0,
    "low_pass_hz": (1000.0, 3000.0), "low_pass_prob": 0.3, "speech_low_pass_prob": 0.3,
    "second_noise": 0.5, "babble": 0.4, "late_speech": 0.4, "noise_change": 0.4, "rir_prob": 0.5,
    "varying_db": 3.0, "varying_prob": 0.5, "noise_varying_db": 6.0, "noise_varying_prob": 0.5,
    "noise_rir_prob": 0.5, "target": "decayed", "wide_level_prob": 0.5, "clip_prob": 0.3,
}  # fmt: skip


def power_db(x):
    return 10 * torch.log10(x.square().mean(-1))


@pytest.fixture
def write(tmp_path):
    """Write signals (T,) as files below a folder; returns the folder's path."""

    def write(name, *signals):
        for k, signal in enumerate(signals):
            path = tmp_path / name / f"{k}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, signal, RATE, subtype="FLOAT")
        return str(tmp_path / name)

    return write


def test_an_item_is_a_function_of_the_seed_and_its_number():
    source, again = (Excerpts(ExcerptSpec(**SMALL, **EVERYTHING)) for _ in range(2))
    mix, refs = source.draw_many(3, [7, 8, 9, 300])
    assert mix.shape == refs["speech"].shape == refs["noise"].shape == (4, 1, 2000)
    assert torch.equal(mix, again.draw_many(3, [7, 8, 9, 300])[0])
    for k, number in enumerate((7, 8, 9, 300)):  # whatever else is in the batch, up to rounding
        item = source.draw(3, number)
        torch.testing.assert_close(mix[k], torch.from_numpy(item.mix), rtol=0, atol=1e-6)
        for name, ref in item.refs.items():
            torch.testing.assert_close(refs[name][k], torch.from_numpy(ref), rtol=0, atol=1e-6)
    other = source.draw_many(4, [7, 8, 9, 300])[0]
    assert not torch.isclose(power_db(mix), power_db(other)).any()


def test_levels_and_ratios_are_those_that_were_asked_for():
    source = Excerpts(ExcerptSpec(**SMALL, snr_db=(7, 7), level_db=(-31, -31)))
    mix, refs = source.draw_many(0, range(6))
    torch.testing.assert_close(mix, refs["speech"] + refs["noise"], rtol=0, atol=1e-7)
    assert power_db(mix).numpy() == pytest.approx(-31, abs=1e-3)
    ratio = power_db(refs["speech"]) - power_db(refs["noise"])
    assert ratio.numpy() == pytest.approx(7, abs=1e-3)


def test_some_levels_are_drawn_from_the_wide_range():
    wide = {"level_db": (-30, -30), "wide_level_db": (-60, -60), "wide_level_prob": 0.5}
    levels = power_db(Excerpts(ExcerptSpec(**SMALL, **wide)).draw_many(0, range(40))[0])
    found = levels.round().unique(return_counts=True)
    assert found[0].tolist() == [-60, -30]
    assert 10 <= found[1][0] <= 30


def test_clipping_bends_the_mixture_and_not_the_references():
    clip = {"clip_prob": 1.0, "clip": (0.25, 0.25)}
    mix, refs = Excerpts(ExcerptSpec(**SMALL, **clip)).draw_many(0, range(3))
    straight = refs["speech"] + refs["noise"]
    limit = straight.abs().amax(-1, keepdim=True) / 4
    torch.testing.assert_close(mix, limit * torch.tanh(straight / limit), rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", ["dry", "reverb", "decayed"])
def test_speech_in_a_room_and_its_reference(target, write):
    """Of a room with one echo, all is heard; at 60 dB per 0.1 s, 30 ms after 20 ms take 18 dB."""
    rir = np.zeros(800)
    rir[[40, 440]] = 0.5, 0.25  # the echo comes 50 ms after the direct sound
    rooms = {"rir": write("rooms", rir), "made_rooms": 0.0, "shorten_prob": 0.0, "rir_prob": 1.0}
    spec = ExcerptSpec(**SMALL, **rooms, target=target, rir_decay_s=0.1, snr_db=(90, 90))
    mix, refs = Excerpts(spec).draw_many(0, range(3))
    dry = mix[:, 0].double().clone()
    for n in range(400, dry.shape[1]):
        dry[:, n] -= 0.5 * dry[:, n - 400]
    share = {"dry": 0.0, "reverb": 0.5, "decayed": 0.5 * 10 ** (-18 / 20)}[target]
    expected = dry.clone()
    expected[:, 400:] += share * dry[:, :-400]
    error = refs["speech"][:, 0] - expected
    assert (power_db(expected) - power_db(error) > (25 if target == "decayed" else 80)).all()


def test_speech_that_begins_late_and_noise_that_changes():
    spec = {"late_speech": 1.0, "noise_change": 1.0}
    _, refs = Excerpts(ExcerptSpec(**SMALL, **spec)).draw_many(0, range(8))
    begins = (refs["speech"][:, 0] != 0).int().argmax(-1)
    assert len(begins.unique()) == 8
    quarters = power_db(refs["noise"][:, 0].unflatten(-1, (4, -1)))
    assert ((quarters.amax(-1) - quarters.amin(-1)) > 6).sum() >= 6


def test_draws_come_from_a_counter_and_chosen_ones_go_on_with_their_own():
    several, one = batched.Draws(1, [4, 5, 6], 2), batched.Draws(1, [5], 2)
    assert several.uniform()[1] == one.uniform()[0]
    chosen = several.of(np.array([False, True, False]))
    assert chosen.normal(3) == pytest.approx(one.normal(3))
    assert batched.Draws(1, [5], 3).uniform() != batched.Draws(1, [5], 2).uniform()
    many = batched.Draws(0, range(4000), 0)
    whole, normal = many.whole(2, 6), many.normal(8)
    assert np.bincount(whole)[2:].tolist() == pytest.approx([800] * 5, rel=0.15)
    assert (normal.mean(), normal.std()) == pytest.approx((0, 1), abs=0.02)


def test_crops_at_the_speed_of_the_recording_are_the_recording():
    stored = torch.arange(-3000, 3000, dtype=torch.int16).view(3, 2000)
    rows, starts, speeds = np.array([2, 0]), np.array([0.0, 1.0]), np.ones(2)
    spectra = batched.spectra(stored, rows, starts, 1000, speeds)
    found = torch.fft.irfft(spectra, 1000) * 32768
    expected = torch.stack([stored[2, :1000], stored[0, 1000:]]).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_crops_at_another_speed_have_another_pitch_and_the_same_amplitude():
    """1,200 samples of 60 periods become 1,000 samples of them: 1.2 times as fast."""
    stored = (20000 * torch.sin(2 * torch.pi * torch.arange(1200) * 60 / 1200)).to(torch.int16)
    given = np.zeros(1, int), np.zeros(1), 1000, np.array([1.2])
    found = torch.fft.irfft(batched.spectra(stored[None], *given), 1000)[0] * 32768
    expected = 20000 * torch.sin(2 * torch.pi * torch.arange(1000) * 60 / 1000)
    torch.testing.assert_close(found, expected, rtol=0, atol=2.0)


@pytest.mark.parametrize("samples", [500, 501])
def test_power_is_known_from_the_transform(samples):
    x = torch.randn(3, samples, generator=torch.Generator().manual_seed(0)) + 0.3
    found = batched.mean_power(torch.fft.rfft(x), samples)
    torch.testing.assert_close(found, batched.power(x))


def test_gains_that_vary_are_those_at_the_moments_and_frequencies_of_the_knots():
    """Of a tone at a quarter of the rate, which lies between the fourth and the fifth knot."""
    time = torch.arange(20001) / 20000
    tone = torch.sin(torch.pi / 2 * torch.arange(20001))[None]
    gains_db = torch.zeros(1, batched.MOMENTS, batched.PLACES)
    assert torch.allclose(batched.varied(tone, gains_db), tone, atol=1e-6)
    gains_db[:, :, 3:5] = torch.arange(batched.MOMENTS)[:, None] - 2.0  # from -2 to 3 dB
    found = batched.varied(tone, gains_db) / tone
    inside = (tone.abs() > 0.5) & (time > 0.03) & (time < 0.97)
    expected = 10 ** ((5 * time - 2) / 20)
    assert found[inside].numpy() == pytest.approx(expected[inside[0]].numpy(), rel=5e-3)


def test_frequency_responses():
    knots = np.array([[0, 200, 4000.0]])
    curve = batched.equaliser(knots, np.array([[6.0, 6.0, -6.0]]), RATE)[0]
    assert 20 * np.log10(curve[[0, 12, 256]]) == pytest.approx([6, 6, -6], abs=0.1)
    sharp = batched.low_pass(np.array([1000.0]), RATE)[0]  # bins of 15.6 Hz
    assert (sharp[50], sharp[64], sharp[90]) == pytest.approx((1, 0.5, 1e-4), abs=2e-3)


def test_fast_sizes_have_small_factors():
    assert batched.fast_sizes(40).tolist() == [2, 4, 6, 8, 10, 12, 16, 18, 20, 24, 30, 32, 36, 40]
    assert [batched.fast_size(n) for n in (40, 41, 64000)] == [40, 48, 64000]


def test_recordings_are_kept_loud_and_a_short_noise_sounds_again_and_again(write):
    rng = np.random.default_rng(0)
    speech = write("speech", 0.1 * rng.standard_normal(9000))
    click = write("noise", np.r_[0.2, -0.2, np.zeros(98)])  # 12.5 ms
    spec = ExcerptSpec(
        **SMALL, speech=speech, noise=click, repeat_prob=1.0, pause_s=(0.1, 0.1), min_rms_db=-60
    )
    kept = Excerpts(spec)._memory(0)
    assert kept.speech.dtype == torch.int16
    assert kept.speech.shape == kept.noise.shape == (6, 4000)
    assert (kept.speech.abs().amax(-1) == 29490).all()
    for row in kept.noise.numpy():
        places = np.flatnonzero(row == 29490)
        assert 3 <= len(places) <= 5
        assert (np.diff(places) == 900).all()


def test_a_pack_serves_as_well_as_a_folder(write, tmp_path):
    from sepcli.recordings.packing import Packing, find_sources

    rng = np.random.default_rng(0)
    folder = write("speech", 0.1 * rng.standard_normal(9000))
    list(Packing(find_sources("speech", [folder])).run(f"{tmp_path}/all.h5"))
    a, b = (
        Excerpts(ExcerptSpec(**SMALL, speech=source))._memory(1).speech
        for source in (folder, f"{tmp_path}/all.h5")
    )
    assert (a - b).abs().max() <= 20  # float32 against int16, at a gain of 2 to 3


def dataset(items=0, **settings):
    section = {"kind": "excerpts", **SMALL, **settings}
    del section["sample_rate"]
    resolved = datasets.resolve(section, section="data", items=items, seed=5)
    return datasets.build(resolved, section="data", sample_rate=RATE, sources=("noise", "speech"))


def test_batches_are_the_same_wherever_one_enters_and_for_any_number_of_workers():
    data, found = dataset(items=7), []
    for start, workers in ((0, 0), (2, 0), (2, 3)):
        batches = datasets.batches(data, 3, seed=1, start=start, workers=workers)
        found.append([next(batches) for _ in range(4 - start)])
    for later in found[1:]:
        for one, other in zip(found[0][2:], later, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    mix, refs = found[0][0]
    assert mix.shape == (3, 1, 2000)
    torch.testing.assert_close(refs.sum(1), mix, rtol=0, atol=1e-6)
    seen = [batch[0] for batch in found[0]]
    assert len({x.item() for x in torch.cat(seen)[:7, 0, 0]}) == 7  # an epoch is every item


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"excerpt_s": 0.2}, "excerpt_s must be at least 0.25, duration_s times the speed"),
        ({"babble": 2.0}, "babble must be 0 to 1, not 2.0"),
        ({"target": "wet"}, "target must be dry or decayed or reverb, not wet"),
        ({"speech": ["nowhere"]}, "nowhere: no such file or folder"),
    ],
)
def test_what_makes_no_sense_is_said(settings, message):
    with pytest.raises(SepcliError, match=f"data: {message}"):
        dataset(**settings)


def config(**train):
    data = {"kind": "excerpts", **SMALL, **EVERYTHING}
    del data["sample_rate"]
    model = {"name": "spectral_tasnet", "sample_rate": RATE, "window": 64, "hop": 32, "width": 8}
    return runs.resolve(
        {
            "model": model | {"hidden": 8, "blocks": 2, "repeats": 1},
            "data": {"train": data, "valid": data | {"items": 2, "seed": 9}},
            "train": {
                "steps": 6, "batch": 2, "log_every": 2, "validate_every": 3, "ema": 0.9,
                "loss": {"stft_si_sdr": 0.1, "stft_compressed": 2.0}, **train,
            },
        }
    )  # fmt: skip


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path):
    whole = runs.start(config(), tmp_path / "whole")
    list(whole.records())
    part = runs.start(config(), tmp_path / "part")
    for record in part.records():
        if record["event"] == "step" and record["step"] == 4:
            part.save()
            break
    resumed = runs.resume(config(workers=2), tmp_path / "part")
    list(resumed.records())
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    losses = [
        [
            json.loads(x)["loss"]
            for x in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "part")
    ]
    assert losses[0] == losses[1]
