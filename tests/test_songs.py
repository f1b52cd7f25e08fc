"""Songs made as whole batches from excerpts in memory: what they are, and what decides."""

import numpy as np
import pytest
import soundfile
import torch

from sepcli.data.songs.batches import Songs
from sepcli.data.songs.spec import SongSpec
from sepcli.errors import SepcliError
from sepcli.runs import runs

RATE = 8000
SMALL = {
    "sample_rate": RATE, "duration_s": 0.25, "excerpt_s": 0.5, "songs_minutes": 0.05,
    "vocals_minutes": 0.05, "music_minutes": 0.05, "halls": 3, "hall_s": 0.1, "together": 0.0,
}  # fmt: skip
EVERYTHING = {
    "speed": (0.8, 1.2), "music_speed": (0.7, 1.4), "equaliser_db": 4.0, "music_equaliser_db": 4.0,
    "low_pass_hz": (1000.0, 3000.0), "low_pass_prob": 0.3, "second_prob": 0.5, "pan_db": 8.0,
    "varying_db": 6.0, "varying_prob": 0.5, "width": (0.5, 1.5), "hall_prob": 0.5,
    "pause_prob": 0.3, "instrumental": 0.2, "alone": 0.2, "together": 0.5,
}  # fmt: skip


def power_db(x):
    return 10 * torch.log10(x.square().mean((1, 2)) + 1e-20)


@pytest.fixture
def write(tmp_path):
    """Write a signal (C, T) as a file; returns the folder of its part."""

    def write(name, signal):
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, signal.T, RATE, subtype="FLOAT")
        return str(tmp_path / name.split("/")[0])

    return write


def noise(seed, seconds=3, channels=2):
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, seconds * RATE))


@pytest.fixture
def recordings(write):
    for number in range(3):
        write(f"songs/{number}/vocals", noise(number))
        write(f"songs/{number}/bass", noise(number + 10))
        songs = write(f"songs/{number}/drums", noise(number + 20))
    vocals = write("vocals/a", noise(30, channels=1))
    return {"songs": songs, "vocals": vocals, "music": write("music/b", noise(31))}


def test_an_item_is_a_function_of_the_seed_and_its_number(recordings):
    source, again = (Songs(SongSpec(**SMALL | EVERYTHING | recordings)) for _ in range(2))
    numbers = [7, 8, 9, 300]
    mix, refs = source.draw_many(3, numbers)
    assert mix.shape == refs["vocals"].shape == refs["accompaniment"].shape == (4, 2, 2000)
    assert torch.equal(mix, again.draw_many(3, numbers)[0])
    for k, number in enumerate(numbers):  # whatever else is in the batch, up to rounding
        item = source.draw(3, number)
        torch.testing.assert_close(mix[k], torch.from_numpy(item.mix), rtol=0, atol=1e-5)
        for name, ref in item.refs.items():
            torch.testing.assert_close(refs[name][k], torch.from_numpy(ref), rtol=0, atol=1e-5)
    assert not torch.isclose(mix, source.draw_many(4, numbers)[0]).all((1, 2)).any()


def test_everything_that_can_happen_stays_finite_and_adds_up():
    mix, refs = Songs(SongSpec(**SMALL | EVERYTHING)).draw_many(0, range(60))
    assert mix.isfinite().all()
    torch.testing.assert_close(mix, refs["vocals"] + refs["accompaniment"])
    assert power_db(mix).numpy() == pytest.approx(-20, abs=1e-2)
    silent = [(power_db(refs[name]) < -100).sum().item() for name in ("vocals", "accompaniment")]
    assert 4 <= silent[0] <= 24
    assert 2 <= silent[1] <= 20


def test_levels_and_ratios_are_those_that_were_asked_for(recordings):
    spec = SongSpec(**SMALL | recordings, vocals_db=-7, level_db=-31)
    mix, refs = Songs(spec).draw_many(0, range(6))
    assert power_db(mix).numpy() == pytest.approx(-31, abs=1e-3)
    ratio = power_db(refs["vocals"]) - power_db(refs["accompaniment"])
    assert ratio.numpy() == pytest.approx(-7, abs=1e-3)


