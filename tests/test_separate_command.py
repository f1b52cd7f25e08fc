"""`sepcli separate` as one runs it, on files and on streams of samples."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sepcli import audio
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.inference.separate import Separator
from sepcli.models import build, modelfile
from sepcli.samples.streams import Sample, open_sample_writer, read_samples
from tests.models import randomise
from tests.separators import NAME, SETTINGS, noise, tiny, vocoder_file


@pytest.fixture(scope="module")
def separator():
    return tiny()


@pytest.fixture(scope="module")
def model_file(separator, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    modelfile.save(path, NAME, SETTINGS, separator.model.state_dict(), {})
    return str(path)


def invoke(*args, **kwargs):
    return CliRunner().invoke(main, ["separate", *map(str, args)], **kwargs)


# Audio files


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


# Samples


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
