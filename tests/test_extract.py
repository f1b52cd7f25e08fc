"""Extracting a speaker: tones stand for speakers, see `tests.extractors`."""

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli import audio, models
from sepcli.cli import main
from sepcli.errors import UsageError
from sepcli.inference.fullband import FullBand
from sepcli.inference.separate import Separator
from sepcli.jobs.extract import extractor
from sepcli.samples.streams import Sample, open_sample_writer, read_samples
from tests.extractors import HIGH, LOW, NAMES, RATE, Comparing, Tuned, save, tone, voice
from tests.test_contract import Told


@pytest.fixture(autouse=True)
def known(monkeypatch):
    for name, place in NAMES.items():
        monkeypatch.setitem(models.MODELS, name, place)


@pytest.fixture
def model_file(tmp_path):
    return save(tmp_path)


@pytest.fixture
def files(tmp_path):
    """References, and a mixture of two tones."""
    audio.write(tmp_path / "low.wav", voice(LOW), RATE)
    audio.write(tmp_path / "high.wav", voice(HIGH), RATE)
    audio.write(tmp_path / "mix.wav", tone(LOW, 3) + tone(HIGH, 3), RATE)
    return tmp_path


def invoke(*args, code=0, **kwargs):
    result = CliRunner().invoke(main, ["extract", *map(str, args)], **kwargs)
    assert result.exit_code == code, result.output
    return result


def near(path, expected, edge=1000):
    got, _ = audio.read(path)
    assert got.shape == expected.shape
    inner = slice(edge, -edge)
    np.testing.assert_allclose(got[:, inner], expected[:, inner], rtol=0, atol=0.02)


def test_the_reference_says_who_comes_out(files, model_file):
    for name, pitch in (("low", LOW), ("high", HIGH)):
        out = files / f"only-{name}.wav"
        result = invoke(
            files / "mix.wav", "--ref", files / f"{name}.wav", "-m", model_file, "-o", out
        )
        assert result.stderr == f"Wrote {out}\n"
        near(out, tone(pitch, 3))


def test_the_reference_has_any_rate_and_channels_and_there_may_be_several(files, model_file):
    stereo = np.concatenate([voice(LOW, 1, 44100), np.zeros((1, 44100), np.float32)])
    audio.write(files / "stereo.flac", stereo, 44100)
    out, refs = files / "out.wav", ("--ref", files / "stereo.flac", "--ref", files / "low.wav")
    invoke(files / "mix.wav", *refs, "-m", model_file, "-o", out)
    near(out, tone(LOW, 3))


def test_a_folder_the_residual_and_the_presence_in_json(files, model_file):
    audio.write(files / "other.wav", tone(HIGH, 3, 44100, 2), 44100)
    args = ("--ref", files / "low.wav", "-m", model_file, "--residual", "--json")
    result = invoke(files / "mix.wav", files / "other.wav", *args, "-o", files / "out")
    there, absent = map(json.loads, result.stdout.splitlines())
    assert there["outputs"] == [str(files / "out/mix" / f"{s}.wav") for s in ("speech", "residual")]
    assert there["presence"] > 0.95
    assert absent["presence"] == 0
    assert [(x["start_s"], x["end_s"]) for x in there["stretches"]] == [(0, 3)]
    near(files / "out/mix/residual.wav", tone(HIGH, 3))
    near(files / "out/other/residual.wav", tone(HIGH, 3, 44100, 2), 3000)
    parts = [audio.read(files / f"out/mix/{s}.wav")[0] for s in ("speech", "residual")]
    np.testing.assert_allclose(sum(parts), audio.read(files / "mix.wav")[0], rtol=0, atol=1e-6)
    result = invoke(files / "other.wav", *args[:4], "-o", files / "x.wav")
    assert "other.wav: presence 0.00, the speaker is probably not there" in result.stderr


