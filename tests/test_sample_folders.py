"""Samples as folders, audio files and lists: what is found, its key, and what is refused."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepcli.errors import SepcliError
from sepcli.samples.folders import FolderWriter
from sepcli.samples.streams import Sample, open_sample_writer, read_samples
from tests.samples import from_tar, make_sample, to_tar, tone


def put_audio(path, index=0, *, rate=16000, channels=1):
    """Write a tone to `path`, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(index, channels=channels).T, rate)


def keys(folder):
    return [sample.key for sample in read_samples(folder)]


def write_folder(folder, samples, **settings):
    with open_sample_writer(folder, **settings) as writer:
        return [writer.write(sample) for sample in samples]


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Reading


def test_a_folder_of_samples_is_read_with_its_json_and_whatever_else_is_there(tmp_path):
    for name in ("mix.wav", "ref.speech.wav", "est.speech.flac", "enroll.wav"):
        put_audio(tmp_path / "a" / name)
    (tmp_path / "a" / "note.txt").write_bytes(b"hello")
    (tmp_path / "a" / ".hidden.wav").write_bytes(b"")
    (tmp_path / "a" / "sample.json").write_text('{"snr_db": 3, "targets": ["speech"]}')
    (sample,) = read_samples(tmp_path)
    fields = ["mix.wav", "ref.speech.wav", "enroll.wav", "est.speech.flac", "note.txt"]
    meta = {"key": "a", "fields": fields, "targets": ["speech"], "snr_db": 3}
    assert sample.key == "a"
    assert sample.meta == meta
    assert sample.refs() == {"speech": "ref.speech.wav"}
    assert sample.ests() == {"speech": "est.speech.flac"}
    assert sample.sample_rate == 16000


@pytest.mark.parametrize("root", ["", "train/", "test/"])
def test_tracks_of_musdb_are_mixtures_with_their_stems_as_references(tmp_path, root):
    stems = ("mixture", "vocals", "drums", "bass", "other", "accompaniment")
    for number, stem in enumerate(stems):
        put_audio(
            tmp_path / f"{root}Artist - feat. X" / f"{stem}.wav", number, channels=2, rate=44100
        )
    (sample,) = read_samples(tmp_path)
    assert sample.key == "Artist - feat. X"
    assert list(sample.refs()) == sample.targets == list(stems[1:])
    assert sample.sample_rate == 44100
    np.testing.assert_allclose(sample.audio("mix"), tone(0, channels=2), atol=1e-4)
    np.testing.assert_allclose(sample.audio("ref.bass"), tone(3, channels=2), atol=1e-4)


def test_a_track_may_have_other_stems_or_no_mixture(tmp_path):
    put_audio(tmp_path / "a" / "mixture.flac")
    put_audio(tmp_path / "a" / "guitar.flac")
    (tmp_path / "a" / "README.txt").write_text("no stem")
    put_audio(tmp_path / "b" / "vocals.wav")
    put_audio(tmp_path / "b" / "accompaniment.wav")
    a, b = read_samples(tmp_path)
    assert list(a.members) == ["mix.flac", "ref.guitar.flac"]
    assert list(b.members) == ["ref.vocals.wav", "ref.accompaniment.wav"]


def test_the_same_track_in_train_and_test_has_two_keys(tmp_path):
    for split in ("train", "test"):
        put_audio(tmp_path / split / "a" / "mixture.wav")
        put_audio(tmp_path / split / f"only-{split}" / "mixture.wav")
    assert keys(tmp_path) == ["only-test", "only-train", "test/a", "train/a"]


def test_other_audio_files_are_samples_with_only_a_mix(tmp_path):
    for name in ("b.wav", "a.FLAC", "deep/er/take.1.wav", "deep/a.ogg"):
        put_audio(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no audio")
    put_audio(tmp_path / ".git" / "hidden.wav")
    samples = list(read_samples(tmp_path))
    assert [sample.key for sample in samples] == ["a", "b", "deep/a", "deep/er/take.1"]
    assert [list(sample.members) for sample in samples][:3] == [
        ["mix.FLAC"],
        ["mix.wav"],
        ["mix.ogg"],
    ]
    assert samples[0].audio("mix").shape == (1, 160)
    assert from_tar(to_tar(samples))[3].key == "deep/er/take.1"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.wav", "a.flac", "b.wav"], ["a.flac", "a.wav", "b"]),
        (["a.wav", "a.flac", "a.wav.flac"], ["a.flac", "a.wav", "a.wav.flac"]),
        (["a.wav", "a/mix.wav"], ["a", "a.wav"]),
        (["take1.wav", "take10.wav", "take2.wav"], ["take1", "take10", "take2"]),
    ],
)
def test_no_two_files_get_the_same_key(tmp_path, names, expected):
    for name in names:
        put_audio(tmp_path / name)
    assert keys(tmp_path) == expected


