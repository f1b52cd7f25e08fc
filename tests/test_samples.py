"""What a sample is, where samples come from and where they go."""

import io
import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from sepcli.audio import encode_wav
from sepcli.errors import SepcliError
from sepcli.samples.streams import Sample, open_sample_writer, read_samples
from tests.samples import from_tar, make_sample, to_tar, tone


def read_stdin(data, **settings):
    return list(read_samples("-", stdin=io.BytesIO(data), **settings))


def file_bytes(container):
    stream = io.BytesIO()
    soundfile.write(stream, tone(3, frames=4000).T, 16000, format=container)
    return stream.getvalue()


# A sample


def test_signals_are_found_by_role_whatever_their_format():
    flac = file_bytes("FLAC")
    sample = Sample("a", {}, {"mix.FLAC": flac, "ref.voice.one.wav": b"", "mixed.wav": b""})
    assert sample.find("mix") == "mix.FLAC"
    assert sample.has("mix")
    assert sample.has("ref.voice.one")
    assert not sample.has("ref.voice")
    assert not sample.has("est.speech")
    assert sample.names("ref") == ["ref.voice.one.wav"]
    assert sample.names("mix") == ["mix.FLAC"]
    assert sample.refs() == {"voice.one": "ref.voice.one.wav"}
    np.testing.assert_allclose(sample.audio("mix"), tone(3, frames=4000), atol=1e-4)
    assert sample.audio("mix.FLAC").shape == (1, 4000)


def test_targets_have_the_order_of_the_json_then_of_their_names():
    roles = [f"{role}.{target}" for role in ("ref", "est") for target in ("d", "b", "a", "c")]
    sample = make_sample(roles=roles, targets=["c", "x", "a"])
    assert list(sample.refs()) == list(sample.ests()) == ["c", "a", "b", "d"]
    assert sample.targets == ["c", "x", "a"]
    del sample.meta["targets"]
    assert sample.targets == ["a", "b", "c", "d"]


def test_a_new_signal_replaces_the_old_one_and_is_named_in_the_fields():
    sample = Sample("a", {}, {"mix.flac": file_bytes("FLAC"), "note.txt": b""})
    sample.set_audio("mix", tone(1))
    sample.set_audio("est.speech", tone(2, channels=2).astype(np.float64), 16000)
    assert sample.meta["fields"] == ["mix.wav", "est.speech.wav", "note.txt"]
    np.testing.assert_array_equal(sample.audio("est.speech"), tone(2, channels=2))
    assert sample.members["mix.wav"] == encode_wav(tone(1), 16000)


def test_a_signal_can_be_read_in_blocks(tmp_path):
    sample = make_sample()
    soundfile.write(tmp_path / "a.wav", tone(3)[0], 16000, subtype="FLOAT")
    sample.members["enroll.wav"] = tmp_path / "a.wav"
    for name, expected in (("mix", tone(0)), ("enroll", tone(3))):
        with sample.open(name) as reader:
            assert reader.sample_rate == 16000
            blocks = np.concatenate(list(reader.blocks(100)), axis=1)
        np.testing.assert_array_equal(blocks, expected)


def test_a_missing_signal_is_an_error_that_names_what_is_there():
    (sample,) = from_tar(to_tar([make_sample()]))
    expected = "standard input: sample 000000 has no est.speech; it holds mix.wav, ref.speech.wav"
    for read in (sample.audio, sample.open):
        with pytest.raises(SepcliError, match=expected):
            read("est.speech")


def test_signals_of_another_rate_than_the_sample_are_an_error():
    sample = make_sample()
    sample.members["enroll.wav"] = encode_wav(tone(), 8000)
    with pytest.raises(
        SepcliError, match=r"000000\.enroll\.wav is 8000 Hz but its sample is 16000 Hz"
    ):
        sample.audio("enroll")
    with pytest.raises(ValueError, match="16000 Hz, not 8000 Hz"):
        sample.set_audio("est.speech", tone(), 8000)


def test_the_rate_is_that_of_the_first_signal_unless_the_json_says_it():
    sample = Sample("a", {}, {"ref.x.wav": encode_wav(tone(), 8000)})
    assert sample.sample_rate == 8000
    assert Sample("a", {"sample_rate": 44100}).sample_rate == 44100
    unsaid = Sample("a", {"sample_rate": None}, {"mix.wav": encode_wav(tone(), 8000)})
    assert unsaid.audio("mix").shape == (1, 160)
    assert unsaid.sample_rate == 8000
    with pytest.raises(SepcliError, match="sample a: no audio and no sample_rate"):
        _ = Sample("a", {}, {"note.txt": b""}).sample_rate


