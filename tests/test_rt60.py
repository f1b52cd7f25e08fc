"""`sepcli rt60` on files, folders and pipes: its numbers, its forms, and what it refuses."""

import builtins
import contextlib
import io
import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli import audio, cli
from tests.rooms import exponential, rumbling
from tests.test_architecture import modules_after, run


def invoke(*args, **kwargs):
    return CliRunner().invoke(cli.main, ["rt60", *map(str, args)], **kwargs)


def write(path, *channels, sample_rate=16000):
    audio.write(path, np.stack(channels).astype(np.float32), sample_rate)
    return path


@pytest.fixture
def hall(tmp_path):
    return write(tmp_path / "hall.wav", exponential(0.5, 16000))


def wav_bytes(*channels, sample_rate=16000):
    return audio.encode_wav(np.stack(channels).astype(np.float32), sample_rate)


@pytest.mark.parametrize("method", ["schroeder", "regression"])
def test_quiet_prints_the_bare_number(hall, method):
    result = invoke("-q", "--method", method, hall)
    assert (result.exit_code, result.stderr) == (0, "")
    assert float(result.stdout) == pytest.approx(0.5, rel=1e-3)
    assert result.stdout.count("\n") == 1


def test_json_is_a_line_for_every_channel(tmp_path):
    pair = [exponential(rt60_s, 48000, seconds=1.0) for rt60_s in (0.4, 0.8)]
    path = write(tmp_path / "pair.flac", *(0.9 * rir for rir in pair), sample_rate=48000)
    records = [json.loads(line) for line in invoke("--json", path).stdout.splitlines()]
    assert [record["channel"] for record in records] == [1, 2]
    for record, rt60_s in zip(records, (0.4, 0.8), strict=True):
        assert record["file"] == str(path)
        assert record["rt60_s"] == record["t30_s"] == pytest.approx(rt60_s, rel=0.01)
        assert record["source"] == "T30"
        assert record["r2"] == pytest.approx(1, abs=1e-4)
        assert record["not_measurable"] == {}


def test_the_table_has_aligned_columns_and_says_what_is_missing(tmp_path, hall):
    write(tmp_path / "rumble.wav", rumbling(0.4, 16000, rumble_db=-12))
    write(tmp_path / "sub.wav", exponential(0.5, 16000, noise_db=-40))
    result = invoke(tmp_path)
    header, *rows, remark = result.stdout.splitlines()
    assert result.exit_code == 0
    titles = ["RT60", "from", "EDT", "T20", "T30", "C50", "C80", "D50", "DRR", "decay"]
    assert [title for title in header.split() if title in titles] == titles
    assert len({len(row) for row in (header, *rows)}) == 1
    found = {row.split()[0].rpartition("/")[2]: row.split()[1:] for row in rows}
    assert found["hall.wav"][:2] == ["0.500", "T30"]
    assert found["sub.wav"][1] == "T20"
    assert found["rumble.wav"][:2] == ["-", "-"]
    assert "rumble.wav: not measurable, needs a decay of 35 dB above the" in remark


def test_octaves_are_rows(tmp_path):
    path = write(tmp_path / "room.wav", rumbling(0.4, 16000, rumble_db=-12))
    records = [
        json.loads(x) for x in invoke("--json", "--band", "octave", path).stdout.split("\n")[:-1]
    ]
    assert [record["band_hz"] for record in records] == [63, 125, 250, 500, 1000, 2000, 4000]
    assert records[-1]["rt60_s"] == pytest.approx(0.4, rel=0.05)
    assert "band Hz" in invoke("--band", "third", path).stdout


def test_a_rate_without_room_for_octaves_is_one_line(tmp_path):
    path = write(tmp_path / "low.wav", exponential(0.5, 100), sample_rate=100)
    result = invoke("--band", "octave", path)
    assert result.exit_code == 1
    assert "low.wav: no octave fits below half of its 100 Hz; use --band none" in result.stderr


@pytest.mark.parametrize("text", ["-5:-35", "-35:-5"])
def test_the_range_may_be_written_either_way(hall, text):
    record = json.loads(invoke("--json", "--range", text, hall).stdout)
    assert record["source"] == "-5:-35 dB"
    assert record["rt60_s"] == record["t30_s"]


@pytest.mark.parametrize("text", ["-5", "5:-5", "-5:-5", "a:b", "-1:-2:-3", "nan:-5", "-5:-inf"])
def test_a_range_that_makes_no_sense_is_a_usage_error(hall, text):
    result = invoke("--range", text, hall)
    assert result.exit_code == 2
    assert "is not a range of a decay; write one like -5:-35" in result.output


def test_standard_input_is_a_wav(hall):
    result = invoke("-q", "-", input=hall.read_bytes())
    assert float(result.stdout) == pytest.approx(0.5, rel=1e-3)
    record = json.loads(
        invoke("--json", input=wav_bytes(exponential(0.3, 44100), sample_rate=44100)).stdout
    )
    assert record["file"] == "stdin"
    assert record["rt60_s"] == pytest.approx(0.3, rel=1e-3)


