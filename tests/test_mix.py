"""`sepcli mix` as people run it: bytes, options, pipes, signals, and the lines that errors give."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.cli import main
from sepcli.mixing.specs import MixtureSpec, SpeakerSpec, StemSpec

RATE = 16000
SEPCLI = [sys.executable, "-m", "sepcli"]
QUICK = ["--duration", "0.2"]


def run(*args):
    return CliRunner().invoke(main, ["mix", *map(str, args)])


def samples(stdout):
    """{key: {member name: bytes}} of a tar, by the standard library."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(stdout)) as tar:
        for member in tar:
            key, _, name = member.name.partition(".")
            found.setdefault(key, {})[name] = tar.extractfile(member).read()
    return found


@pytest.fixture
def folder(tmp_path):
    """Folders speech and noise with a file each."""
    rng = np.random.default_rng(0)
    for name in ("speech", "noise"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", 0.1 * rng.standard_normal(RATE), RATE)
    return tmp_path


@contextmanager
def endless(*args):
    """`sepcli mix` in a process group of its own, after its first bytes."""
    with subprocess.Popen(
        [*SEPCLI, "mix", *QUICK, "--count", "0", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as mix:
        mix.stdout.read(50_000)
        yield mix


def nobody_is_left(group):
    """Whether all processes of a group end within some seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# --- what comes out


def test_without_any_option_ten_made_up_samples_of_4_s_come_out():
    result = run()
    assert result.exit_code == 0
    assert result.stderr == ""
    found = samples(result.stdout_bytes)
    assert json.loads(found.pop("__end__")[""]) == {"count": 10}
    assert list(found) == [f"{k:06d}" for k in range(10)]
    for members in found.values():
        assert list(members) == ["json", "mix.wav", "ref.noise.wav", "ref.speech.wav"]
        mix, speech, noise = (
            soundfile.read(io.BytesIO(members[name]), dtype="float32")[0]
            for name in ("mix.wav", "ref.speech.wav", "ref.noise.wav")
        )
        assert mix.shape == (4 * RATE,)
        np.testing.assert_array_equal(mix, speech + noise)
        record = json.loads(members["json"])
        assert -5 <= record["snr_db"] <= 15
        assert record["targets"] == ["speech"]


def test_recordings_and_ranges_are_used(folder):
    result = run(
        *("--speech", folder / "speech", "--noise", f"{folder}/noise=2", "--noise", folder),
        *("--snr", "3:4", "--duration", "0.2:0.3", "--level", "-30", "--mixture-gain", "-6:-5"),
        *("--rir-prob", 1, "--target", "dry", "--sample-rate", 8000, "-n", 4, "--seed", 7),
    )
    assert result.exit_code == 0, result.stderr
    found = samples(result.stdout_bytes)
    assert len(found) == 5
    for key in list(found)[:4]:
        record = json.loads(found[key]["json"])
        assert 3 <= record["snr_db"] <= 4
        assert -6 <= record["mixture_gain_db"] <= -5
        assert (record["target"], record["seed"], record["level_db"]) == ("dry", 7, -30)
        assert record["sources"]["speech"]["files"][0]["path"] == f"{folder}/speech/a.wav"
        assert record["sources"]["speech"]["rir"]["synthetic"] == "room"
        signal, rate = soundfile.read(io.BytesIO(found[key]["mix.wav"]))
        assert rate == 8000
        assert 0.2 * 8000 <= signal.size <= 0.3 * 8000


def test_jobs_change_no_byte_and_counts_only_the_end(tmp_path, folder):
    options = [*QUICK, "--noise", folder / "noise", "--noise-rir-prob", "0.5"]
    one = run(*options, "-n", 5).stdout_bytes
    assert run(*options, "-n", 5, "--jobs", 3).stdout_bytes == one
    assert run(*options, "-n", 5, "-j", 2, "-o", tmp_path / "x.tar").exit_code == 0
    assert (tmp_path / "x.tar").read_bytes() == one
    fewer, more = samples(run(*options, "-n", 2).stdout_bytes), samples(one)
    assert fewer["000001"] == more["000001"]


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 4),
    jobs=st.integers(2, 3),
    duration_s=st.floats(0.1, 0.3),
    rate=st.sampled_from([8000, 16000, 44100]),
)
def test_no_number_of_jobs_changes_a_byte(seed, count, jobs, duration_s, rate):
    options = ["--seed", seed, "-n", count, "--duration", duration_s, "--sample-rate", rate]
    one, many = (run(*options, "--rir-prob", 0.5, "--jobs", n).stdout_bytes for n in (1, jobs))
    assert many == one
    assert len(samples(one)) == count + 1  # and the end


def test_a_folder_gets_the_same_samples_and_keeps_those_it_has(tmp_path):
    assert run(*QUICK, "-n", 2, "-o", tmp_path / "out").exit_code == 0
    streamed = samples(run(*QUICK, "-n", 3).stdout_bytes)
    mix = tmp_path / "out/000001/mix.wav"
    assert mix.read_bytes() == streamed["000001"]["mix.wav"]

    again = run(*QUICK, "-n", 3, "-o", tmp_path / "out")
    assert (again.exit_code, again.stderr) == (
        1, f"Error: {tmp_path}/out/000000: exists; use --overwrite or --skip-existing\n",
    )  # fmt: skip
    before = mix.stat().st_mtime_ns
    result = run(*QUICK, "-n", 3, "-o", tmp_path / "out", "--skip-existing", "--progress", "json")
    assert result.exit_code == 0
    record = {"key": "000002", "outputs": [f"{tmp_path}/out/000002"]}
    assert result.stderr == f"{json.dumps(record)}\n"
    assert mix.stat().st_mtime_ns == before


def test_the_defaults_are_those_of_the_library():
    command = main.get_command(None, "mix")
    with command.make_context("mix", []) as context:
        given = {k: v for k, v in context.params.items() if k in MixtureSpec.__dataclass_fields__}
    assert MixtureSpec(**given) == MixtureSpec()
    assert len(given) == len(MixtureSpec.__dataclass_fields__)


@pytest.mark.parametrize("spec", [SpeakerSpec, StemSpec])
def test_the_defaults_of_speakers_and_music_are_those_of_the_library(spec):
    command = main.get_command(None, "mix")
    with command.make_context("mix", []) as context:
        given = {k: v for k, v in context.params.items() if k in spec.__dataclass_fields__}
    own = {"stems": ("x",), "sample_rate": 44100, "min_rms_db": None}  # music's, which --help says
    given |= own if spec is StemSpec else {}
    wanted = StemSpec(stems="x") if spec is StemSpec else SpeakerSpec()
    assert spec(**given) == wanted
    of_training = {"noisy_enroll_ramp", "target_absent_from"}  # they count its steps
    assert spec.__dataclass_fields__.keys() - given.keys() <= of_training


def test_speakers_come_with_enrolments(folder):
    for name in ("ann", "ben"):
        (folder / "speech" / name).mkdir()
        for k in range(2):
            signal = 0.1 * np.random.default_rng(k).standard_normal(RATE)
            soundfile.write(folder / "speech" / name / f"{k}.wav", signal, RATE)
    (folder / "speech/a.wav").unlink()
    options = [
        *QUICK, "--speech", folder / "speech", "--enroll", "--interferers", "1", "-n", 4,
        "--enroll-duration", "0.3", "--speed", "0.9:1.1", "--target-absent", "0.5", "--sir", "3",
        "--noisy-enroll", "1", "--rir-prob", "0.5",
    ]  # fmt: skip
    result = run(*options)
    assert result.exit_code == 0, result.stderr
    assert run(*options, "-j", 2).stdout_bytes == result.stdout_bytes
    found = samples(result.stdout_bytes)
    for key in list(found)[:4]:
        assert list(found[key]) == [
            "json", "mix.wav", "ref.interferers.wav", "ref.noise.wav", "ref.speech.wav",
            "enroll.wav",
        ]  # fmt: skip
        parts = {
            name: soundfile.read(io.BytesIO(found[key][f"{name}.wav"]), dtype="float32")[0]
            for name in ("mix", "ref.speech", "ref.interferers", "ref.noise", "enroll")
        }
        total = parts["ref.speech"] + parts["ref.interferers"] + parts["ref.noise"]
        np.testing.assert_array_equal(parts["mix"], total)
        assert parts["enroll"].shape == (0.3 * RATE,)
        record = json.loads(found[key]["json"])
        assert record["target_present"] == parts["ref.speech"].any()
        assert record["sources"]["interferers"][0]["sir_db"] == 3
        assert record["targets"] == ["speech"]


def test_music_is_mixed_of_stems(tmp_path):
    for name in ("vocals", "drums", "bass"):
        signal = 0.1 * np.random.default_rng(len(name)).standard_normal((44100, 2))
        soundfile.write(tmp_path / f"{name}.wav", signal, 44100)
    options = [
        *QUICK, "--stems", tmp_path, "--targets", "vocals,accompaniment", "-n", 3,
        "--augment", "swap,gain=0.7:1.3", "--augment", "pitch,time-mask",
    ]  # fmt: skip
    result = run(*options)
    assert result.exit_code == 0, result.stderr
    assert run(*options, "-j", 2).stdout_bytes == result.stdout_bytes
    found = samples(result.stdout_bytes)
    for key in list(found)[:3]:
        mix, vocals, accompaniment = (
            soundfile.read(io.BytesIO(found[key][name]), dtype="float32")
            for name in ("mix.wav", "ref.vocals.wav", "ref.accompaniment.wav")
        )
        np.testing.assert_array_equal(mix[0], vocals[0] + accompaniment[0])
        assert mix[0].shape == (0.2 * 44100, 2)
        assert mix[1] == 44100


def test_options_override_a_preset():
    found = samples(run(*QUICK, "-n", 20, "--preset", "poconet", "--level", "-30").stdout_bytes)
    records = [json.loads(members["json"]) for members in list(found.values())[:20]]
    assert {record["target"] for record in records} == {"decayed"}
    assert {record["level_db"] for record in records} == {-30}
    assert all(-5 <= record["snr_db"] <= 5 for record in records)
    assert all(-25 <= record["mixture_gain_db"] <= 5 for record in records)
    for name in ("speech", "noise"):
        assert 4 <= sum(bool(record["sources"][name]["rir"]) for record in records) <= 16


def test_neither_torch_nor_scipy_signal_is_imported():
    code = (
        "import sys; from sepcli.cli import main\n"
        "main(['mix', '-n', '1', '--duration', '0.2', '--rir-prob', '1'], standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'scipy.signal', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


# --- pipes and signals


def test_an_endless_stream_ends_quietly_when_its_reader_leaves():
    mix = f"{sys.executable} -m sepcli mix --count 0 --duration 0.2"
    shell = subprocess.run(
        ["sh", "-c", f"{{ {mix}; echo status $? >&2; }} | head -c 10000 | wc -c"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shell.stdout.strip() == "10000"
    assert shell.stderr == "status 141\n"


def test_workers_leave_with_the_reader():
    with endless("--jobs", 2) as mix:
        mix.stdout.close()
        assert mix.wait(timeout=30) == 141
        assert mix.stderr.read() == b""
    assert nobody_is_left(mix.pid)


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_everything_with_130(jobs):
    with endless("--jobs", jobs) as mix:
        os.killpg(mix.pid, signal.SIGINT)  # as a terminal does
        assert mix.stderr.read() == b"Interrupted.\n"
        assert mix.wait(timeout=30) == 130
    assert nobody_is_left(mix.pid)


def test_workers_do_not_outlive_a_killed_command():
    with endless("--jobs", 2) as mix:
        mix.kill()
        assert mix.stderr.read() == b""
    assert nobody_is_left(mix.pid)


# --- the line that the user sees


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--speech", "nowhere"], "nowhere: no such file or folder; check the spelling"),
        (["--speech", "x=loud"], "x=loud: the weight 'loud' is not above 0; write x=0.7"),
        (["--speech", "EMPTY"], "EMPTY: no audio files in it (.3gp .aac .aif "),
        (["--speech", "SILENT"], "speech: 100 stretches in a row were silent or quieter than "
                                 "-38 dB re full scale; lower --min-rms or name louder files\n"),
        (["--noise", "SILENT"], "noise: 100 stretches in a row were silent or quieter than "),
        (["--rir", "SILENT", "--rir-prob", "1"],
         "SILENT/a.wav: silent, so it is not an impulse response; remove it\n"),
        (["--speech", "BROKEN"], "BROKEN/a.wav: "),
        (["--speech", "BROKEN", "--jobs", "2"], "BROKEN/a.wav: "),
    ],
)  # fmt: skip
def test_bad_sources_give_one_line(args, line, tmp_path):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "EMPTY/readme.md").write_text("no audio")
    (tmp_path / "SILENT").mkdir()
    soundfile.write(tmp_path / "SILENT/a.wav", np.zeros(RATE), RATE)
    (tmp_path / "BROKEN").mkdir()
    (tmp_path / "BROKEN/a.wav").write_bytes(b"this is not sound")
    (tmp_path / "BROKEN/b.txt").write_text("files without an audio extension are left out")
    for name in ("EMPTY", "SILENT", "BROKEN"):
        args = [str(tmp_path / name) if arg == name else arg for arg in args]
        line = line.replace(name, str(tmp_path / name))
    result = run(*QUICK, *args)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {line}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--snr", "15:-5"], "'15:-5' starts above its end; write the lower number first"),
        (["--snr", "loud"], "'loud' is not a range; write one like -5:15, or a number"),
        (["--snr", "0:inf"], "'0:inf' is not a range; "),
        (["--duration", "0"], "'0' is below 0.1, the lowest value allowed"),
        (["--sample-rate", "0"], "0 is not in the range 4000<=x<=768000."),
        (["--rir-prob", "2"], "2.0 is not in the range 0<=x<=1."),
        (["--target", "wet"], "'wet' is not one of 'dry', 'decayed', 'reverb'."),
        (["--rir-decay", "0"], "0 is not in the range x>0"),
        (["--count", "-1"], "-1 is not in the range x>=0."),
        (["--seed", "-1"], "-1 is not in the range x>=0."),
        (["--jobs", "0"], "0 is not in the range x>=1."),
        (["--interferers", "0.5"], "'0.5' is not a range; write one like -5:15"),
        (["--speed", "0:1"], "'0:1' is below 0.25, the lowest value allowed"),
        (["--target-absent", "2"], "2.0 is not in the range 0<=x<=1."),
        (["--snr", "1e300"], "'1e300' is above 200, the highest value allowed"),
    ],
)
def test_wrong_values_name_their_option(args, line):
    result = run(*args)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: Invalid value for ")
    assert args[0] in last
    assert line in last


def test_options_of_speech_are_refused_for_music():
    result = run("--stems", "songs", "--snr", "3", "--enroll")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: --snr, --enroll: for speech, which music (--stems) is not"
    )


def test_silent_stretches_of_songs_are_left_out_when_asked_for(tmp_path):
    for name, gain in (("vocals", 0), ("drums", 0.1)):
        song = tmp_path / "songs/one" / f"{name}.wav"
        song.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(song, gain * np.ones((8000, 2)), 8000)
    songs = ("--stems", tmp_path / "songs", "--duration", 0.5, "--sample-rate", 8000, "-n", 1)
    assert run(*songs, "-o", tmp_path / "all").exit_code == 0
    result = run(*songs, "-o", tmp_path / "loud", "--min-rms", -40)
    assert result.exit_code == 1
    assert "vocals: quieter than -40 dB re full scale 100 times in a row" in result.stderr
