"""Inputs and outputs by URL: the same as files, whole or not there, in memory and in S3."""

import json
import os
import threading

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

import sepcli
from sepcli import files
from sepcli.cluster import objects
from sepcli.cluster.objects import Remote
from sepcli.errors import SepcliError
from sepcli.recordings.stored import Fetched
from sepcli.samples.pack import Pack
from sepcli.samples.streams import read_samples
from tests.commands import contents, run
from tests.separators import noise, save_tiny


def stored(url):
    """Every object below a URL: its bytes by its name."""
    system, root = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    return {path[len(root) :].lstrip("/"): system.cat_file(path) for path in system.find(root)}


@pytest.fixture(scope="module")
def s3():
    """The address of a bucket in a server of moto."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def store(request, tmp_path):
    """The URL of an empty folder."""
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A model, sounds, and samples as a folder and as a tar."""
    folder = tmp_path_factory.mktemp("local")
    save_tiny(folder / "tiny.safetensors")
    for name in ("a", "b", "sub/c"):
        sepcli.write(folder / f"sounds/{name}.wav", noise(1, 3000, len(name)), 16000)
    (folder / "sounds/notes.txt").write_text("no sound")
    run("mix", "-n", 3, "--duration", 0.3, "-o", folder / "samples", "-q")
    run("mix", "-n", 3, "--duration", 0.3, "-o", folder / "samples.tar", "-q")
    return folder


def upload(path, url):
    objects.put_all(path, Remote(url))


@given(st.sampled_from(["s3", "memory", "gs", "file+x"]), st.text("abc/.", max_size=9))
def test_a_url_is_no_path(protocol, rest):
    url = f"{protocol}://{rest}"
    assert objects.is_url(url)
    assert objects.place(url) == url
    assert not any(
        map(
            objects.is_url,
            (rest, f"/{rest}", f"https://{rest}", f"C:{rest}", f"./{protocol}:/{rest}"),
        )
    )


def test_stems_of_sounds(store, local, tmp_path):
    upload(local / "sounds", f"{store}/in")
    args = ("separate", "-m", local / "tiny.safetensors")
    run(*args, local / "sounds", "-o", tmp_path / "out")
    result = run(*args, f"{store}/in", "-o", f"{store}/out")
    assert stored(f"{store}/out") == contents(tmp_path / "out")
    assert len(stored(f"{store}/out")) == 6
    assert result.stderr == f"Wrote 6 files to {store}/out\n"
    assert (
        "exists; use --overwrite"
        in run(*args, f"{store}/in/a.wav", "-o", f"{store}/out", code=1).stderr
    )
    run(*args, f"{store}/in", "-o", f"{store}/out", "--skip-existing")
    run(*args, f"{store}/in/*.wav", "--target", "speech", "-o", f"{store}/glob")
    assert list(stored(f"{store}/glob")) == ["a/speech.wav", "b/speech.wav"]
    run(*args, f"{store}/in/a.wav", "--target", "speech", "-o", f"{store}/one.wav")
    assert stored(f"{store}/one.wav")[""] == stored(f"{store}/out")["a/speech.wav"]


def test_a_part_of_an_item_that_is_missing_is_done(store, local, tmp_path):
    upload(local / "sounds/a.wav", f"{store}/a.wav")
    args = ("separate", "-m", local / "tiny.safetensors", f"{store}/a.wav", "-o", f"{store}/out")
    run(*args)
    expected = stored(f"{store}/out")
    system, root = fsspec.core.url_to_fs(f"{store}/out")
    system.rm_file(f"{root}/a/noise.wav")
    run(*args, "--skip-existing")
    assert stored(f"{store}/out") == expected


