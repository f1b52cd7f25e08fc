"""`sepcli serve`: live streams, and what the documentation says of them."""

import json
import re
import subprocess
import threading
import zipfile

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import sepcli
from sepcli.inference.stream import Stream
from sepcli.nn.runner import TorchRunner
from tests.serving import (
    ROOT,
    expected,
    noise,
    silence,
    sound,
)

# --- Live streams


def talk(server, query, chunks, first=()):
    """All bytes that a stream answers, and what it says when it is ready."""
    with connect(server.address(query)) as stream:
        for message in first:
            stream.send(message)
        told = json.loads(stream.recv())
        while told["event"] != "ready":
            told = json.loads(stream.recv())
        answers = []
        for chunk in chunks:
            stream.send(chunk)
            answers.append(stream.recv())
        stream.send('{"do": "end"}')
        return b"".join([*answers, stream.recv()]), told


@pytest.mark.parametrize("size", [128, 441])
def test_a_stream_equals_the_librarys(served, models, size):
    audio = noise(1.0, 16000, 2)
    chunks = [audio[:, at : at + size].T.tobytes() for at in range(0, 16000, size)]
    data, told = talk(served, "model=tiny&channels=2&target=noise", chunks)
    separator = sepcli.load(models["tiny"])
    stream = Stream(
        TorchRunner(separator.model), 2, target="noise", chunk_ms=0, compensate_delay=False
    )
    wanted = np.concatenate([stream.push(audio), stream.finish()], 1)
    np.testing.assert_allclose(np.frombuffer(data, np.float32).reshape(-1, 2).T, wanted, atol=1e-6)
    assert (told["hop"], told["sample_rate"]) == (separator.model.hop, 16000)


def test_a_stream_has_a_rate_and_a_format_of_its_own(served):
    pcm = (20_000 * np.sin(np.arange(48_000) / 20)).astype("<i2")
    chunks = [pcm[at : at + 480].tobytes() for at in range(0, 48_000, 480)]
    data, told = talk(served, "model=tiny&rate=48000&encoding=s16le&atten_lim_db=0", chunks)
    heard = np.frombuffer(data, "<i2")  # at most 0 dB less: the mixture
    assert len(heard) == len(pcm)
    late = told["delay"]
    np.testing.assert_allclose(heard[late + 2000 : -2000], pcm[2000 : -late - 2000], atol=300)


def test_a_stream_hears_its_reference_first(served):
    level = np.full((1, 4000), 0.5, np.float32).tobytes()
    audio = noise(0.5, 8000)
    first = ['{"do": "reference"}', level, level, '{"do": "start"}']
    data, _ = talk(served, "model=told", [audio.tobytes()], first)
    heard = np.frombuffer(data, np.float32)
    np.testing.assert_allclose(heard[1:], 0.5 * audio[0, :-1], rtol=0, atol=1e-6)


def test_a_stream_forgets_when_told_to(served):
    audio = noise(0.512, 16000)
    with connect(served.address("model=tiny")) as stream:
        stream.recv()
        heard = []
        for _ in range(2):
            stream.send(audio.tobytes())
            heard.append(stream.recv())
            stream.send('{"do": "reset"}')
    assert heard[0] == heard[1]


@pytest.mark.parametrize(
    ("query", "status", "line"),
    [
        ("model=none", 404, "known are tiny"),
        ("model=grid", 400, "not causal"),
        ("model=tiny&target=x", 400, "target is not one of speech, noise"),
        ("model=tiny&rate=1e9", 400, "rate is not a whole number from 8000 to 192000"),
        ("model=tiny&channels=0", 400, "channels is not"),
        ("model=tiny&encoding=mp3", 400, "encoding is not one of f32le, s16le"),
        ("model=tiny&atten_lim_db=nan", 400, "atten_lim_db is not"),
        ("path=/etc/passwd", 400, "unknown path"),
    ],
)
def test_what_is_wrong_with_a_stream_is_said_before_it_begins(served, query, status, line):
    with pytest.raises(InvalidStatus) as refused, connect(served.address(query)):
        pass
    assert refused.value.response.status_code == status
    assert line in json.loads(refused.value.response.body)["error"]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (b"abc", "a message of 3 bytes, but a frame has 4"),
        (b"\0" * 4 * 40_000, "more than 2 s at once"),
        (np.array([np.nan], np.float32).tobytes(), "not all finite"),
        ("[", "not JSON"),
        ('{"do": "what"}', "expected reset or end"),
    ],
)
def test_what_is_wrong_with_a_message_ends_the_stream(served, message, line):
    with connect(served.address("model=tiny")) as stream:
        stream.recv()
        stream.send(message)
        assert line in json.loads(stream.recv())["error"]
        with pytest.raises(ConnectionClosed):
            stream.recv()