def samples_of(tmp_path, *pitches, rate=RATE, enroll=voice, **members):
    """The bytes of a stream of samples of two tones, each with an enrolment at a pitch."""
    stream = io.BytesIO()
    with open_sample_writer("-", stdout=stream) as writer:
        for number, pitch in enumerate(pitches):
            sample = Sample(f"{number}", {"sample_rate": rate, "targets": ["speech"]})
            sample.set_audio("mix", tone(LOW, 2, rate) + tone(HIGH, 2, rate))
            if pitch:
                sample.members["enroll.wav"] = audio.encode_wav(enroll(pitch), RATE)
                sample.members |= members
            writer.write(sample)
    return stream.getvalue()


@pytest.mark.parametrize("rate", [RATE, 48000])
def test_samples_bring_their_references_of_whatever_rate(tmp_path, model_file, rate):
    result = invoke("-", "-m", model_file, input=samples_of(tmp_path, LOW, HIGH, rate=rate))
    made = list(read_samples("-", stdin=io.BytesIO(result.stdout_bytes)))
    for sample, pitch in zip(made, (LOW, HIGH), strict=True):
        y = sample.audio("est.speech")
        inner = slice(4000, -4000)
        np.testing.assert_allclose(y[:, inner], tone(pitch, 2, rate)[:, inner], atol=0.02)
        assert sample.meta["presence"] > 0.95


def test_audio_in_a_pipe_comes_out_as_audio(files, model_file):
    args = ("--ref", files / "low.wav", "-m", model_file)
    result = invoke(*args, input=(files / "mix.wav").read_bytes())
    y, rate = audio.decode(result.stdout_bytes, "y")
    assert rate == RATE
    np.testing.assert_allclose(y[:, 1000:-1000], tone(LOW, 3)[:, 1000:-1000], atol=0.02)
    invoke(files / "mix.wav", *args, "-o", files / "there.wav")
    before = (files / "there.wav").stat().st_mtime_ns
    invoke(files / "mix.wav", *args, "-o", files / "there.wav", "--skip-existing")
    assert (files / "there.wav").stat().st_mtime_ns == before


def test_a_reference_of_the_command_replaces_those_of_samples(files, model_file):
    args = ("-m", model_file, "--ref", files / "high.wav")
    result = invoke("-", *args, input=samples_of(files, LOW, None))
    for sample in read_samples("-", stdin=io.BytesIO(result.stdout_bytes)):
        np.testing.assert_allclose(
            sample.audio("est.speech")[:, 1000:-1000], tone(HIGH)[:, 1000:-1000], atol=0.02
        )


def test_what_is_no_reference_is_one_line(files, model_file):
    args = (files / "mix.wav", "-m", model_file, "-o", files / "out.wav", "--ref")
    audio.write(files / "silent.wav", np.zeros((1, RATE), np.float32), RATE)
    audio.write(files / "short.wav", voice(LOW, 0.4), RATE)
    (files / "text.wav").write_text("no sound")
    for name, line in {
        "silent.wav": "silent; as a reference, give a recording in which the speaker is heard",
        "short.wav": "0.40 s; a reference has at least 0.5 s",
        "text.wav": "text.wav",
        "nowhere.wav": "nowhere.wav",
    }.items():
        result = invoke(*args, files / name, code=1)
        assert f"Error: {files / name}: " in result.stderr
        assert line in result.stderr
        assert not (files / "out.wav").exists()
    result = invoke(*args[:-1], code=2)
    assert "name a recording of the speaker who is to be extracted with --ref" in result.stderr
    result = invoke("-", *args[1:3], input=samples_of(files, LOW, None), code=1)
    assert "sample 1 has no enroll; name a recording of the speaker with --ref" in result.stderr
    stream = samples_of(files, LOW, enroll=lambda pitch: 0 * voice(pitch))
    assert (
        "enroll.wav: silent; as a reference" in invoke("-", *args[1:3], input=stream, code=1).stderr
    )