@pytest.mark.parametrize("form", ["samples", "samples.tar"])
def test_samples(store, local, tmp_path, form):
    upload(local / form, f"{store}/{form}")
    args = ("separate", "-m", local / "tiny.safetensors")
    for number, output in enumerate(("out", "out.tar")):
        run(*args, local / form, "-o", tmp_path / output)
        run(*args, f"{store}/{form}", "-o", f"{store}/{output}")
        if number:
            assert stored(f"{store}/{output}")[""] == (tmp_path / output).read_bytes()
        else:
            assert stored(f"{store}/{output}") == contents(tmp_path / output)
    run(*args, f"{store}/{form}", "-o", f"{store}/out", code=1)
    run(*args, f"{store}/{form}", "-o", f"{store}/out", "--skip-existing")
    scores = ("--metrics", "si-sdr", "--json", "-o")
    run("eval", tmp_path / "out", *scores, tmp_path / "scores.json")
    run("eval", f"{store}/out", *scores, f"{store}/scores.json")
    assert stored(f"{store}/scores.json")[""] == (tmp_path / "scores.json").read_bytes()


def test_lists_name_objects_from_where_they_are(store, local, tmp_path):
    upload(local / "sounds", f"{store}/in")
    lines = [{"mix": "a.wav"}, {"mix": f"{store}/in/sub/c.wav", "key": "c"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    upload(tmp_path / "list.jsonl", f"{store}/in/list.jsonl")
    run("separate", "-m", local / "tiny.safetensors", f"{store}/in/list.jsonl",
        "--target", "speech", "-o", f"{store}/out")  # fmt: skip
    assert list(stored(f"{store}/out")) == ["a/speech.wav", "c/speech.wav"]


def test_mix_and_pack(store, local, tmp_path):
    args = ("mix", "-n", 3, "--duration", 0.3)
    run(*args, "-o", f"{store}/mixed")
    run(*args, "-o", f"{store}/mixed.tar")
    assert stored(f"{store}/mixed") == contents(local / "samples")
    assert stored(f"{store}/mixed.tar")[""] == (local / "samples.tar").read_bytes()
    upload(local / "sounds", f"{store}/in")
    run("pack", "--speech", f"{store}/in", "-o", f"{store}/x.h5")
    run("pack", "--speech", local / "sounds", "-o", tmp_path / "x.h5")
    (tmp_path / "got.h5").write_bytes(stored(f"{store}/x.h5")[""])
    packs = [Pack(tmp_path / name) for name in ("got.h5", "x.h5")]
    items = [[(i["name"], i["frames"], i["split"]) for i in pack.manifest()] for pack in packs]
    assert items[0] == items[1]
    assert "exists" in run("pack", "--speech", f"{store}/in", "-o", f"{store}/x.h5", code=1).stderr
    run("pack", f"{store}/mixed", "--shard-size", 2, "-o", f"{store}/tars")
    assert "manifest.jsonl" in stored(f"{store}/tars")


def test_extract_by_several_processes(s3, local, tmp_path):
    sepcli.write(tmp_path / "ref.wav", noise(1, 12000), 16000)
    store = f"{s3}/{tmp_path.name}"
    upload(local / "sounds", f"{store}/in")
    args = ("extract", "--ref", tmp_path / "ref.wav", "-q")
    run(*args, local / "sounds", "-o", tmp_path / "out")
    run(*args, f"{store}/in", "-o", f"{store}/out", "--cluster", "local", "-j", 2)
    assert stored(f"{store}/out") == contents(tmp_path / "out")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("memory://gone", "no such object"),
        ("memory://gone.wav", "no such object"),
        ("nothing://x.wav", "nothing"),
    ],
)
def test_what_is_not_there_is_one_line(local, tmp_path, url, line):
    args = ("separate", "-m", local / "tiny.safetensors", url, "-o", tmp_path / "out")
    result = run(*args, code=1)
    assert result.stderr.startswith(f"Failed: {url}: ")
    assert line in result.stderr
    assert "/tmp" not in result.stderr.replace(str(tmp_path), "")


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(SepcliError, match=r"s3://b/x: Install s3fs .*; pip install 'sepcli\[rem"):
        objects.find("s3://b/x")


def test_a_damaged_object_is_named_by_its_url(local, tmp_path):
    url = f"memory://{tmp_path.name}/bad.wav"
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    upload(tmp_path / "bad.wav", url)
    args = ("separate", "-m", local / "tiny.safetensors", url, "-o", f"memory://{tmp_path.name}/o")
    assert run(*args, code=1).stderr.startswith(f"Failed: {url}: ")
    assert not stored(f"memory://{tmp_path.name}/o")