def test_what_is_not_measurable_is_no_number(tmp_path):
    path = write(tmp_path / "rumble.wav", rumbling(0.4, 16000, rumble_db=-12))
    result = invoke("-q", path)
    assert (result.exit_code, result.stdout) == (0, "nan\n")
    assert result.stderr.startswith(f"{path}: not measurable, needs a decay of 35 dB")
    record = json.loads(invoke("--json", path).stdout)
    assert record["rt60_s"] is None
    assert set(record["not_measurable"]) >= {"rt60_s", "t20_s", "t30_s"}


def test_strict_fails_where_something_is_not_measurable(tmp_path, hall):
    assert invoke("--strict", hall).exit_code == 0
    path = write(tmp_path / "rumble.wav", rumbling(0.4, 16000, rumble_db=-12))
    result = invoke("--strict", hall, path)
    assert result.exit_code == 1
    assert result.stderr == "Error: 1 of 2 not measurable, see above\n"
    assert "0.500" in result.stdout


def test_other_files_are_measured_when_one_fails(tmp_path, hall):
    (tmp_path / "broken.wav").write_bytes(b"RIFF....")
    write(tmp_path / "silent.wav", np.zeros(100))
    result = invoke("-q", tmp_path)
    assert result.exit_code == 1
    assert float(result.stdout) == pytest.approx(0.5, rel=1e-3)
    assert "silent.wav: silent, so it is not an impulse response; remove it" in result.stderr
    assert result.stderr.endswith("Error: 2 of 3 could not be measured, see above\n")


def test_two_forms_at_once_are_a_usage_error(hall):
    result = invoke("-q", "--json", hall)
    assert result.exit_code == 2
    assert "choose one" in result.output


def test_the_plot_is_a_picture(tmp_path, hall):
    picture = tmp_path / "hall.png"
    assert invoke("--plot", picture, hall).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hall.png", "hall.wav"]


def test_the_plot_shows_the_line_at_the_rt60(hall):
    from sepcli.rirs import plots, responses

    figure = plots.decay_figure(list(responses.measure_rooms(str(hall))))
    curve, line = figure.axes[0].get_lines()
    assert curve.get_label().endswith("T30 0.500 s")
    (start, end), levels = line.get_xdata(), line.get_ydata()
    assert (end - start) / (levels[0] - levels[1]) * 60 == pytest.approx(0.5, rel=1e-3)


def test_a_missing_matplotlib_is_one_line(hall, tmp_path, monkeypatch):
    original = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    result = invoke("--plot", tmp_path / "x.png", hall)
    assert result.exit_code == 1
    assert result.stderr == "Error: --plot needs matplotlib; pip install 'sepcli[plot]'\n"


def test_a_plot_needs_the_name_of_a_picture(hall, tmp_path):
    result = invoke("--plot", tmp_path / "x.wav", hall)
    assert result.exit_code == 1
    assert "x.wav: not a picture format; end the name in .png" in result.stderr


def test_it_starts_light(hall):
    heavy = {"torch", "torchaudio", "scipy", "matplotlib", "rich", "museval"}
    assert not modules_after(run("rt60", "--band", "octave", str(hall))) & heavy


def test_a_real_pipe(hall):
    command = [sys.executable, "-m", "sepcli"]
    with subprocess.Popen([*command, "rir-decay", str(hall)], stdout=subprocess.PIPE) as shorten:
        measured = subprocess.run(
            [*command, "rt60", "-q"],
            stdin=shorten.stdout,
            capture_output=True,
            check=True,
            timeout=60,
        )
    assert float(measured.stdout) == pytest.approx(0.1875, rel=0.01)
    assert shorten.returncode == 0
    assert not measured.stderr


def test_sound_from_a_pipe_may_have_no_length(hall):
    stream = io.BytesIO()
    with audio.Writer(stream, 16000, 1) as writer:
        writer.write(audio.read(hall)[0])
    assert float(invoke("-q", input=stream.getvalue()).stdout) == pytest.approx(0.5, rel=1e-3)


def on_a_terminal(*args):
    """(exit code, what a terminal of 100 columns shows) of a command."""
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sepcli", *map(str, args)],
        stdin=end,
        stdout=end,
        stderr=end,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm"},
    ) as process:
        os.close(end)
        shown = b""
        # Linux reports the end of a terminal as an error, other systems as an empty read.
        with contextlib.suppress(OSError):
            while piece := os.read(terminal, 65536):
                shown += piece
        os.close(terminal)
    return process.returncode, shown.decode()


def test_a_terminal_gets_a_table_with_lines(tmp_path):
    path = write(tmp_path / "[red]hall.wav", exponential(0.5, 16000))
    code, shown = on_a_terminal("rt60", path)
    assert code == 0
    assert "│  0.500 │  T30 │" in shown
    column = "".join(line.split("│")[1].strip() for line in shown.splitlines() if "│" in line)
    assert column == str(path)  # folded, never cut off or taken for markup


def test_a_terminal_is_not_waited_for_and_gets_no_sound(hall):
    for args in (["rt60"], ["rir-decay"]):
        code, shown = on_a_terminal(*args)
        assert code == 2
        assert "name files, or pipe a WAV in." in shown
    code, shown = on_a_terminal("rir-decay", hall)
    assert code == 2
    assert "Sound is not written to a terminal; use -o FILE or a pipe." in shown
