"""`sepcli serve` as its clients see it: a server of small models, and connections to it."""

import io
import json
import re
import socket
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

import sepcli
from sepcli.cli import main
from tests.serving import (
    expected,
    multipart,
    noise,
    silence,
    sound,
)

# --- Waiting for the result


def test_one_stem_is_a_sound_and_equals_the_librarys(served, models):
    answer = served.post("/enhance", [("file", sound(1.5, 44100, 2), "my song.wav")])
    assert (answer.status, answer.headers["content-type"]) == (200, "audio/wav")
    assert "my%20song-speech.wav" in answer.headers["content-disposition"]
    audio, rate = answer.audio
    wanted = expected(models, "tiny", noise(1.5, 44100, 2), 44100)["speech"]
    assert rate == 44100
    np.testing.assert_allclose(audio, wanted, rtol=0, atol=1e-6)


def test_several_stems_are_a_zip(served, models):
    parts = [("file", sound(), "../../etc/pass wd.wav"), ("model", "tiny"), ("residual", "true")]
    answer = served.post("/separate", [*parts, ("format", "flac")])
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        names = ["speech", "noise", "residual"]
        assert archive.namelist() == [f"pass wd/{name}.flac" for name in names]
        stems = [sepcli.audio.decode(archive.read(name), name)[0] for name in archive.namelist()]
    wanted = expected(models, "tiny", noise(1.0), 16000)
    np.testing.assert_allclose(stems[0], wanted["speech"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(sum(stems), noise(1.0), rtol=0, atol=1e-5)


def test_one_stem_may_be_a_zip_and_some_stems_may_be_chosen(served):
    parts = [("file", sound(0.2), "a.wav"), ("model", "tiny"), ("target", "noise")]
    assert zipfile.ZipFile(
        io.BytesIO(served.post("/separate", parts, accept="application/zip").body)
    ).namelist() == ["a/noise.wav"]


def test_json_has_links_to_what_came_out(served):
    answer = served.post(
        "/separate", [("file", sound(), "a.b.wav"), ("model", "tiny")], accept="application/json"
    )
    told = answer.json
    assert [each["name"] for each in told["stems"]] == ["speech", "noise"]
    assert (told["sample_rate"], told["channels"], told["frames"]) == (16000, 1, 16000)
    stem = served.get(told["stems"][1]["url"])
    assert len(stem.body) == told["stems"][1]["bytes"]
    part = served.get(told["stems"][1]["url"], range="bytes=10-19")
    assert (part.status, part.body) == (206, stem.body[10:20])
    assert served.get(told["links"]["self"]).json["state"] == "done"
    assert "peaks" not in told["links"]
    assert served.get(told["links"]["self"] + "/peaks").status == 404
    assert served.ask("DELETE", told["links"]["self"]).status == 204
    assert served.get(told["stems"][1]["url"]).status == 404


def test_a_reference_says_whom_to_extract_as_the_command_does(served, models, tmp_path):
    paths = {name: tmp_path / f"{name}.wav" for name in ("mix", "one", "two", "out")}
    uploads = [sound(1.0, 44100), sound(1.0, 16000, 1, 3), sound(0.7, 22050, 2, 4)]
    for path, data in zip(paths.values(), uploads, strict=False):
        path.write_bytes(data)
    parts = [("file", uploads[0], "a.wav"), *(("reference", each, "me") for each in uploads[1:])]
    answer = served.post("/extract", [*parts, ("views", "1")], accept="application/json")
    assert answer.status == 200, answer.body
    refs = [f"--ref={paths[name]}" for name in ("one", "two")]
    args = ["extract", paths["mix"], *refs, "-m", models["grid"], "-o", paths["out"], "--json"]
    told = CliRunner().invoke(main, list(map(str, args)))
    assert json.loads(told.stdout)["presence"] == pytest.approx(answer.json["presence"], abs=1e-3)
    stem = served.get(answer.json["stems"][1]["url"])
    np.testing.assert_allclose(stem.audio[0], sepcli.read(paths["out"])[0], rtol=0, atol=1e-5)
    served.ask("DELETE", answer.json["links"]["self"])


def test_a_reference_that_says_nothing_is_refused(served):
    for data, line in ((sound(0.2), "me: 0.20 s; a reference has"), (silence(2), "me: silent;")):
        answer = served.post(
            "/extract", [("file", sound(), "a.wav"), ("reference", data, "me.wav")]
        )
        assert (answer.status, line in answer.json["error"]) == (422, True)


# --- Jobs


def test_a_job_is_begun_watched_and_fetched(served):
    name = served.job("/separate", [("file", silence(50), "a.wav"), ("model", "slow")])
    events, data = [], []
    connection = served.connect()
    connection.request("GET", f"/jobs/{name}/events")
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")
    for line in response:
        kind, _, text = line.decode().strip().partition(": ")
        if kind == "event":
            events.append(text)
        elif kind == "data":
            data.append(json.loads(text))
    connection.close()
    assert events[-1] == "done"
    assert set(events[:-1]) <= {"queued", "running"}
    progress = [each["progress"] for each in data]
    assert progress == sorted(progress)
    assert any(0 < each < 1 for each in progress)
    answer = served.get(f"/jobs/{name}/result")
    assert answer.audio[0].shape == (1, 400_000)
    served.ask("DELETE", f"/jobs/{name}")


def test_views_are_of_the_mixture_and_of_every_stem(served, models):
    name = served.job(
        "/separate", [("file", sound(2.0, 16000, 2), "a.wav"), ("model", "tiny"), ("views", "1")]
    )
    told = served.wait(name, "done")
    assert [each["name"] for each in told["stems"]] == ["mixture", "speech", "noise"]
    mixture = served.get(told["stems"][0]["url"]).audio[0]
    np.testing.assert_array_equal(mixture, noise(2.0, 16000, 2))
    peaks = served.get(told["links"]["peaks"]).json
    blocks = noise(2.0, 16000, 2).reshape(2, 800, 40)
    np.testing.assert_allclose(np.array(peaks["mixture"])[:, 0], blocks.min((0, 2)), atol=1e-4)
    np.testing.assert_allclose(np.array(peaks["mixture"])[:, 1], blocks.max((0, 2)), atol=1e-4)
    assert served.get(told["stems"][1]["spectrogram"]).body.startswith(b"\x89PNG")
    served.ask("DELETE", f"/jobs/{name}")


def test_a_job_that_waits_and_one_that_runs_can_be_deleted_and_a_full_queue_says_when(served):
    parts = [("file", silence(90), "a.wav"), ("model", "slow")]
    names = [served.job("/separate", parts) for _ in range(2)]
    served.wait(names[0], "running")
    names += [served.job("/separate", parts) for _ in range(2)]
    assert served.get(f"/jobs/{names[3]}").json["position"] == 2
    assert served.get(f"/jobs/{names[3]}/result").status == 409
    full = served.post("/separate", parts)
    assert (full.status, "queue is full" in full.json["error"]) == (503, True)
    assert int(full.headers["retry-after"]) >= 1
    for name in reversed(names):
        assert served.ask("DELETE", f"/jobs/{name}").status == 204
        assert served.get(f"/jobs/{name}").status == 404


def test_a_client_that_leaves_takes_its_job_along(served):
    body, kind = multipart([("file", silence(90), "a.wav"), ("model", "slow")])
    before = served.metric('jobs_total{state="deleted"}')
    connection = served.connect()
    connection.request("POST", "/separate", body, {"content-type": kind})
    served.until(lambda: served.metric("jobs_running"))
    connection.close()
    served.until(lambda: not served.metric("jobs_running"))
    assert served.metric('jobs_total{state="deleted"}') == before + 1


# --- What is wrong with an upload


def truncated(data, part=0.5):
    return data[: int(len(data) * part)]


@pytest.mark.parametrize(
    ("parts", "status", "line"),
    [
        ([("file", b"", "a.wav")], 422, "a: empty (0 bytes)"),
        ([("file", b"%PDF-1.7 no sound at all", "a.wav")], 422, "a: "),
        ([("file", b"\0" * 5000, "a.wav")], 422, "a: "),
        ([("file", truncated(sound()), "a.wav")], 422, "a: cut off"),
        ([("file", truncated(sound(form="flac")), "a.wav")], 422, "a: "),
        ([("file", silence(200, 48000), "a.wav")], 413, "a: longer than 100 s"),
        ([("file", silence(80, 48000), "a.wav")], 200, ""),
        ([("file", np.random.default_rng(0).bytes(1_200_000), "a.wav")], 413, "larger than 1 MB"),
        ([("file", sound(), "a.wav"), ("model", "/etc/passwd")], 404, "known are tiny, grid"),
        ([("file", sound(), "a.wav"), ("model", "grid")], 400, "grid needs a reference; use /extr"),
        ([("file", sound(), "a.wav"), ("target", "../x")], 400, "the model finds speech, noise"),
        ([("file", sound(), "a.wav"), ("format", "exe")], 400, "format is not one of wav, flac"),
        ([("file", sound(), "a.wav"), ("reference", sound(), "b")], 400, "takes no reference"),
        ([("file", sound(), "a.wav"), ("folder", "/tmp")], 400, "unknown field 'folder'"),
        ([("file", sound(), "a.wav"), ("file", sound(), "b.wav")], 400, "one sound as the field"),
        ([("file", "text")], 400, "unknown field 'file'"),
        ([("model", "tiny")], 400, "one sound as the field file"),
        ([("model", "x" * 5000)], 400, "the field model is too long"),
        ([("x", "y")] * 100, 400, "more than 64 fields"),
    ],
    ids=range(19),
)
def test_what_is_wrong_with_an_upload_is_one_line_of_json(served, parts, status, line):
    answer = served.post("/enhance", parts)
    assert answer.status == status, answer.body
    if status != 200:
        assert set(answer.json) == {"error"}
        assert line in answer.json["error"]
        assert str(served.folder) not in answer.json["error"]
        assert "\n" not in answer.json["error"]


def test_a_body_that_is_no_form_or_ends_early_is_refused(served):
    body, kind = multipart([("file", sound(), "a.wav")])
    answer = served.ask("POST", "/enhance", body, content_type="audio/wav")
    assert (answer.status, "multipart/form-data" in answer.json["error"]) == (415, True)
    answer = served.ask("POST", "/enhance", body[:-100], content_type=kind)
    assert (answer.status, "last boundary" in answer.json["error"]) == (400, True)
    answer = served.ask("POST", "/enhance", b"junk" * 100, content_type=kind)
    assert answer.status == 400


def test_an_upload_that_is_told_to_be_too_large_is_refused_at_once(served):
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = "POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Length: 99000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_connection_that_breaks_in_an_upload_leaves_nothing(served):
    body, kind = multipart([("file", sound(), "a.wav")])
    head = f"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {kind}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head.encode() + body[:10_000])
        served.until(served.left)
        assert served.metric("uploads") == 1


def test_addresses_that_do_not_exist_are_json(served):
    for path in ("/jobs/../../etc/passwd", "/jobs/%2e%2e", f"/jobs/{'0' * 32}", "/page/../app.py"):
        answer = served.get(path)
        assert (answer.status, set(answer.json)) == (404, {"error"})
    assert served.ask("PUT", "/separate").status == 405


def test_models_health_and_the_page_are_there(served):
    told = served.get("/models").json
    assert told["defaults"] == {"separate": "tiny", "enhance": "tiny", "extract": "grid"}
    assert told["models"]["tiny"]["sources"] == ["speech", "noise"]
    assert told["models"]["tiny"]["licence"] == "MIT"
    assert served.get("/health").json["status"] == "ok"
    page = served.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for address in set(re.findall(r"/page/[\w.]+", page.body.decode())):
        part = served.get(address)
        assert part.status == 200
        assert part.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