def test_more_streams_than_there_is_room_for_are_told_when_to_come_again(served):
    with connect(served.address("model=tiny")), connect(served.address("model=tiny")):
        with pytest.raises(InvalidStatus) as refused, connect(served.address("model=tiny")):
            pass
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) >= 1
    served.until(lambda: not served.metric("streams"))
    with connect(served.address("model=tiny")):
        pass


def test_streams_do_not_hear_each_other(served):
    chunks = [[noise(0.1, 16000, 1, seed).tobytes()] * 5 for seed in (1, 2)]
    alone = [talk(served, "model=tiny", each)[0] for each in chunks]
    together = [None, None]

    def run(number):
        together[number] = talk(served, "model=tiny", chunks[number])[0]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


# --- What the documentation says

PAGE = (ROOT / "docs/serving.md").read_text()


def test_the_requests_of_the_documentation_work(served, tmp_path):
    for name in ("noisy.wav", "song.wav"):
        (tmp_path / name).write_bytes(sound(0.5))
    lines = re.findall(r"^curl .*$", PAGE, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        line = line.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")
        line = line.replace("target=vocals", "target=speech")  # which the small model has
        subprocess.run(["sh", "-c", f"{line} --fail -s"], cwd=tmp_path, check=True)
    assert sepcli.read(tmp_path / "clean.wav")[0].shape == (1, 8000)
    assert sepcli.read(tmp_path / "vocals.flac")[0].shape == (1, 8000)
    assert zipfile.ZipFile(tmp_path / "stems.zip").namelist() == [
        "song/speech.wav",
        "song/noise.wav",
    ]
    for job in (served.folder / "jobs").iterdir():
        served.wait(job.name, "done")
        served.ask("DELETE", f"/jobs/{job.name}")


def test_the_client_of_the_documentation_works(served, models):
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names = {}
    exec(code.replace("denoise-tiny", "tiny"), names)
    heard = names["denoise"](f"ws://127.0.0.1:{served.port}", noise(1.0)[0])
    wanted = expected(models, "tiny", noise(1.0), 16000)["speech"][0]
    np.testing.assert_allclose(heard, wanted[: len(heard)], rtol=0, atol=1e-6)
    assert len(heard) > 15_000


# --- The end of the server


def test_jobs_survive_a_server_that_is_killed(served):
    slow = [("file", silence(50), "a.wav"), ("model", "slow")]
    kept = served.job("/enhance", [("file", sound(), "c.wav")])
    served.wait(kept, "done")
    before = served.get(f"/jobs/{kept}/result").body
    running = served.job("/separate", slow)
    waiting = served.job("/enhance", [("file", sound(), "b.wav"), ("model", "tiny")])
    served.wait(running, "running")
    thread = threading.Thread(target=lost, args=(served, slow))
    thread.start()
    served.until(lambda: served.metric("jobs_waiting") == 2)
    served.kill()
    thread.join()
    served.start()
    assert served.get(f"/jobs/{kept}/result").body == before
    assert served.get(f"/jobs/{running}").json["state"] in ("queued", "running")
    served.wait(running, "done")
    assert served.get(f"/jobs/{running}/result").audio[0].shape == (1, 400_000)
    served.wait(waiting, "done")
    assert served.get(f"/jobs/{waiting}/result").body == before
    assert served.metric('jobs_total{state="done"}') == 2  # and not that of the lost client
    for name in (kept, running, waiting):
        served.ask("DELETE", f"/jobs/{name}")


def lost(server, parts):
    """A request whose answer never comes."""
    with pytest.raises(OSError):  # noqa: PT011
        server.post("/separate", parts)
