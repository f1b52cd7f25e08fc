"""`sepcli stream`: pipes, signals, refusals, --verify and --latency."""

import contextlib
import io
import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sepcli.audio import encode_wav, open_blocks, write
from sepcli.cli import main
from sepcli.containers.wav import header_bytes
from sepcli.models import build
from sepcli.models.modelfile import load_model, save
from tests.models import TINY, randomise

RATE = 16000


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A small random model: hop 2 ms, delay 4 ms, chunks of 10 ms."""
    torch.manual_seed(0)
    name, settings = TINY[3]
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save(path, name, settings, randomise(build(name, **settings)).state_dict(), {})
    return str(path)


def noise(channels, frames, seed=0):
    audio = 0.1 * np.random.default_rng(seed).standard_normal((channels, frames))
    return audio.astype(np.float32)


def expected(model_file, audio):
    with torch.no_grad():
        return load_model(model_file)[0](torch.from_numpy(audio)[:, None])[:, 0, 0].numpy()


def stream(model_file, data, *args):
    result = CliRunner().invoke(main, ["stream", "-m", model_file, *args], input=data)
    assert result.exit_code == 0, result.stderr
    return result.stdout_bytes


def refusal(model_file, data, *args):
    """The one line of a refusal, which leaves standard output empty."""
    result = CliRunner().invoke(main, ["stream", "-m", model_file, *args], input=data)
    assert (result.exit_code, result.stdout_bytes) == (1, b"")
    assert result.stderr.count("\n") == 1
    return result.stderr


def samples(data, channels=1):
    """Raw f32le as (C, T)."""
    return np.frombuffer(data, "<f4").reshape(-1, channels).T


@pytest.fixture
def start(model_file):
    """Start `sepcli stream` on raw floats with pipes on both sides; ends with the test."""
    processes = []

    def run(*args, **settings):
        code = "import sys; from sepcli.__main__ import main; sys.argv[0] = 'sepcli'; main()"
        command = [sys.executable, "-c", code, "stream", "-m", model_file, "-t", "raw", *args]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        processes.append(subprocess.Popen(command, bufsize=0, **pipes, **settings))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
        process.wait()


def feed(process, audio):
    process.stdin.write(np.ascontiguousarray(audio.T).tobytes())


def take(process, count):
    """The next `count` samples."""
    data = b""
    while len(data) < 4 * count and (more := process.stdout.read(4 * count - len(data))):
        data += more
    return samples(data)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 159, 4001])
def test_wav_in_wav_out_equal_to_offline_and_as_long(model_file, channels, length):
    audio = noise(channels, length)
    with open_blocks(io.BytesIO(stream(model_file, encode_wav(audio, RATE)))) as reader:
        assert (reader.sample_rate, reader.channels, reader.subtype) == (RATE, channels, "FLOAT")
        np.testing.assert_allclose(reader.rest(), expected(model_file, audio), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_raw_floats(model_file, channels):
    audio = noise(channels, 3001)
    args = ["-t", "raw", "--rate", "16000", "--channels", str(channels), "--encoding", "f32le"]
    out = samples(stream(model_file, audio.T.tobytes(), *args), channels)
    np.testing.assert_allclose(out, expected(model_file, audio), rtol=0, atol=1e-5)


def test_raw_integers(model_file):
    data = np.random.default_rng(0).integers(-5000, 5000, 3001).astype("<i2")
    out = np.frombuffer(
        stream(model_file, data.tobytes(), "-t", "raw", "--encoding", "s16le"), "<i2"
    )
    audio = (data / 32768).astype(np.float32)[None]
    assert len(out) == 3001
    np.testing.assert_allclose(out[None] / 32768, expected(model_file, audio), rtol=0, atol=1e-4)


def test_no_samples_give_no_samples(model_file):
    assert stream(model_file, b"", "-t", "raw") == b""
    out = stream(model_file, header_bytes("s16le", RATE, 2))
    assert out == header_bytes("f32le", RATE, 2)


def test_a_header_that_promises_no_length_is_read_to_the_end(model_file):
    audio = noise(1, 1000)
    data = header_bytes("f32le", RATE, 1) + audio.tobytes()
    assert stream(model_file, data) == stream(model_file, encode_wav(audio, RATE))


def test_without_compensation_the_output_lags_by_the_delay(model_file):
    audio = noise(1, 2000)
    delay = load_model(model_file)[0].delay
    late = samples(stream(model_file, audio.tobytes(), "-t", "raw", "--no-compensate-delay"))
    aligned = samples(stream(model_file, audio.tobytes(), "-t", "raw", "--compensate-delay"))
    assert late.shape == aligned.shape == audio.shape
    np.testing.assert_array_equal(late[:, delay:], aligned[:, :-delay])


def test_the_target_and_the_limit_of_attenuation_are_passed_on(model_file):
    audio = noise(1, 2000)
    run = lambda *args: samples(stream(model_file, audio.tobytes(), "-t", "raw", *args))  # noqa: E731
    np.testing.assert_allclose(run() + run("--target", "noise"), audio, atol=1e-5)
    np.testing.assert_allclose(run("--atten-lim", "0"), audio, atol=1e-6)


def test_live_audio_comes_out_steadily_and_to_the_last_sample(start, model_file):
    audio = noise(1, 1000 + 57)
    process = start()
    feed(process, audio[:, :160])
    out = [take(process, 160 - 64)]  # blocks for ever if a chunk is held back
    for at in range(160, 960, 160):
        time.sleep(0.01)
        feed(process, audio[:, at : at + 160])
        out.append(take(process, 160))
    feed(process, audio[:, 960:])
    process.stdin.close()
    out.append(take(process, 10_000))
    assert process.wait(timeout=60) == 0
    np.testing.assert_allclose(
        np.concatenate(out, 1), expected(model_file, audio), rtol=0, atol=1e-5
    )


def test_a_late_consumer_loses_nothing(start, model_file):
    audio = noise(1, 60_000)  # more than two pipes hold
    process = start("--chunk", "100")
    writer = threading.Thread(target=lambda: (feed(process, audio), process.stdin.close()))
    writer.start()
    time.sleep(0.3)
    out = take(process, 10**6)
    writer.join()
    np.testing.assert_allclose(out, expected(model_file, audio), rtol=0, atol=1e-5)


def test_a_consumer_that_leaves_ends_it_with_141(start):
    process = start()
    feed(process, noise(1, 160))
    take(process, 10)
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        while True:
            feed(process, noise(1, 16000))
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""


def test_an_interrupt_flushes_what_came_and_exits_with_130(start, model_file):
    audio = noise(1, 500)
    process = start()
    feed(process, audio)
    first = take(process, 400)
    process.send_signal(signal.SIGINT)
    out = np.concatenate([first, take(process, 10_000)], 1)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == b"Interrupted.\n"
    assert out.shape[1] >= 480  # what the pipe still held is not heard
    heard = audio[:, : out.shape[1]]
    np.testing.assert_allclose(out, expected(model_file, heard), rtol=0, atol=1e-5)


def test_usr1_makes_the_model_forget(start, model_file):
    audio = noise(1, 1600)
    process = start("--no-compensate-delay")
    feed(process, audio[:, :800])
    before = take(process, 800)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.1)
    feed(process, audio[:, 800:])
    process.stdin.close()
    after = take(process, 800)
    assert process.wait(timeout=60) == 0
    fresh = [
        samples(stream(model_file, part.tobytes(), "-t", "raw", "--no-compensate-delay"))
        for part in (audio[:, :800], audio[:, 800:])
    ]
    np.testing.assert_allclose(np.concatenate([before, after], 1), np.concatenate(fresh, 1))


def test_another_sample_rate_is_refused_saying_how_to_resample(model_file):
    line = refusal(model_file, encode_wav(noise(1, 100), 44100))
    assert line.startswith("Error: standard input: 44100 Hz, but the model runs at 16000 Hz; resam")
    assert "8000 Hz" in refusal(model_file, b"", "-t", "raw", "--rate", "8000")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "standard input: empty"),
        (b"fLaC" + bytes(100), "not a WAV file; convert it, or describe raw PCM"),
        (bytes(10_000), "not a WAV file"),
    ],
)
def test_what_is_no_wav_is_refused(model_file, data, says):
    assert says in refusal(model_file, data)


def test_a_cut_off_input_gives_what_was_there_and_fails(model_file):
    audio = noise(1, 1000)
    data = encode_wav(audio, RATE)[: -4 * 300]
    result = CliRunner().invoke(main, ["stream", "-m", model_file], input=data)
    assert result.exit_code == 1
    assert "cut off" in result.stderr
    assert result.stdout_bytes == stream(model_file, header_bytes("f32le", RATE, 1) + data[-2800:])


@pytest.mark.parametrize("args", [["--rate", "16000"], ["--encoding", "s16le"]])
def test_a_layout_without_raw_is_a_usage_error(args):
    result = CliRunner().invoke(main, ["stream", *args])
    assert result.exit_code == 2
    assert "add -t raw" in result.stderr


def test_verify_shows_that_streaming_equals_offline(model_file, tmp_path):
    write(tmp_path / "x.wav", noise(2, 20_001), RATE)
    args = ["--verify", str(tmp_path / "x.wav"), "--json"]
    record = json.loads(stream(model_file, b"", *args))
    assert record["equal"]
    assert record["max_difference"] < record["tolerance"] == 1e-5
    assert record["samples"] == 20_001
    assert record["pushes"] > 20


def test_verify_fails_when_they_differ(model_file, tmp_path, monkeypatch):
    monkeypatch.setattr("sepcli.inference.streamcheck.TOLERANCE", 1e-12)
    write(tmp_path / "x.wav", noise(1, 5000), RATE)
    args = ["stream", "-m", model_file, "--verify", str(tmp_path / "x.wav"), "--json"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["equal"]
    assert "streamed and offline output differ" in result.stderr


def test_latency_tells_the_algorithms_and_the_machines(model_file, tmp_path):
    write(tmp_path / "x.wav", noise(2, 8000), RATE)
    record = json.loads(stream(model_file, b"", "--latency", "--seconds", "0.3", "--json"))
    assert (record["hop_ms"], record["chunk_ms"], record["latency_ms"]) == (2, 10, 14)
    record = json.loads(stream(model_file, b"", "--latency", str(tmp_path / "x.wav"), "--json"))
    assert (record["channels"], record["chunks"]) == (2, 45)
    table = stream(model_file, b"", "--latency", "--seconds", "0.3").decode()
    assert "p99_ms" in table
    assert "real_time_factor" in table
