"""`sepcli separate` as one runs it, on files and on streams of samples."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from sepcli import audio
from sepcli.inference.separate import Separator
from sepcli.models import build, modelfile
from sepcli.samples.streams import open_sample_writer, read_samples
from tests.models import randomise
from tests.separators import NAME, SETTINGS, invoke, noise, sample, vocoder_file


def test_stems_of_files_go_into_a_folder_per_track(track, model_file, tmp_path):
    other = tmp_path / "other.flac"
    audio.write(other, noise(1, 3000, seed=1), 8000)
    result = invoke("-m", model_file, track, other, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Wrote 4 files to {tmp_path}/out\n"
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
        out = tmp_path / f"{name}.wav"
        assert invoke(*args, *way, "-o", out).output == f"Wrote {out}\n"
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
    (["--target", "drums"], "the model finds speech, noise, not drums; choose"),
    (["-o", "x.wav"], "x.wav: one file, but the model finds speech, noise; choose"),
    (["-o", "x.txt"], "x.txt: .txt is not an audio format; use .wav or .flac"),
    (["-o", "-"], "one signal fits on standard output, not speech, noise; choose"),
    (["--filename", "{stem}{x}"], "unknown x; known are {track}, {stem}"),
    (["--filename", "{track}.wav"], "add {stem}, or stems would collide"),
    (["--filename", "{stem"], "file name template '{stem': expected '}'"),
    (["--filename", "{track}/{stem}"], "end it in .{ext}, or in one of .wav, "),
    (["--filename", "{stem}.flac", "--format", "wav"], "{stem}.flac: ends in .flac; omit --format"),
    (
        ["--subtype", "PCM_99"],
        "wav does not support PCM_99; choose a --subtype out of FLOAT",
    ),
    (["--format", "flac", "--subtype", "FLOAT"], "flac does not support FLOAT; choose"),
    (["--target", "noise", "-o", "x.mp3", "--subtype", "PCM_16"], "mp3 does not support PCM_16"),
    (["--target", "noise", "-o", "x.flac", "--format", "wav"], "x.flac: ends in .flac; omit --fo"),
    (["other.wav", "--target", "noise", "-o", "x.wav"], "x.wav: one file for 2 inputs; name a f"),
    (["other.wav", "--target", "noise", "-o", "-"], "standard output: one file for 2 inputs"),
]


@pytest.mark.parametrize(("args", "line"), USAGE)
def test_wrong_options_are_usage_errors(track, model_file, args, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    audio.write("other.wav", noise(1, 3000, seed=1), 8000)
    before = set(Path().iterdir())
    result = invoke("-m", model_file, track, *args)
    assert result.exit_code == 2
    assert result.stderr.count("Error: ") == result.stderr.count(line) == 1
    assert set(Path().iterdir()) == before


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
    (["broken.wav"], "broken.wav: "),
    (["track.wav", "--device", "quantum"], "device 'quantum' is not available here"),
    (["track.wav", "--wiener", "1"], "the model estimates no spectra for a Wiener filter, "),
    (
        ["track.wav", "--griffin-lim"],
        "the model estimates no spectra for a Wiener filter, Griffin-Lim or",
    ),
    (["track.wav", "--start", "1"], "track.wav: ends before 1 s; lower --start"),
    (["https://here/a.wav"], "https://here/a.wav: no such file or folder; fetch it first"),
    (["*.flac"], "*.flac: no such file or folder; check the spelling"),
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