class Breaking(MemoryFileSystem):
    """A store whose connection breaks in the middle of every upload."""

    protocol = "breaking"
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("breaking://", "memory://"))

    def put_file(self, lpath, rpath, **_settings):
        with open(lpath, "rb") as source:
            self.pipe_file(rpath, source.read(100))
        raise OSError("connection reset")


class Short(Breaking):
    """A store that takes the first half only, and says nothing."""

    protocol = "short"

    def put_file(self, lpath, rpath, **_settings):
        with open(lpath, "rb") as source:
            self.pipe_file(rpath, source.read(100))


@pytest.mark.parametrize("kind", [Breaking, Short])
def test_a_failed_upload_leaves_no_object(local, monkeypatch, kind):
    fsspec.register_implementation("breaking", kind, clobber=True)
    kind.clear_instance_cache()
    monkeypatch.setattr(Breaking, "store", {"/out/a/speech.wav": None})
    monkeypatch.setattr(kind, "store", {})
    args = ("separate", "-m", local / "tiny.safetensors", local / "sounds/a.wav")
    result = run(*args, "-o", "breaking://out", code=1)
    assert result.stderr.startswith("Failed: breaking://out/a/")
    assert kind.store == {}


def test_a_server_that_goes_leaves_no_object(s3, tmp_path):
    """Of an upload in parts, nothing is to be seen until the last one is there."""
    path, url = tmp_path / "x.bin", f"{s3}/{tmp_path.name}/x.bin"
    path.write_bytes(os.urandom(12 << 20))
    system = fsspec.filesystem("s3")
    parts, call = [], type(system)._call_s3

    async def breaking(self, method, *args, **settings):
        if method in ("upload_part", "put_object"):
            parts.append(method)
            if len(parts) > 1 or method == "put_object":
                raise OSError("connection reset")
        return await call(self, method, *args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(system), "_call_s3", breaking)
        with pytest.raises(SepcliError, match="connection reset"):
            objects.put(path, url)
    assert parts
    assert not objects.is_object(url)
    objects.put(path, url)
    assert objects.is_object(url)


