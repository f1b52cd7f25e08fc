"""`sepcli rir-decay`: what it keeps of sound files, where it writes, and what it refuses."""

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli import audio, cli
from sepcli.dsp.decay import decay_rir
from tests.rooms import exponential
from tests.test_architecture import modules_after, run


def invoke(*args, **kwargs):
    return CliRunner().invoke(cli.main, ["rir-decay", *map(str, args)], **kwargs)


def write(path, *channels, sample_rate=16000, subtype=None):
    path.parent.mkdir(exist_ok=True, parents=True)
    response = np.stack(channels).astype(np.float32)
    audio.write(path, response, sample_rate, subtype=subtype)
    return path


@pytest.fixture
def hall(tmp_path):
    return write(tmp_path / "hall.wav", 0.9 * exponential(0.5, 16000))


def test_a_file_becomes_a_file(tmp_path, hall):
    out = tmp_path / "short.wav"
    result = invoke(hall, "-o", out)
    assert (result.exit_code, result.output) == (0, f"Wrote {out}\n")
    np.testing.assert_array_equal(audio.read(out)[0], decay_rir(audio.read(hall)[0], 16000))


@pytest.mark.parametrize("name", ["short.flac", "short.ogg"])
def test_what_clips_is_told(tmp_path, name):
    loud = write(tmp_path / "hall.wav", 4 * exponential(0.5, 16000), subtype="FLOAT")
    clipped = int((np.abs(decay_rir(audio.read(loud)[0], 16000)) > 1).sum())
    result = invoke(loud, "-o", tmp_path / name)
    assert result.exit_code == 0
    assert f"{name}: {clipped} samples clipped; a .wav keeps them" in result.stderr
    assert "clipped" not in invoke(loud, "-o", tmp_path / "short.wav").stderr


@pytest.mark.parametrize(("rt60_s", "expected"), [(0.3, 0.15), (0.5, 0.188), (1.0, 0.231)])
def test_the_result_has_the_rt60_it_should(tmp_path, rt60_s, expected):
    path = write(tmp_path / "room.wav", exponential(rt60_s, 48000), sample_rate=48000)
    short = invoke(path).stdout_bytes
    args = ["rt60", "-q", "-"]
    assert float(CliRunner().invoke(cli.main, args, input=short).stdout) == pytest.approx(
        expected, rel=0.02
    )


@pytest.mark.parametrize(
    ("name", "subtype", "sample_rate"),
    [
        ("a.wav", "PCM_16", 8000),
        ("a.wav", "PCM_24", 44100),
        ("a.wav", "FLOAT", 48000),
        ("a.flac", "PCM_16", 96000),
        ("a.aiff", "PCM_24", 48000),
        ("a.ogg", "VORBIS", 48000),
    ],
)
def test_format_subtype_rate_and_channels_stay(tmp_path, name, subtype, sample_rate):
    pair = [0.9 * exponential(0.3, sample_rate, seed=seed) for seed in (1, 2)]
    path = write(tmp_path / name, *pair, sample_rate=sample_rate, subtype=subtype)
    assert invoke(path, "-o", tmp_path / "out").exit_code == 0
    before, after = audio.info(path), audio.info(tmp_path / "out" / name)
    assert after == before


def test_a_folder_keeps_its_tree(tmp_path):
    for name in ("a.wav", "deep/a.flac"):
        write(tmp_path / "rooms" / name, 0.9 * exponential(0.2, 16000))
    assert invoke(tmp_path / "rooms", "-o", tmp_path / "out").exit_code == 0
    found = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")
    )
    assert found == ["a.wav", "deep/a.flac"]


def test_two_files_never_share_a_place(tmp_path):
    paths = [write(tmp_path / name, np.ones(9)) for name in ("x/a.wav", "y/a.wav", "y/b.wav")]
    for number, given in enumerate([[*paths, paths[0]], [tmp_path / "x", tmp_path / "y"]]):
        out = tmp_path / f"out {number}"
        result = invoke(*given, "-o", out)
        assert result.output == f"Wrote 3 files to {out}\n"
        found = sorted(str(path.relative_to(out)) for path in out.rglob("*.wav"))
        assert found == ["b.wav", "x/a.wav", "y/a.wav"]