def test_the_json_is_strict_and_takes_numbers_of_numpy():
    meta = {"a": np.float32(0.5), "b": float("nan"), "c": [float("inf"), np.array([1, np.nan])]}
    record = json.loads(Sample("ä", meta).json(), parse_constant=pytest.fail)
    assert record == {
        "key": "ä",
        "fields": [],
        "targets": [],
        "a": 0.5,
        "b": None,
        "c": [None, [1, None]],
    }


def test_json_that_is_nested_too_deeply_is_one_line():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SepcliError, match="a: its JSON is nested too deeply; flatten it"):
        Sample("a", {"deep": value}).json()


def test_a_signal_that_is_not_finite_is_an_error_that_names_it():
    with pytest.raises(SepcliError, match=r"000000\.est\.speech\.wav: NaN"):
        make_sample().set_audio("est.speech", np.full((1, 8), np.nan))


def test_the_json_of_a_caller_is_left_alone():
    meta = {"seed": 1}
    Sample("a", meta).set_audio("mix", tone(), 16000)
    assert meta == {"seed": 1}


# Standard input


def test_standard_input_is_recognised(tmp_path):
    assert read_stdin(to_tar([make_sample()]))[0].key == "000000"
    soundfile.write(tmp_path / "a.wav", tone()[0], 16000)
    assert read_stdin(json.dumps({"mix": f"{tmp_path}/a.wav"}).encode())[0].key == "a"
    for data in (encode_wav(tone(3, frames=4000), 16000), file_bytes("FLAC"), file_bytes("AIFF")):
        (sample,) = read_stdin(data)
        assert (sample.key, sample.ordered(), sample.sample_rate) == ("stdin", ["mix.wav"], 16000)
        np.testing.assert_allclose(sample.audio("mix"), tone(3, frames=4000), atol=1e-4)


def test_a_wav_of_unknown_length_becomes_one_of_known_length():
    wav = encode_wav(tone(), 16000)
    endless = wav[:4] + b"\xff" * 4 + wav[8:].replace(b"data\x80\x02\0\0", b"data\xff\xff\xff\xff")
    assert endless.count(b"\xff\xff\xff\xff") == 2
    assert read_stdin(endless)[0].members == {"mix.wav": wav}


def test_the_type_of_standard_input_can_be_told():
    spaces = b"\t" * 600 + b'{"mix": "a.wav"}'
    with pytest.raises(
        SepcliError, match=r"neither a sample tar, nor audio, nor JSON lines; .* -t"
    ):
        read_stdin(spaces)
    assert [sample.key for sample in read_stdin(spaces, input_type="jsonl")] == ["a"]
    with pytest.raises(SepcliError, match="not a tar archive"):
        read_stdin(encode_wav(tone(), 16000), input_type="tar")


@pytest.mark.parametrize("input_type", ["auto", "tar", "wav", "audio", "jsonl"])
def test_an_empty_standard_input_is_one_line(input_type):
    with pytest.raises(
        SepcliError, match="standard input is empty: the command that should fill it"
    ):
        read_stdin(b"", input_type=input_type)


def test_a_terminal_is_neither_read_nor_written():
    leader, follower = pty.openpty()
    with open(follower, "rb+", buffering=0) as terminal:
        with pytest.raises(
            SepcliError, match="standard input is a terminal; pipe samples or audio"
        ):
            read_samples("-", stdin=terminal)
        expected = "not written to a terminal; use -o DIR, -o FILE.tar or a pipe"
        with pytest.raises(SepcliError, match=expected), open_sample_writer(stdout=terminal):
            pass
    os.close(leader)


def test_the_real_standard_streams_are_the_default():
    program = """if True:
        from sepcli.samples.streams import open_sample_writer, read_samples
        with open_sample_writer() as writer:
            for sample in read_samples("-"):
                writer.write(sample)
    """
    data = to_tar([make_sample(0), make_sample(1)])
    copied = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True)
    assert copied.stderr == b""
    assert copied.stdout == data


# Files


