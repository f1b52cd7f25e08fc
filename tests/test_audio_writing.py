"""Writing: whole files or none, what each format can hold, clipping, files past 4 GiB."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from sepcli import audio
from sepcli.errors import SepcliError

RATE = 16000
EXTENSIONS = ["wav", "flac", "ogg", "opus", "mp3", "aiff", "au", "caf", "rf64", "w64"]


def sound(channels=1, frames=4000):
    rng = np.random.default_rng(0)
    return rng.uniform(-0.9, 0.9, (channels, frames)).astype(np.float32)


def write_blocks(path, *blocks):
    """Write in pieces; an exception among them is raised in its turn."""
    with audio.Writer(path, RATE, 1) as writer:
        for block in blocks:
            if isinstance(block, BaseException):
                raise block
            writer.write(block)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_exception_while_writing_leaves_nothing_behind(tmp_path, extension):
    with pytest.raises(KeyboardInterrupt):
        write_blocks(tmp_path / f"x.{extension}", sound(), KeyboardInterrupt())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_file_that_exists_is_replaced_whole_or_left_alone(tmp_path, extension):
    path = tmp_path / f"x.{extension}"
    path.write_bytes(b"old")
    with pytest.raises(SepcliError, match="NaN"):
        write_blocks(path, sound(), np.full((1, 5), np.nan, np.float32))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]
    audio.write(path, sound(), RATE)
    assert audio.info(path).frames == 4000
    assert os.listdir(tmp_path) == [path.name]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "x.wav").symlink_to(tmp_path / "real" / "y.wav")
    audio.write(tmp_path / "x.wav", sound(), RATE)
    assert (tmp_path / "x.wav").is_symlink()
    assert os.listdir(tmp_path / "real") == ["y.wav"]


def test_new_files_get_the_permissions_that_the_user_set(tmp_path):
    (tmp_path / "plain").touch()
    for name in ("x.wav", "x.flac"):
        audio.write(tmp_path / name, sound(), RATE)
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("extension", ["wav", "flac", "caf"])
def test_blocks_make_the_same_file_as_one_piece(tmp_path, extension):
    with audio.Writer(tmp_path / f"a.{extension}", RATE, 2, subtype="PCM_24") as writer:
        for block in np.array_split(sound(2), 7, axis=1):
            writer.write(block)
    audio.write(tmp_path / f"b.{extension}", sound(2), RATE, subtype="PCM_24")
    expected, _ = audio.read(tmp_path / f"b.{extension}")
    np.testing.assert_array_equal(audio.read(tmp_path / f"a.{extension}")[0], expected)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_nan_and_infinity_are_refused_with_their_place(tmp_path, extension):
    for value, what in ((np.nan, "NaN"), (np.inf, "infinity")):
        broken = sound(1, 100)
        broken[0, 60] = value
        with pytest.raises(
            SepcliError, match=rf"x.{extension}: {what} at 0.254 s \(sample 4060\); repair or"
        ):
            write_blocks(tmp_path / f"x.{extension}", sound(), broken)
    with pytest.raises(SepcliError, match=r"^est.speech: infinity at 0.004 s \(sample 60\); "):
        audio.encode_wav(broken, RATE, name="est.speech")


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32"])
def test_what_is_too_loud_for_integers_is_clamped_and_counted(tmp_path, subtype):
    loud = np.array([[1.0, -1.0, 1.5, -1.5, 0.5, 300.0]], np.float32)
    assert audio.write(tmp_path / "x.wav", loud, RATE, subtype=subtype) == 3
    back, _ = audio.read(tmp_path / "x.wav")
    step = 2.0 ** (1 - {"PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}[subtype])
    np.testing.assert_allclose(back, np.clip(loud, -1, 1 - step), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("extension", "subtype"), [("flac", "PCM_16"), ("aiff", "PCM_24"), ("caf", "PCM_32")]
)
def test_libsndfile_is_never_left_to_wrap_around(tmp_path, extension, subtype):
    loud = np.array([[1.5, -1.5, 0.25]], np.float32)
    with audio.Writer(tmp_path / f"x.{extension}", RATE, 1, subtype=subtype) as writer:
        writer.write(loud)
        writer.write(loud)
    assert writer.clipped == 4
    back, _ = audio.read(tmp_path / f"x.{extension}")
    np.testing.assert_allclose(back, np.tile(np.clip(loud, -1, 1), 2), rtol=0, atol=4e-5)


LOUD = np.array([[0.5, -1.0, 1.0, 1.01, -2.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("name", "subtype", "keeps"),
    [
        ("x.wav", "PCM_16", "--subtype FLOAT keeps them"),
        ("x.aiff", "PCM_24", "--subtype FLOAT keeps them"),
        ("x.flac", None, "a .wav keeps them"),  # FLAC has no floats
        ("x.mp3", None, "a .wav keeps them"),
        ("x.ogg", "VORBIS", "a .wav keeps them"),
        ("x.ogg", "OPUS", "a .wav keeps them"),
    ],
)
def test_samples_that_clip_are_told_with_what_keeps_them(tmp_path, name, subtype, keeps):
    path = tmp_path / name
    with audio.Writer(path, RATE, 1, subtype=subtype) as writer:
        writer.write(LOUD)
    assert writer.remark == f"{path}: 2 samples clipped; {keeps}, or lower the level"
    with audio.Writer(path, RATE, 1, subtype=subtype) as writer:
        writer.write(np.clip(LOUD, -1, 1))
    assert writer.remark is None


def test_raw_integers_that_clip_are_told_as_well():
    with audio.Writer(io.BytesIO(), RATE, 1, encoding="s16le") as writer:
        writer.write(LOUD)
    assert writer.remark == (
        "standard output: 2 samples clipped; --encoding f32le keeps them, or lower the level"
    )
    with audio.Writer(io.BytesIO(), RATE, 1, encoding="f32le") as writer:
        writer.write(LOUD)
    assert writer.remark is None


@pytest.mark.parametrize("frames", [333, 400])
@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "PCM_U8"])
def test_a_stream_that_is_a_file_gets_its_sizes(tmp_path, monkeypatch, subtype, frames):
    monkeypatch.setattr("sepcli.containers.wav.RIFF_LIMIT", 1300)  # so that long ones become RF64
    path, front, behind = tmp_path / "x", b"from another command\n", b"and more"
    with path.open("wb") as stream:
        stream.write(front)
        with audio.Writer(stream, RATE, 1, subtype=subtype) as writer:
            for block in np.array_split(sound(1, frames), 3, axis=1):
                writer.write(block)
        stream.write(behind)
    data = path.read_bytes()
    assert (data[: len(front)], data[-len(behind) :]) == (front, behind)
    wav = io.BytesIO(data[len(front) : -len(behind)])
    about = soundfile.info(wav)
    assert about.frames == frames
    assert about.format == ("RF64" if len(wav.getvalue()) - 8 > 1300 else "WAV")
    assert b"\xff\xff\xff\xff" not in data[:200] or about.format == "RF64"


def test_a_stream_that_is_only_added_to_keeps_its_unknown_sizes(tmp_path):
    (tmp_path / "x").write_bytes(b"before")
    with (tmp_path / "x").open("ab") as stream, audio.Writer(stream, RATE, 1) as writer:
        writer.write(sound())
    data = (tmp_path / "x").read_bytes()
    assert data[:14] == b"beforeRIFF\xff\xff\xff\xff"
    np.testing.assert_array_equal(audio.decode(data[6:], "x")[0], sound())


def test_floats_keep_what_is_beyond_full_scale(tmp_path):
    loud = np.array([[1.5, -300.0]], np.float32)
    assert audio.write(tmp_path / "x.wav", loud, RATE) == 0
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav")[0], loud)


@pytest.mark.parametrize(("frames", "expected"), [(50, "WAV"), (51, "RF64"), (400, "RF64")])
@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24"])
def test_a_wav_that_outgrows_its_sizes_becomes_rf64(
    tmp_path, monkeypatch, frames, expected, subtype
):
    width = 4 if subtype == "FLOAT" else 3
    monkeypatch.setattr("sepcli.containers.wav.RIFF_LIMIT", 74 + 50 * 2 * width)  # really 2**32 - 1
    with audio.Writer(tmp_path / "x.wav", RATE, 2, subtype=subtype) as writer:
        for block in np.array_split(sound(2, frames), 3, axis=1):
            writer.write(block)
    about = audio.info(tmp_path / "x.wav")
    assert (about.frames, about.format) == (frames, expected)
    samples, _ = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert soundfile.info(tmp_path / "x.wav").format == expected
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav")[0], samples.T)
    with audio.open_blocks(io.BytesIO((tmp_path / "x.wav").read_bytes())) as reader:
        np.testing.assert_array_equal(reader.rest(), samples.T)


REFUSED = [
    (
        {"target": "x.xyz"},
        r"x\.xyz: \.xyz is not a known audio format; end the name in one of \.wav, \.rf64, \.w64, "
        r"\.flac, \.ogg, \.oga, \.opus, \.mp3, \.aiff, \.aif, \.au, \.snd, \.caf$",
    ),
    ({"target": "x"}, r"x: no extension is not a known audio format; end the name in one of \.wav"),
    (
        {"target": "x.flac", "subtype": "FLOAT"},
        "flac does not support FLOAT; choose PCM_24 or PCM_16$",
    ),
    ({"target": "x.wav", "subtype": "mp3"}, "wav does not support MP3; choose FLOAT or PCM_16 or"),
    (
        {"target": "x.opus", "sample_rate": 44100},
        "opus does not support 44100 Hz; resample to one of 8000, 12000, 16000, 24000, 48000 Hz$",
    ),
    (
        {"target": "x.mp3", "sample_rate": 96000},
        "mp3 does not support 96000 Hz; resample to one of 8000, 11025, 12000, 16000, 22050, "
        "24000, 32000, 44100, 48000 Hz$",
    ),
    (
        {"target": "x.ogg", "sample_rate": 384_000},
        "ogg does not support 384000 Hz; resample to 200000 Hz or less$",
    ),
    (
        {"target": "x.mp3", "channels": 6},
        r"mp3 does not support 6 channels; write 2 or fewer, or to \.wav$",
    ),
    (
        {"target": "x.flac", "channels": 9},
        r"flac does not support 9 channels; write 8 or fewer, or to \.wav$",
    ),
    ({"target": "x.wav", "sample_rate": 0}, "a sample rate of 0 Hz, not 1 to 768000; no program"),
    ({"target": "x.wav", "channels": 1000}, "1000 channels, not 1 to 64; no program could"),
    ({"target": "."}, r"\.: a folder; name a file in it$"),
]


@pytest.mark.parametrize(("settings", "line"), REFUSED)
def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, settings, line
):
    monkeypatch.chdir(tmp_path)
    settings = {"sample_rate": RATE, "channels": 1, "format": None} | settings
    if settings["target"] == ".":
        settings["format"] = "wav"
    with pytest.raises(SepcliError, match=line):
        audio.Writer(**settings)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("extension", ["ogg", "opus", "mp3", "flac"])
@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 44100, 48000, 96000, 192_000])
def test_every_rate_is_either_written_or_refused_in_one_line(tmp_path, extension, sample_rate):
    path = tmp_path / f"x.{extension}"
    try:
        audio.write(path, 0.1 * sound(2), sample_rate)
        refusal = None
    except SepcliError as error:
        refusal = str(error)
    if refusal is None:
        assert audio.info(path).sample_rate == sample_rate
    else:
        assert f"{extension} does not support {sample_rate} Hz; resample to" in refusal
        assert os.listdir(tmp_path) == []


def test_minutes_of_vorbis_in_one_piece_do_not_overflow_a_stack(tmp_path):
    long = np.zeros((1, 5_000_000), np.float32)  # libsndfile crashes when it gets these at once
    audio.write(tmp_path / "x.ogg", long, 48000)
    assert audio.info(tmp_path / "x.ogg").frames == 5_000_000


def test_raw_samples_go_to_a_path_too(tmp_path):
    with audio.Writer(tmp_path / "x.raw", RATE, 2, encoding="s16le") as writer:
        writer.write(np.array([[0.5], [-1.0]], np.float32))
    assert (tmp_path / "x.raw").read_bytes() == b"\x00\x40\x00\x80"


def test_a_device_is_written_to_and_not_replaced():
    with audio.Writer("/dev/null", RATE, 1, format="wav") as writer:
        writer.write(sound())
    assert not os.path.isfile("/dev/null")


FULL_DISK = """
import resource, sys, numpy as np
from sepcli import audio
from sepcli.errors import SepcliError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 100_000)).astype("f")
    audio.write(sys.argv[1], noise, 16000)
except SepcliError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.caf"])
def test_a_full_disk_gives_one_line_and_leaves_nothing(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, name], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"{name}: ")
    assert done.stdout.count("\n") == 1
    assert "make room" in done.stdout or "check that there is room" in done.stdout
    assert done.stderr == ""
    assert os.listdir(tmp_path) == []