def test_two_that_put_the_same_object_leave_one_whole(s3, tmp_path):
    url = f"{s3}/{tmp_path.name}/x.bin"
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 1000)
    threads = [threading.Thread(target=objects.put, args=(tmp_path / n, url)) for n in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(url)[""] in (b"a" * 1000, b"b" * 1000)


def test_samples_below_a_url_are_fetched_when_their_turn_comes(local, monkeypatch, tmp_path):
    url = f"memory://{tmp_path.name}"
    upload(local / "samples", url)
    fetched = []
    monkeypatch.setattr(objects, "fetch", lambda url, path: fetched.append(url))
    found = list(read_samples(url))
    assert [sample.key for sample in found] == ["000000", "000001", "000002"]
    assert all(isinstance(member, Remote) for member in found[0].members.values())
    assert fetched == []


def test_text_is_saved_as_a_whole(tmp_path):
    objects.save(str(tmp_path / "x"), "text")
    objects.save(f"memory://{tmp_path.name}/x", "text")
    assert files.read_text(tmp_path / "x") == stored(f"memory://{tmp_path.name}/x")[""].decode()


def test_mixtures_of_recordings_in_a_store_are_those_of_the_files(store, local, tmp_path):
    """Folders, globs, lists and packs; also by other processes, and with a bad one among them."""
    speech = tmp_path / "speech"
    for number, name in enumerate(("ann/1", "ann/2", "bob/1")):
        sepcli.write(speech / f"{name}.wav", noise(1, 8000, number), 16000)
    lines = [{"path": f"{name}.wav"} for name in ("ann/1", "ann/2", "bob/1")]
    (speech / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run("pack", "--speech", speech, "-o", speech / "x.h5")
    upload(speech, f"{store}/speech")
    quick = ("-n", 4, "--duration", 0.3)
    ways = ("", "/*/*.wav", "/list.jsonl", "/x.h5:all", "/ann/1.wav=2")
    for number, way in enumerate(ways if store.startswith("memory") else ways[:2]):
        for place, output in ((speech, "here"), (f"{store}/speech", "there")):
            run(
                "mix", "--speech", f"{place}{way}", *quick, "-o", tmp_path / f"{output}{number}.tar"
            )
        made = [list(read_samples(tmp_path / f"{name}{number}.tar")) for name in ("here", "there")]
        for one, other in zip(*made, strict=True):
            np.testing.assert_array_equal(one.audio("mix"), other.audio("mix"))
    speakers = ("--interferers", 1, "--enroll", *quick)
    for place, output in ((speech, "a.tar"), (f"{store}/speech", "b.tar")):
        run("mix", "--speech", place, *speakers, "-o", tmp_path / output)
    made = [[s.audio("mix") for s in read_samples(tmp_path / name)] for name in ("a.tar", "b.tar")]
    np.testing.assert_array_equal(*made)


def test_music_of_stems_in_a_store_is_that_of_the_files(store, local, tmp_path):
    """Folders of songs and of stems, and packs; also by other processes."""
    for number, song in enumerate(("a", "b")):
        for stem in ("vocals", "drums"):
            for path in (f"songs/{song}/{stem}.wav", f"stems/{stem}/{song}.wav"):
                sepcli.write(tmp_path / path, noise(2, 9000, number), 44100)
    run("pack", tmp_path / "songs", "-o", tmp_path / "songs/x.h5")
    for folder in ("songs", "stems"):
        upload(tmp_path / folder, f"{store}/{folder}")
    ways = (("songs",), ("stems",), ("songs/x.h5:all=2", "--augment", "remix"))
    for way, *more in ways if store.startswith("memory") else [("songs", "-j", 2)]:
        made = []
        for place in (tmp_path, store):
            tar = tmp_path / "x.tar"
            music = ("mix", "--stems", f"{place}/{way}", "-n", 3, "--duration", 0.1, *more)
            run(*music, "-o", tar, "--overwrite")
            made.append([sample.audio("mix") for sample in read_samples(tar)])
        np.testing.assert_array_equal(*made)
        assert len(made[0]) == 3


def test_a_damaged_recording_in_a_store_is_named_by_its_url(store, local, tmp_path):
    upload(local / "sounds", f"{store}/in")
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    upload(tmp_path / "x.wav", f"{store}/in/x.wav")
    mixed = ("mix", "--speech", f"{store}/in", "-n", 12, "--duration", 0.1)
    result = run(*mixed, "-o", tmp_path / "x.tar", code=1)
    assert f"Failed: {store}/in/x.wav: cut off" in result.stderr
    assert len(list(read_samples(tmp_path / "x.tar"))) == 12


def test_objects_that_were_fetched_make_room_for_others(store, local, monkeypatch):
    upload(local / "sounds", f"{store}/in")
    urls = [url for url in objects.find(f"{store}/in") if url.suffix == ".wav"]
    sizes = [len(data) for name, data in stored(f"{store}/in").items() if name.endswith(".wav")]
    kept = Fetched(most_bytes=sum(sizes) - 1)
    paths = [kept(url) for url in urls]
    assert [path.exists() for path in paths] == [False, True, True]
    assert kept(urls[0]) == paths[0]
    assert paths[0].read_bytes() == stored(urls[0])[""]


@pytest.mark.parametrize("jobs", [1, 2])
def test_estimates_and_references_in_stores_are_scored(s3, local, tmp_path, jobs):
    for role in ("est", "ref"):
        for number, name in enumerate("ab"):
            sepcli.write(tmp_path / f"{role}/{name}.wav", noise(1, 8000, number), 16000)
            for stem in ("vocals", "drums"):
                path = tmp_path / f"{role}-songs/{name}/{stem}.wav"
                sepcli.write(path, noise(1, 8000, number), 16000)
    store = f"{s3}/{tmp_path.name}"
    upload(tmp_path, store)
    for est, ref in (("est", "ref"), ("est-songs", "ref-songs"), ("est/a.wav", "ref/a.wav"),
                     ("est-songs/a", "ref-songs/a")):  # fmt: skip
        told = []
        for place in (tmp_path, store):
            scores = ("--metrics", "si-sdr,snr", "--json", "-j", jobs)
            result = run("eval", f"{place}/{est}", f"{place}/{ref}", *scores)
            told.append(json.loads(result.stdout)["items"])
        assert told[0] == told[1]
        assert told[0]
