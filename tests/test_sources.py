"""Pools of recordings: what they find, which stretches they draw, and what they refuse."""

import json

import numpy as np
import pytest
import soundfile
from scipy.stats import chisquare

from sepcli.errors import SepcliError
from sepcli.recordings import stored
from sepcli.recordings.pools import Pool, Shares, find_audio, split_weight

RATE = 16000
LOUD = -100.0  # dB; a floor that everything but digital silence is above


def write(path, signal, rate=RATE, subtype="FLOAT"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal, rate, subtype=subtype)
    return path


def ramp(samples, start=0):
    """A signal in which every sample tells where it stood."""
    return (np.arange(start, start + samples) + 1) / 100_000


def crop(pool, samples, seed=0, rate=RATE, floor=LOUD):
    return pool.crop(samples, rate, np.random.default_rng(seed), min_rms_db=floor)


# --- what is found


def test_a_folder_is_searched_to_any_depth_in_a_fixed_order(tmp_path):
    for name in ("b/2.wav", "a/x/1.FLAC", "a/z.ogg"):
        write(tmp_path / name.lower(), ramp(100), subtype=None)
    (tmp_path / "a/x/1.flac").rename(tmp_path / "a/x/1.FLAC")
    (tmp_path / "notes.txt").write_text("not a list, only a file in a folder")
    write(tmp_path / ".hidden/3.wav", ramp(100))
    write(tmp_path / "._4.wav", ramp(100))
    found = [path.removeprefix(f"{tmp_path}/") for path in find_audio(str(tmp_path))]
    assert found == ["a/x/1.FLAC", "a/z.ogg", "b/2.wav"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere/1.wav", ramp(100))
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here/circle").symlink_to(tmp_path / "here")
    assert find_audio(str(tmp_path / "here")) == [str(tmp_path / "here/link/1.wav")]


def test_globs_match_files_and_folders(tmp_path):
    for name in ("x1.wav", "x2/deep/3.wav", "y.wav"):
        write(tmp_path / name, ramp(100))
    (tmp_path / "x.txt").write_text("nothing")
    found = find_audio(str(tmp_path / "x*"))
    assert found == [str(tmp_path / "x1.wav"), str(tmp_path / "x2/deep/3.wav")]
    assert len(find_audio(str(tmp_path / "**/*.wav"))) == 3


def test_lists_are_seen_from_their_folder(tmp_path):
    audio = write(tmp_path / "audio/1.wav", ramp(100))
    (tmp_path / "l.txt").write_text(f"audio/1.wav\n\n  {audio}  \n")
    (tmp_path / "l.jsonl").write_text(json.dumps({"path": "audio/1.wav", "speaker": 7}) + "\n")
    assert find_audio(str(tmp_path / "l.txt")) == [str(audio), str(audio)]
    assert find_audio(str(tmp_path / "l.jsonl")) == [str(audio)]


def test_a_named_file_needs_no_extension(tmp_path):
    path = write(tmp_path / "a.wav", ramp(100)).rename(tmp_path / "recording")
    assert find_audio(str(path)) == [str(path)]


def test_weights_are_split_off_unless_the_path_exists_as_it_is(tmp_path):
    assert split_weight("dir=0.7") == ("dir", 0.7)
    assert split_weight("dir") == ("dir", 1.0)
    odd = tmp_path / "snr=5"
    odd.mkdir()
    assert split_weight(odd) == (str(odd), 1.0)
    assert split_weight(f"{odd}=2") == (str(odd), 2.0)


@pytest.mark.parametrize("weight", ["loud", "0", "-1", "nan", "inf", ""])
def test_a_weight_is_a_number_above_0(weight):
    with pytest.raises(SepcliError, match=r"x=.*: the weight '.*' is not above 0; write x=0"):
        split_weight(f"x={weight}")


def test_places_without_audio_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("\n")
    (tmp_path / "bad.jsonl").write_text('{"file": "a.wav"}\n')
    (tmp_path / "sound.txt").write_bytes(b"RIFF\0\0\0\0WAVE")
    for name, message in {
        "empty": "empty: no audio files in it",
        "none.txt": "none.txt: no audio files in it",
        "nowhere": "nowhere: no such file or folder; check the spelling",
        "no*match": r"no\*match: no such file or folder",
        "bad.jsonl": r'bad.jsonl, line 1: expected \{"path": "a.wav"\}, got \{"file"',
        "sound.txt": "sound.txt: neither UTF-8 nor UTF-16",
    }.items():
        with pytest.raises(SepcliError, match=message):
            Pool([str(tmp_path / name)])


# --- what is drawn


def test_a_crop_is_the_stretch_that_its_record_names(tmp_path):
    path = write(tmp_path / "a.wav", ramp(5000))
    for seed in range(20):
        signal, [piece] = crop(Pool([path]), 100, seed)
        assert signal.dtype == np.float32
        assert piece["path"] == str(path)
        assert piece["stop"] - piece["start"] == 100
        np.testing.assert_allclose(signal, ramp(100, piece["start"]), rtol=1e-6)


def test_crops_reach_both_ends_of_a_file(tmp_path):
    path = write(tmp_path / "a.wav", ramp(8003))
    pool = Pool([path])
    starts = {crop(pool, 8000, seed)[1][0]["start"] for seed in range(60)}
    assert starts == {0, 1, 2, 3}


def test_sources_are_drawn_by_weight_and_their_files_evenly(tmp_path):
    for k in range(3):
        write(tmp_path / f"many/{k}.wav", ramp(100))
    write(tmp_path / "one/3.wav", ramp(100))
    pool = Pool([f"{tmp_path}/many=3", str(tmp_path / "one")])
    rng = np.random.default_rng(0)
    drawn = [int(pool.draw(rng)[-5]) for _ in range(4000)]
    assert chisquare(np.bincount(drawn), [1000] * 4).pvalue > 0.001


def test_short_files_are_joined(tmp_path):
    for k in range(3):
        write(tmp_path / f"{k}.wav", ramp(1000, 1000 * k))
    signal, pieces = crop(Pool([tmp_path]), 3500)
    assert signal.size == 3500
    assert len(pieces) == 4
    parts = [
        soundfile.read(p["path"], start=p["start"], stop=p["stop"], dtype="float32")[0]
        for p in pieces
    ]
    np.testing.assert_array_equal(signal, np.concatenate(parts))


def test_channels_are_averaged(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([ramp(100), 3 * ramp(100)], axis=1))
    signal, _ = crop(Pool([path]), 100)
    np.testing.assert_allclose(signal, 2 * ramp(100), rtol=1e-6)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    t = np.arange(2 * rate) / rate
    path = write(tmp_path / "a.wav", np.sin(2 * np.pi * 1000 * t), rate)
    signal, [piece] = crop(Pool([path]), RATE)
    assert signal.size == RATE
    assert piece["stop"] - piece["start"] == pytest.approx(rate, abs=1)
    t = np.arange(RATE) / RATE + piece["start"] / rate
    middle = slice(1000, -1000)  # the filter rings at the ends
    np.testing.assert_allclose(signal[middle], np.sin(2 * np.pi * 1000 * t)[middle], atol=1e-3)


def test_only_the_stretch_is_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", ramp(100_000))
    from sepcli import audio

    lengths, read = [], audio.read

    def spy(*args, **kwargs):
        signal, rate = read(*args, **kwargs)
        lengths.append(signal.shape[1])
        return signal, rate

    monkeypatch.setattr(audio, "read", spy)
    crop(Pool([path]), 9000)
    assert lengths == [9000]


def test_a_file_that_takes_the_place_of_another_is_read_anew(tmp_path):
    headers = stored.Headers()
    for frames in (100, 200):
        new = write(tmp_path / "new.wav", ramp(frames))
        path = new.replace(tmp_path / "a.wav")
        assert headers[str(path)] == (frames, RATE)


def test_numbers_are_drawn_as_often_as_their_weights_say():
    shares, rng = Shares([1, 3, 0.5]), np.random.default_rng(0)
    counts = np.bincount([shares.draw(rng) for _ in range(9000)], minlength=3)
    np.testing.assert_allclose(counts / 9000, [2 / 9, 6 / 9, 1 / 9], atol=0.02)


def test_headers_are_read_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", ramp(100))
    from sepcli import audio

    asked, info = [], audio.info
    monkeypatch.setattr(audio, "info", lambda path: asked.append(path) or info(path))
    pool = Pool([path])
    for seed in range(3):
        crop(pool, 100, seed)
    assert asked == [str(path)]


# --- what is too quiet, and what is broken


def test_quiet_stretches_are_drawn_again(tmp_path):
    loud, quiet = np.full(RATE, 0.1), np.full(9 * RATE, 0.001)  # -20 and -60 dB
    path = write(tmp_path / "a.wav", np.concatenate([quiet, loud]))
    for seed in range(10):
        signal, _ = crop(Pool([path]), RATE, seed, floor=-38.0)
        assert 10 * np.log10(np.mean(signal.astype(np.float64) ** 2)) > -38


def test_the_floor_is_where_it_says(tmp_path):
    path = write(tmp_path / "a.wav", np.full(RATE, 10 ** (-38 / 20)))
    crop(Pool([path]), RATE, floor=-38.01)
    with pytest.raises(SepcliError, match="100 stretches in a row were silent or quieter than -37"):
        crop(Pool([path], what="noise"), RATE, floor=-37.99)


def test_silent_files_end_in_one_error(tmp_path):
    write(tmp_path / "a.wav", np.zeros(RATE))
    write(tmp_path / "b.wav", np.full(1, 0.9), 48000)  # no sample is left of it at 16 kHz
    with pytest.raises(
        SepcliError, match=r"^speech: 100 stretches .*; lower --min-rms or name loud"
    ):
        crop(Pool([tmp_path], what="speech"), RATE, floor=-38.0)


def test_a_short_rest_is_judged_by_more_than_itself(tmp_path):
    # Every second half second is silent; the 10 samples that are missing at the end may be, too.
    path = write(tmp_path / "a.wav", np.tile(np.repeat([0.0, 0.5], RATE // 2), 2)[: RATE * 2])
    signal, pieces = crop(Pool([path]), 2 * RATE + 10, floor=-38.0)
    assert signal.size == 2 * RATE + 10
    assert pieces[1]["stop"] - pieces[1]["start"] == 10


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF not really")
    with pytest.raises(SepcliError, match=r"a\.wav: "):
        crop(Pool([tmp_path]), 100)