def test_a_single_audio_file_is_one_sample(tmp_path):
    path = tmp_path / "take.1.flac"
    path.write_bytes(file_bytes("FLAC"))
    (sample,) = read_samples(path)
    assert (sample.key, sample.ordered()) == ("take.1", ["mix.flac"])
    assert sample.audio("mix").shape == (1, 4000)


@pytest.mark.parametrize("data", [file_bytes("FLAC"), file_bytes("WAV")], ids=["flac", "wav"])
@pytest.mark.parametrize("input_type", ["auto", "audio"])
def test_an_audio_file_with_another_extension_is_one_sample(tmp_path, data, input_type):
    path = tmp_path / "take.dat"
    path.write_bytes(data)
    (sample,) = read_samples(path, input_type=input_type)
    assert (sample.key, sample.ordered()) == ("take", ["mix.wav"])
    np.testing.assert_allclose(sample.audio("mix"), tone(3, frames=4000), atol=1e-4)


def test_a_named_pipe_is_read_as_standard_input_is(tmp_path):
    (tmp_path / "run.tar").write_bytes(to_tar([make_sample()]))
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen("cat run.tar > pipe", shell=True, cwd=tmp_path):
        assert [sample.key for sample in read_samples(tmp_path / "pipe")] == ["000000"]


def test_a_path_that_is_not_there_is_one_line(tmp_path):
    for name in ("gone.tar", "gone.wav", "gone", "x" * 5000):
        with pytest.raises(SepcliError, match="no such file or folder; check the spelling"):
            read_samples(tmp_path / name)


def test_a_file_without_anything_is_one_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(SepcliError, match=r"a\.tar is empty"):
        list(read_samples(tmp_path / "a.tar"))


def test_a_tar_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "run.tar"
    with open_sample_writer(path) as writer:
        writer.write(make_sample())
        assert not path.exists()
    assert path.read_bytes() == to_tar([make_sample()])
    assert os.listdir(tmp_path) == ["run.tar"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def write_and_stop(output, error, **settings):
    with open_sample_writer(output, **settings) as writer:
        writer.write(make_sample())
        raise error


def test_an_exception_leaves_no_tar_file(tmp_path):
    path = tmp_path / "run.tar"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(path, KeyboardInterrupt, overwrite=True)
    assert os.listdir(tmp_path) == ["run.tar"]
    assert path.read_bytes() == b"old"


def test_a_tar_file_that_exists_is_an_error_or_kept_or_replaced(tmp_path):
    path = tmp_path / "run.tar"
    path.write_bytes(b"old")
    with (
        pytest.raises(SepcliError, match=r"run\.tar: exists; use --over"),
        open_sample_writer(path),
    ):
        pass
    with open_sample_writer(path, overwrite=False) as writer:
        assert writer.skips("000000")
        assert not writer.write(make_sample())
        assert writer.count == 0
    assert path.read_bytes() == b"old"
    with open_sample_writer(path, overwrite=True) as writer:
        assert not writer.skips("000000")
        assert writer.write(make_sample())
    assert path.read_bytes() == to_tar([make_sample()])


def test_a_tar_file_can_be_written_over_the_one_that_is_read(tmp_path):
    path = tmp_path / "run.tar"
    path.write_bytes(to_tar([make_sample()]))
    with open_sample_writer(path, overwrite=True) as writer:
        for sample in read_samples(path):
            sample.set_audio("est.speech", tone(5))
            writer.write(sample)
    (sample,) = read_samples(path)
    assert sample.has("est.speech")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("file/run.tar", "file: a file, where a folder is needed; choose another place"),
        ("run.tar.gz", "samples are not compressed"),
        ("run.tgz", "samples are not compressed"),
        ("run.wav", "do not go into such a file; use -o DIR or -o FILE.tar"),
        ("file", "do not go into such a file"),
    ],
)
def test_an_output_that_makes_no_sense_is_one_line(tmp_path, name, complaint):
    (tmp_path / "file").write_text("")
    with pytest.raises(SepcliError, match=complaint), open_sample_writer(tmp_path / name):
        pass


def test_a_device_takes_a_stream():
    with open_sample_writer(os.devnull) as writer:
        writer.write(make_sample())
    with pytest.raises(SepcliError, match="/dev/full: No space left on device"):
        write_and_stop("/dev/full", AssertionError)


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_output(tmp_path):
    for output in (tmp_path / "run.tar", tmp_path / "out", os.devnull):
        with pytest.raises(FileNotFoundError):
            write_and_stop(output, FileNotFoundError(2, "No such file", "mine.txt"))