def test_noise_for_a_reference_has_a_low_presence(files, model_file):
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 3 * RATE), np.float32)
    audio.write(files / "noise.wav", noise + tone(LOW, 3, level=0.02), RATE)
    args = (files / "mix.wav", "-m", model_file, "--json", "--overwrite", "-o", files / "out.wav")
    args = (*args, "--ref")
    assert json.loads(invoke(*args, files / "low.wav").stdout)["presence"] > 0.9
    assert json.loads(invoke(*args, files / "noise.wav").stdout)["presence"] < 0.2


def test_models_that_do_not_fit_are_usage_errors(files):
    args = (files / "mix.wav", "--ref", files / "low.wav", "-o", files / "out.wav")
    result = invoke(*args, "-m", "denoise", code=2)
    assert "the model takes no reference; choose another with -m, or use separate" in result.stderr
    result = invoke(*args, "-m", save(files, "tuned"), "--confusion-check", code=2)
    assert "the model cannot tell voices apart; omit --confusion-check" in result.stderr
    result = invoke(*args[:3], "--json", code=2)
    assert "--json takes standard output; name a file or folder with -o" in result.stderr


# --- Presence, stretch by stretch


def extract(x, pitch=LOW, rate=RATE, model=Comparing, settings=None, **choices):
    found = extractor(Separator(model(**(settings or {}))), [voice(pitch)], **choices)
    return found, found.separate(x, rate)["speech"]