@pytest.mark.parametrize("name", ["v1.0/rooms.d/", "Vol. 2", "there.wav"])
def test_a_name_that_does_not_end_like_sound_is_a_folder(tmp_path, hall, name):
    (tmp_path / "there.wav").mkdir()
    assert invoke(hall, "-o", f"{tmp_path}/{name}").exit_code == 0
    assert (tmp_path / name / hall.name).is_file()


def test_hundreds_of_failures_are_counted(tmp_path, hall):
    for number in range(100):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.wav").touch()
    for command in (["rir-decay", "-o", str(tmp_path / "out")], ["rt60"]):
        args = [*command, str(tmp_path / "in"), str(hall)]
        lines = CliRunner().invoke(cli.main, args).stderr.splitlines()
        assert sum(line.startswith("Failed: ") for line in lines) == 21
        assert lines[20] == "Failed: 80 more"
        assert lines[-1].startswith("Error: 100 of 101 could not be ")


def test_through_a_pipe_it_stays_wav(hall):
    result = invoke("-", input=hall.read_bytes())
    assert result.exit_code == 0
    shortened, rate = audio.decode(result.stdout_bytes, "out")
    assert rate == 16000
    np.testing.assert_array_equal(shortened, decay_rir(audio.read(hall)[0], 16000))


def test_options_reach_the_responses(tmp_path):
    pair = np.full((2, 4000), 0.1, np.float32)
    pair[0, 500], pair[1, 1500], pair[1, 1800] = -0.9, 0.5, -0.7
    path = write(tmp_path / "pair.wav", *pair)
    for args, settings in (
        (["--rt60", "0.1", "--early-ms", "5"], {"rt60_s": 0.1, "early_ms": 5}),
        (["--joint"], {"joint": True}),
        (["--signed-argmax"], {"signed": True}),
    ):
        shortened = audio.decode(invoke(path, *args).stdout_bytes, "out")[0]
        np.testing.assert_array_equal(shortened, decay_rir(pair, 16000, **settings))
        assert (shortened != decay_rir(pair, 16000)).any()


def test_what_exists_is_replaced_only_when_asked(tmp_path, hall):
    out = write(tmp_path / "out.wav", np.ones(3))
    before = out.read_bytes()
    result = invoke(hall, "-o", out)
    assert result.exit_code == 1
    assert f"Failed: {out}: exists; use --overwrite or --skip-existing" in result.stderr
    assert invoke(hall, "-o", out, "--skip-existing").exit_code == 0
    assert out.read_bytes() == before
    assert invoke(hall, "-o", out, "--overwrite").exit_code == 0
    assert audio.info(out).frames == audio.info(hall).frames


def test_other_files_are_shortened_when_one_fails(tmp_path, hall):
    silent = write(tmp_path / "silent.wav", np.zeros(99))
    result = invoke(silent, hall, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "silent.wav: silent, so it is not an impulse response; remove it" in result.stderr
    assert result.stderr.endswith("Error: 1 of 2 could not be shortened, see above\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hall.wav"]


@pytest.mark.parametrize("output", [[], ["-o", "-"], ["-o", "one.wav"]])
def test_many_responses_need_a_folder(hall, output):
    result = invoke(hall, write(hall.parent / "b" / "b.wav", np.ones(9)), *output)
    assert result.exit_code == 2
    assert "responses do not fit into" in result.output


def test_standard_input_into_a_folder_has_no_name(tmp_path, hall):
    result = invoke("-", "-o", tmp_path / "out", input=hall.read_bytes())
    assert result.exit_code == 2
    assert "Standard input has no name" in result.output


@pytest.mark.parametrize("args", [("--rt60", "0"), ("--rt60", "-1"), ("--early-ms", "-1")])
def test_times_that_make_no_sense_are_usage_errors(hall, args):
    assert invoke(hall, *args).exit_code == 2


def test_the_plot_shows_before_and_after(tmp_path, hall):
    picture = tmp_path / "both.svg"
    assert invoke(hall, "-o", tmp_path / "short.wav", "--plot", picture).exit_code == 0
    assert b"<svg" in picture.read_bytes()


def test_it_starts_light(tmp_path, hall):
    heavy = {"torch", "torchaudio", "scipy", "matplotlib", "rich", "museval"}
    loaded = modules_after(run("rir-decay", str(hall), "-o", str(tmp_path / "out.wav")))
    assert not loaded & heavy