def test_vocals_together_with_their_song_are_at_its_place_speed_and_level(write):
    """The accompaniment here is the vocals, 6 dB softer and inverted."""
    for number in range(3):
        vocals = noise(number)
        write(f"songs/{number}/vocals", vocals)
        songs = write(f"songs/{number}/accompaniment", -0.5 * vocals)
    spec = SMALL | {"together": 1.0, "gain_db": 0.0, "speed": (0.8, 1.2), "swap": False}
    _, refs = Songs(SongSpec(**spec, songs=songs)).draw_many(0, range(8))
    torch.testing.assert_close(refs["accompaniment"], -0.5 * refs["vocals"], rtol=0, atol=1e-4)
    _, refs = Songs(SongSpec(**spec | {"together": 0.0}, songs=songs)).draw_many(0, range(8))
    products = (refs["accompaniment"] * refs["vocals"]).sum((1, 2)).abs()
    alike = products / (refs["accompaniment"].norm(dim=(1, 2)) * refs["vocals"].norm(dim=(1, 2)))
    assert (alike < 0.5).sum() >= 6


def test_a_hall_adds_to_both_channels_and_leaves_the_voice(recordings):
    spec = SMALL | recordings | {"swap": False, "alone": 1.0, "level_db": -20}
    dry = Songs(SongSpec(**spec)).draw_many(0, range(4))[1]["vocals"]
    hall = {"hall_prob": 1.0, "hall_db": -12.0}
    wet = Songs(SongSpec(**spec | hall)).draw_many(0, range(4))[1]["vocals"]
    gain = (wet * dry).sum((1, 2), keepdim=True) / dry.square().sum((1, 2), keepdim=True)
    added = wet - gain * dry
    assert (power_db(added) - power_db(wet)).numpy() == pytest.approx(-12, abs=2)
    left, right = added.unbind(1)
    alike = (left * right).sum(-1).abs() / (left.norm(dim=-1) * right.norm(dim=-1))
    assert (alike < 0.7).all()


def test_the_width_and_the_pan_are_of_what_they_say(recordings):
    spec = SMALL | recordings | {"swap": False}
    _, refs = Songs(SongSpec(**spec, width=0.0)).draw_many(0, range(4))
    torch.testing.assert_close(*refs["accompaniment"].unbind(1))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(*refs["vocals"].unbind(1))
    plain = Songs(SongSpec(**spec)).draw_many(0, range(8))[1]["vocals"]
    panned = Songs(SongSpec(**spec, pan_db=12.0)).draw_many(0, range(8))[1]["vocals"]
    change = (panned / plain).flatten(1).median()
    ratios = [x.norm(dim=-1)[:, 0] / x.norm(dim=-1)[:, 1] for x in (panned, plain)]
    pan_db = 20 * torch.log10(ratios[0] / ratios[1])
    assert change.isfinite()
    assert pan_db.abs().max() <= 12
    assert pan_db.std() > 2


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"vocals": "x"}, "songs with stems where not both vocals and music are"),
        ({"duration_s": 4.0, "speed": (0.5, 2.5)}, "excerpt_s must be at least 10"),
        ({"pause_prob": 2}, "pause_prob must be 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, match):
    with pytest.raises(SepcliError, match=match):
        SongSpec(**{"duration_s": 0.25, "excerpt_s": 9.0, **settings})


def test_a_model_trains_on_songs_that_are_made_up(tmp_path):
    model = {"name": "deep_unet", "window": 128, "hop": 32, "bins": 32, "widths": [4, 6]}
    data = {key: value for key, value in SMALL.items() if key != "sample_rate"}
    configuration = {
        "model": model | {"sample_rate": RATE},
        "data": {
            "train": {"kind": "songs", **data},
            "valid": {"kind": "songs", "items": 2, **data},
        },
        "train": {"steps": 2, "batch": 2, "loss": {"stft_stretches": 1.0}},
    }
    run = runs.start(runs.resolve(configuration), tmp_path / "run")
    records = list(run.records())
    assert [record["step"] for record in records if record["event"] == "step"] == [1, 2]
    assert all(np.isfinite(record["loss"]) for record in records if "loss" in record)