def test_where_the_speaker_is_absent_there_may_be_silence():
    x = np.concatenate([tone(LOW, 8), tone(HIGH, 8)], 1) + tone(1000, 16, level=0.1)
    found, y = extract(x, absent_threshold=0.5)
    assert [round(each.presence) for each in found.stretches] == [1, 1, 0, 0]
    assert 0.9 < found.presence <= 1
    assert not y[:, 8 * RATE + RATE // 10 :].any()
    np.testing.assert_allclose(y[:, 1000 : 7 * RATE], tone(LOW, 7)[:, 1000:], atol=0.02)
    assert np.abs(np.diff(y)).max() < 0.1  # no click where it ends
    assert extract(x)[1][:, 8 * RATE + RATE // 10 :].any()


@pytest.mark.parametrize("model", [Tuned, Comparing])
def test_the_presence_of_one_who_is_not_there_is_low(model):
    assert extract(tone(LOW, 3) + tone(HIGH, 3), model=model)[0].presence > 0.9
    assert extract(tone(HIGH, 3), model=model)[0].presence < 0.1
    assert extract(np.zeros((1, 9000), np.float32), model=model)[0].presence == 0


@pytest.mark.parametrize("gain", [1.0, 0.02])
def test_a_confused_model_is_put_right_whatever_its_gain(gain):
    x = tone(LOW, 9) + tone(HIGH, 9)
    settings = {"wrong": True, "gain": gain}
    found, y = extract(x, settings=settings, confusion_check=True)
    assert [each.swapped for each in found.stretches] == [True, True]
    np.testing.assert_allclose(y[:, 1000:-1000], tone(LOW, 9)[:, 1000:-1000], atol=0.02)
    found, y = extract(x, settings=settings)
    np.testing.assert_allclose(y[:, 1000:-1000], gain * tone(HIGH, 9)[:, 1000:-1000], atol=0.02)
    found, y = extract(x, settings={"gain": gain}, confusion_check=True)
    assert not any(each.swapped for each in found.stretches)


def test_the_louder_it_came_out_the_likelier_it_is_there():
    x = tone(LOW, 3) + tone(HIGH, 3)
    loud, soft = (extract(x, settings={"gain": gain})[0].presence for gain in (1.0, 0.05))
    assert 0 < soft < loud < 1


def test_the_size_of_blocks_changes_nothing():
    x = np.concatenate([tone(LOW, 8), tone(HIGH, 7)], 1)[:, :-123]
    whole = extract(x, absent_threshold=0.5)[1]
    found = extractor(Separator(Comparing()), [voice(LOW)], absent_threshold=0.5)
    pieces = np.split(x, [1, 5000, 5001, 100_000], 1)
    parts = list(found.blocks(pieces, RATE, 1))
    np.testing.assert_allclose(np.concatenate(parts, -1)[0], whole, rtol=0, atol=1e-6)


def test_a_reference_is_encoded_once_for_all_recordings():
    model = Comparing()
    found = extractor(Separator(model), [voice(LOW)])
    for _ in range(3):
        found.separate(tone(LOW, 7), RATE)
    assert model.encoded == 1


def test_only_models_that_compare_can_check():
    with pytest.raises(UsageError, match="cannot tell voices apart"):
        extractor(Separator(Told()), [voice(LOW)], confusion_check=True)


# --- The band above the model's


class Half(Told):
    """Half of the mixture."""

    def step(self, x, past, condition):
        y, past = super().step(x, past, (condition[0], (torch_half(condition[1][0]),)))
        return y, past


def torch_half(x):
    return 0 * x + 0.5


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_model_that_halves_all_halves_the_whole_band(rate, channels):
    x = 0.1 * np.random.default_rng(0).standard_normal((channels, 3 * rate + 77), np.float32)
    found = Separator(Half()).given([np.ones((1, 100), np.float32)], 8000)
    y = FullBand(found).separate(x, rate)["speech"]
    np.testing.assert_allclose(y, x / 2, rtol=0, atol=2e-3)
    blocks = np.split(x, [1, 300, 301, 7000], 1)
    parts = np.concatenate(list(FullBand(found).blocks(blocks, rate, channels)), -1)[0]
    np.testing.assert_allclose(parts, y, rtol=0, atol=1e-5)
    low = found.separate(x, rate)["speech"]
    assert rate < 9000 or np.abs(low - x / 2).max() > 0.02  # without it, the band is lost


def test_the_upper_band_goes_where_the_model_finds_nothing():
    rng = np.random.default_rng(0)
    hiss = np.concatenate([np.zeros((1, 48000)), rng.standard_normal((1, 48000))], 1)
    x = (0.1 * hiss).astype(np.float32) + tone(LOW, 2, 48000)
    y = extract(x, rate=48000)[1][:, 60000:-2000]
    spectrum = np.abs(np.fft.rfft(y[0] * np.hanning(y.shape[1])))
    wanted = np.abs(np.fft.rfft(x[0, 60000:-2000] * np.hanning(y.shape[1])))
    high = slice(len(spectrum) // 2, None)
    assert spectrum[high].mean() < 0.1 * wanted[high].mean()


# --- Live


def stream(*args, code=0, **kwargs):
    result = CliRunner().invoke(main, ["stream", *map(str, args)], **kwargs)
    assert result.exit_code == code, result.output
    return result


def test_live_audio_is_what_the_reference_says(files, model_file):
    x = (files / "mix.wav").read_bytes()
    for name, pitch in (("low", LOW), ("high", HIGH)):
        args = ("-m", model_file, "--ref", files / f"{name}.wav")
        y, _ = audio.decode(stream(*args, input=x).stdout_bytes, "y")
        np.testing.assert_allclose(y[:, 1000:-1000], tone(pitch, 3)[:, 1000:-1000], atol=0.02)
        about = json.loads(stream(*args, "--json", "--verify", files / "mix.wav").stdout)
        assert about["equal"]
        assert about["max_difference"] < 1e-6
    about = json.loads(stream(*args, "--latency", "--seconds", "0.3", "--json").stdout)
    assert about["delay_ms"] == 12.5


def test_references_that_do_not_fit_a_stream_are_one_line(files, model_file):
    args = ("-m", model_file, "--latency", "--seconds", "0.3")
    low = ("--ref", files / "low.wav")
    assert "give one with --ref" in stream(*args, code=1).stderr
    assert "no such graph; make it" in stream(*args, *low, "--engine", "onnx", code=1).stderr
    result = stream("-m", "denoise", *args[2:], *low, code=1)
    assert "the model takes no reference" in result.stderr
    audio.write(files / "short.wav", voice(LOW, 0.2), RATE)
    assert "0.20 s; a reference has" in stream(*args, "--ref", files / "short.wav", code=1).stderr