def test_files_that_start_with_a_role_are_still_plain_files(tmp_path):
    for name in ("mix.1.wav", "mix.2.wav"):
        put_audio(tmp_path / name)
    assert keys(tmp_path) == ["mix.1", "mix.2"]


def test_a_folder_that_is_itself_a_sample_is_called_by_its_name(tmp_path):
    put_audio(tmp_path / "song" / "mixture.wav")
    assert keys(tmp_path / "song") == ["song"]
    assert keys(f"{tmp_path}/song/../song/") == ["song"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    put_audio(tmp_path / "real" / "a.wav")
    data = tmp_path / "data"
    data.mkdir()
    (data / "link").symlink_to(tmp_path / "real")
    (data / "loop").symlink_to(data)
    (data / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert keys(data) == ["link/a"]


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(SepcliError, match=r"no samples; expected KEY/mix\.wav, .*\.flac"):
        list(read_samples(tmp_path))


def test_broken_audio_fails_only_when_it_is_read(tmp_path):
    for name in ("a", "b"):
        put_audio(tmp_path / name / "mix.wav")
        put_audio(tmp_path / name / "ref.speech.wav")
    (tmp_path / "a" / "mix.wav").write_bytes(b"no audio")
    a, b = read_samples(tmp_path)
    assert a.audio("ref.speech").shape == (1, 160)
    with pytest.raises(SepcliError, match=r"a/mix\.wav"):
        a.audio("mix")
    assert b.audio("mix").shape == (1, 160)


def test_a_field_that_is_gone_fails_when_it_is_read(tmp_path):
    write_folder(tmp_path, [make_sample()])
    (tmp_path / "000000" / "mix.wav").unlink()
    (sample,) = read_samples(tmp_path)
    with pytest.raises(SepcliError, match=r"000000/mix\.wav: no such file"):
        sample.audio("mix")


def test_the_json_of_a_folder_names_no_file_outside_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    fields = ["../secret.txt", "..", "", "/etc/passwd"]
    (tmp_path / "a" / "sample.json").write_text(json.dumps({"fields": fields}))
    (sample,) = read_samples(tmp_path)
    assert sample.members == {}


def test_broken_json_in_a_folder_is_one_line(tmp_path):
    put_audio(tmp_path / "a" / "mix.wav")
    (tmp_path / "a" / "sample.json").write_text("{")
    [sample] = read_samples(tmp_path)
    with pytest.raises(SepcliError, match=r"a/sample\.json: not JSON .*; write it again"):
        sample.check()


# Writing


def test_what_was_written_to_a_folder_gives_the_same_stream(tmp_path):
    samples = [make_sample(i, snr_db=i, targets=["speech"]) for i in range(3)]
    samples.append(make_sample(9, key="train/M.E.R.C."))
    samples[0].members["note.txt"] = b"hello"
    assert write_folder(tmp_path / "new" / "out", samples) == [True] * 4
    read = list(read_samples(tmp_path / "new" / "out"))
    assert [s.key for s in read[:3]] == ["000000", "000001", "000002"]
    assert to_tar(read[:3]) == to_tar(samples[:3])
    assert read[3].key == "M.E.R.C."  # train/ is no part of a name


def test_the_folder_holds_audio_files_and_the_json(tmp_path):
    write_folder(tmp_path, [make_sample(roles=("mix", "ref.speech"), snr_db=3)])
    names = ["000000", "000000/mix.wav", "000000/ref.speech.wav", "000000/sample.json"]
    assert files_in(tmp_path) == names
    assert json.loads((tmp_path / "000000/sample.json").read_text())["snr_db"] == 3
    read, rate = soundfile.read(tmp_path / "000000/mix.wav", dtype="float32")
    np.testing.assert_array_equal(read, tone(0)[0])
    assert rate == 16000


def test_files_are_copied_as_they_are(tmp_path):
    put_audio(tmp_path / "in" / "a.flac")
    write_folder(tmp_path / "out", read_samples(tmp_path / "in"))
    original = (tmp_path / "in/a.flac").read_bytes()
    assert (tmp_path / "out/a/mix.flac").read_bytes() == original
    (sample,) = from_tar(to_tar(read_samples(tmp_path / "in")))
    assert sample.members == {"mix.flac": original}
    assert sample.meta["sample_rate"] == 16000


def test_a_sample_that_exists_is_an_error_or_kept_or_replaced(tmp_path):
    write_folder(tmp_path, [make_sample(0, note="old", roles=("mix", "ref.noise"))])
    (tmp_path / "000000" / "mine.txt").write_text("keep")
    new = make_sample(0, note="new", roles=("mix", "ref.speech"))
    with pytest.raises(SepcliError, match=r"000000: exists; use --overwrite or --skip-existing"):
        write_folder(tmp_path, [new])
    assert write_folder(tmp_path, [new, make_sample(1)], overwrite=False) == [False, True]
    assert next(read_samples(tmp_path)).meta["note"] == "old"
    assert write_folder(tmp_path, [new], overwrite=True) == [True]
    sample = next(read_samples(tmp_path))
    assert sample.meta["note"] == "new"
    assert sorted(sample.members) == ["mine.txt", "mix.wav", "ref.speech.wav"]
    assert (tmp_path / "000000" / "mine.txt").read_text() == "keep"


def test_a_sample_can_be_written_over_the_files_it_was_read_from(tmp_path):
    write_folder(tmp_path, [make_sample()])
    for sample in read_samples(tmp_path):
        sample.set_audio("est.speech", tone(5))
        write_folder(tmp_path, [sample], overwrite=True)
    (sample,) = read_samples(tmp_path)
    np.testing.assert_array_equal(sample.audio("mix"), tone(0))
    np.testing.assert_array_equal(sample.audio("est.speech"), tone(5))


def test_an_incomplete_sample_is_written_again_when_others_are_kept(tmp_path):
    write_folder(tmp_path, [make_sample()])
    (tmp_path / "000000" / "sample.json").unlink()
    with open_sample_writer(tmp_path, overwrite=False) as writer:
        assert not writer.skips("000000")
        assert writer.write(make_sample())
        assert writer.count == 1


def fail(*paths):
    raise OSError(5, "I/O error")


def test_replacing_that_stops_half_way_leaves_a_sample_that_is_known_to_be_incomplete(
    tmp_path, monkeypatch
):
    write_folder(tmp_path, [make_sample()])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(SepcliError, match="000000: Input/output error"):
            write_folder(tmp_path, [make_sample()], overwrite=True)
    assert write_folder(tmp_path, [make_sample()], overwrite=False) == [True]


@pytest.mark.parametrize("overwrite", [None, True, False])
def test_two_samples_with_one_key_are_an_error(tmp_path, overwrite):
    stream = 2 * to_tar([make_sample()])
    with pytest.raises(SepcliError, match=r"two samples are called '000000'; write each stream"):
        write_folder(tmp_path, from_tar(stream), overwrite=overwrite)


@pytest.mark.parametrize(
    "key", ["../x", "/x", "a/../../x", "..", ".", "", "a//b", "a/", "a\\b", "\0"]
)
def test_keys_that_leave_the_folder_are_refused(tmp_path, key):
    sample = Sample(key, {}, {"a.txt": b""})
    with pytest.raises(SepcliError, match=r"cannot be the name of a folder; write to a \.tar"):
        write_folder(tmp_path / "out", [sample])
    assert files_in(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["../x", "/x", "..", ".", "", "a/b", "sample.json"])
def test_members_that_leave_the_folder_are_refused(tmp_path, name):
    sample = make_sample()
    sample.members[name] = b"x"
    with pytest.raises(SepcliError, match=r"cannot be the name of a file; write to a \.tar"):
        write_folder(tmp_path / "out", [sample])
    assert files_in(tmp_path) == ["out"]


def test_a_sample_that_cannot_be_written_leaves_nothing(tmp_path):
    broken = make_sample()
    broken.members["x.txt"] = tmp_path / "gone.txt"
    with pytest.raises(SepcliError, match=r"gone\.txt: No such file or directory"):
        write_folder(tmp_path / "out", [broken])
    assert files_in(tmp_path) == ["out"]


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SepcliError, match="out: a file, where a folder is needed"):
        FolderWriter(tmp_path / "out")
    with pytest.raises(SepcliError, match="out: a file, where a folder is needed"):
        FolderWriter(tmp_path / "out" / "deeper")
    (tmp_path / "000000").write_text("")
    with pytest.raises(SepcliError, match="000000: a file, where a folder is needed"):
        write_folder(tmp_path, [make_sample()])


# Lists


def read_list(*lines, **settings):
    data = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return list(read_samples("-", stdin=io.BytesIO(data.encode()), **settings))


def test_a_list_names_the_files_of_each_sample(tmp_path):
    for number, name in enumerate(("mix.wav", "speech.flac", "voice.wav", "guess.wav")):
        put_audio(tmp_path / "audio" / name, number)
    lines = [
        {
            "key": "first",
            "mix": "audio/mix.wav",
            "ref": {"speech": "audio/speech.flac"},
            "enroll": str(tmp_path / "audio/voice.wav"),
            "est": {"speech": "audio/guess.wav"},
            "speaker": 7,
        },
        {"path": "audio/mix.wav"},
        {"mix": "audio/mix.wav"},
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    first, second, third = read_samples(path)
    assert first.meta["speaker"] == 7
    assert first.key == "first"
    assert first.ordered() == ["mix.wav", "ref.speech.flac", "enroll.wav", "est.speech.wav"]
    np.testing.assert_allclose(first.audio("ref.speech"), tone(1), atol=1e-4)
    assert (second.key, third.key) == ("mix", "mix-2")
    assert second.ordered() == ["mix.wav"]
    assert "path" not in second.meta


def test_a_list_on_standard_input_is_seen_from_the_working_folder(tmp_path, monkeypatch):
    put_audio(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    (sample,) = read_list({"mix": "a.wav"})
    assert sample.audio("mix").shape == (1, 160)


def test_a_missing_file_in_a_list_fails_when_it_is_read(tmp_path):
    first, second = read_list({"mix": "/gone/a.wav"}, {"mix": "/gone/b.wav"})
    assert second.key == "b"
    with pytest.raises(SepcliError, match=r"/gone/a\.wav: no such file"):
        first.audio("mix")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "names no file; write"),
        ('{"mix": "notes.txt"}', "mix is 'notes.txt'; write the path of an audio file"),
        (r'{"mix": "a\u0000.wav"}', "mix is "),
        ('{"mix": 3}', "mix is 3; write"),
        ('{"mix": {"a": {"b": 1}}}', "mix is {'a': {'b': 1}}; write"),
        ('{"ref": "a.wav"}', 'ref is \'a.wav\'; write {"ref": {"speech": "a.wav"}}'),
        ('{"ref": {"speech": null}}', "ref.speech is None; write"),
        ('{"mix": "a.wav", "key": 3}', "key is 3; write it as text"),
        ('{"mix": "a.wav", "key": ""}', "key is ''; write it as text"),
        ('{"mix": "' + 2**20 * "a", "longer than 1048576 bytes"),
    ],
)
def test_a_broken_line_is_named(line, complaint):
    good, bad, other = read_list({"mix": "a.wav"}, line, {"mix": "b.wav"}, input_type="jsonl")
    assert (good.key, other.key) == ("a", "b")
    with pytest.raises(SepcliError, match=r"standard input, line 2: " + complaint) as raised:
        bad.check()
    assert len(str(raised.value)) < 200


def test_a_line_is_a_sample_before_the_next_one_arrives():
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb", buffering=0) as end:
        samples = read_samples("-", stdin=pipe, input_type="jsonl")
        for name in ("a", "b"):
            end.write(b'{"mix": "%s.wav"}\n' % name.encode())
            assert next(samples).key == name
