"""What libsndfile does not read: by the package av, by the program ffmpeg, or one line on both."""

import io
import stat
import sys
import tracemalloc

import av
import numpy as np
import pytest

from sepcli import audio
from sepcli.audio import foreign
from sepcli.errors import SepcliError
from tests.sounds import pipe, put_tracks, sound

RATE = 44100
SIGNAL = sound(RATE + 777, 2, sample_rate=RATE)  # (2, T)
# name: (FFmpeg's container, codec, sample rate, SNR that is kept in dB)
LOSSLESS = {
    "alac.m4a": ("ipod", "alac", RATE, 80),
    "alac.caf": ("caf", "alac", RATE, 80),
    "flac.oga": ("ogg", "flac", RATE, 80),
    "flac.mka": ("matroska", "flac", RATE, 80),
    "x.wv": ("wv", "wavpack", RATE, 35),
    "x.tta": ("tta", "tta", RATE, 35),
}
LOSSY = {
    "x.m4a": ("ipod", "aac", RATE, 15),
    "x.mp4": ("mp4", "aac", RATE, 15),
    "x.aac": ("adts", "aac", RATE, 15),
    "x.webm": ("webm", "libopus", 48000, 10),
}
ALL = LOSSLESS | LOSSY
WHAT = {
    "x.m4a": "MP4 or M4A", "alac.m4a": "MP4 or M4A", "x.mp4": "MP4 or M4A", "x.aac": "AAC",
    "x.webm": "Matroska or WebM", "flac.mka": "Matroska or WebM", "x.wv": "WavPack",
    "x.tta": "True Audio", "alac.caf": "Apple Lossless in CAF", "flac.oga": "FLAC in Ogg",
}  # fmt: skip


def made(name, signal=SIGNAL):
    """The bytes of a file of (2, T) by FFmpeg's own encoders."""
    container, codec, rate, _ = ALL[name]
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        track = out.add_stream(codec, rate=rate, layout="stereo")
        context = track.codec_context
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal), "fltp", "stereo")
        frame.sample_rate, frame.pts = rate, 0
        size = context.frame_size or 4096
        converter = av.AudioResampler(context.format.name, "stereo", rate, size)
        for piece in [*converter.resample(frame), *converter.resample(None), None]:
            out.mux(context.encode(piece))
    return stream.getvalue()


def snr_db(estimate, reference):
    return 10 * np.log10(np.sum(reference**2) / np.sum((estimate - reference) ** 2))


def without_av(monkeypatch, path):
    """As where the package av is not installed, and only `path` has programs."""
    monkeypatch.setattr(foreign, "has_av", lambda: False)
    monkeypatch.setenv("PATH", str(path))


@pytest.mark.parametrize("name", ALL)
def test_other_formats_are_read_to_their_last_sample(tmp_path, name):
    *_, rate, least = ALL[name]
    data = made(name)
    (tmp_path / name).write_bytes(data)
    whole, found_rate = audio.read(tmp_path / name)
    assert found_rate == rate
    if name in LOSSLESS:
        assert whole.shape == SIGNAL.shape
        assert audio.info(tmp_path / name).frames == SIGNAL.shape[1]
    else:  # an MP4 tells milliseconds, and AAC has whole frames
        assert -RATE / 1000 < whole.shape[1] - SIGNAL.shape[1] < 3 * 1024
    late = 1024 if name == "x.aac" else 0  # which has no place to say so
    np.testing.assert_array_equal(whole, audio.decode(data, "x")[0])
    part = whole[:, late : late + SIGNAL.shape[1]]
    assert snr_db(part, SIGNAL[:, : part.shape[1]]) > least

    with audio.open_blocks(tmp_path / name) as reader:
        blocks = list(reader.blocks(7001))
    assert {block.shape[1] for block in blocks[:-1]} == {7001}
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
    crop, _ = audio.read(tmp_path / name, start=20_000, stop=30_000)
    np.testing.assert_array_equal(crop, whole[:, 20_000:30_000])
    with audio.open_blocks(pipe(data)) as reader:
        np.testing.assert_array_equal(reader.rest(), whole)


@pytest.mark.parametrize("part", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("name", ALL)
def test_a_file_cut_off_anywhere_is_never_just_shorter(capfd, name, part):
    data = made(name, sound(4 * RATE, 2, sample_rate=RATE))
    data = data[: int(part * len(data))]
    with pytest.raises(SepcliError, match=r"^x: (cut off|damaged|.* does not decode)") as caught:
        audio.decode(data, "x")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ALL)
def test_random_damage_never_gives_more_than_a_line(capfd, name):
    healthy, rng, lines = made(name, SIGNAL[:, :9000]), np.random.default_rng(0), []
    for _ in range(10):
        data = bytearray(healthy)
        for position in rng.integers(0, min(len(data), 300), 3):
            data[position] = rng.integers(0, 256)
        try:
            found, rate = audio.decode(bytes(data), "x")
        except SepcliError as error:
            lines.append(str(error))
        else:
            assert np.isfinite(found).all()
            assert 1 <= rate <= 768_000
    assert all(line.startswith("x: ") and "\n" not in line for line in lines)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ALL)
def test_without_a_decoder_one_line_says_what_to_install(tmp_path, monkeypatch, name):
    path = tmp_path / f"my {name}"
    path.write_bytes(made(name))
    without_av(monkeypatch, tmp_path)
    with pytest.raises(SepcliError) as caught:
        audio.read(path)
    assert str(caught.value) == (
        f"{path}: {WHAT[name]}, which needs another decoder: pip install 'sepcli[av]', or install "
        f"ffmpeg; or convert it: ffmpeg -i '{path}' out.wav"
    )
    with pytest.raises(SepcliError, match=r"^standard input: .* convert it: ffmpeg -i FILE out"):
        audio.open_blocks(io.BytesIO(path.read_bytes()))


@pytest.mark.parametrize(
    ("what", "head"),
    [
        ("WMA or WMV", b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa"),
        ("AMR", b"#!AMR-WB\n\0\0\0\0"),
        ("Monkey's Audio", b"MAC \x96\x0f\0\0"),
        ("Speex in Ogg", b"OggS\0\2" + bytes(20) + b"\1\x50Speex   ".ljust(82, b"\0")),
        ("WMA 2 in WAV", b"RIFF\0\1\0\0WAVEfmt \x10\0\0\0\x61\1\1\0\x40\x1f\0\0" + bytes(8)
         + b"data\x10\0\0\0" + bytes(16)),
        ("AAC in CAF", b"caff\0\1\0\0desc" + bytes(7) + b" @\xcf@" + bytes(5) + b"aac "
         + bytes(20) + b"data" + bytes(7) + b"\4" + bytes(4)),
        ("encoding 99 in AU", b".snd\0\0\0\x18\0\0\0\x40\0\0\0\x63\0\0\x3e\x80\0\0\0\1"
         + bytes(64)),
    ],
)  # fmt: skip
def test_a_codec_is_called_by_its_name_and_not_damaged(tmp_path, monkeypatch, what, head):
    without_av(monkeypatch, tmp_path)
    with pytest.raises(SepcliError, match=f"^x: {what}, which needs another decoder: pip"):
        audio.decode(head + bytes(100), "x")


def test_a_film_without_sound_is_told():
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as out:
        track = out.add_stream("mpeg4", rate=25)
        track.width = track.height = 32
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        picture = picture.reformat(format="yuv420p")
        out.mux([*track.encode(picture), *track.encode(None)])
    with pytest.raises(SepcliError, match=r"^x: Matroska or WebM without sound; name"):
        audio.decode(stream.getvalue(), "x")


FFMPEG = """#!{python}
import sys
import av, numpy as np
from sepcli import audio
arguments = sys.argv[1:]
path = arguments[arguments.index("-i") + 1].removeprefix("file:")
assert arguments[-5:] == ["-c:a", "pcm_f32le", "-f", "wav", "-"]
if path.endswith("broken.m4a"):
    print("moov atom not found", file=sys.stderr)
    sys.exit(183)
track = arguments[arguments.index("-map") + 1].removeprefix("0:a:")
sound, rate = audio.read(path + "#" + track if path.endswith(".mp4") else path)
if path.endswith("half.m4a"):
    sound = sound[:, :20_000]
with audio.Writer(sys.stdout.buffer, rate, len(sound)) as writer:
    writer.write(sound)
if path.endswith("half.m4a"):
    print("Invalid data found", file=sys.stderr)
    sys.exit(69)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program called ffmpeg, which takes the arguments of the real one that are used here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ffmpeg").write_text(FFMPEG.format(python=sys.executable))
    (folder / "ffmpeg").chmod(stat.S_IRWXU)
    without_av(monkeypatch, folder)


def test_the_program_ffmpeg_is_asked_where_there_is_no_package(tmp_path, program, monkeypatch):
    data = made("alac.m4a")
    (tmp_path / "-x.m4a").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    found, rate = audio.read("-x.m4a")
    assert rate == RATE
    assert snr_db(found, SIGNAL) > 80
    with audio.open_blocks(io.BytesIO(data)) as reader:  # from a copy
        np.testing.assert_array_equal(reader.rest(), found)


def test_a_track_of_several_is_named_by_its_number_whatever_decodes(tmp_path, request):
    signals = [sound(RATE, 2, pitch=pitch, sample_rate=RATE) for pitch in (440, 1000)]
    put_tracks(tmp_path / "two.mp4", signals, RATE)
    for _ in range(2):
        for number, signal in enumerate(signals):
            found, _ = audio.read(tmp_path / f"two.mp4#{number}")
            assert found.shape == signal.shape
            assert snr_db(found, signal) > 10
        request.getfixturevalue("program")


@pytest.mark.parametrize("name", ["broken.m4a", "half.m4a"])
def test_what_the_program_ffmpeg_complains_of_is_told(tmp_path, program, name):
    (tmp_path / name).write_bytes(made("alac.m4a"))
    reason = "moov atom not found" if name == "broken.m4a" else "Invalid data found"
    with pytest.raises(SepcliError, match=rf"which FFmpeg does not decode \({reason}\); copy it"):
        audio.read(tmp_path / name)


def test_the_program_ffmpeg_ends_when_nobody_reads_on(tmp_path, program):
    (tmp_path / "x.m4a").write_bytes(made("alac.m4a", np.tile(SIGNAL, (1, 10))))
    with audio.open_blocks(tmp_path / "x.m4a") as reader:
        reader.read(10)
        process = reader._decoder._process
        assert process.poll() is None
    assert process.poll() is not None


def test_long_sound_is_decoded_piece_by_piece(tmp_path):
    (tmp_path / "x.m4a").write_bytes(made("x.m4a", np.tile(SIGNAL, (1, 15))))
    tracemalloc.start()
    with audio.open_blocks(tmp_path / "x.m4a") as reader:
        total = sum(block.shape[1] for block in reader.blocks(10_000))
    assert total > 14 * SIGNAL.shape[1]
    assert tracemalloc.get_traced_memory()[1] < 2_000_000  # bytes; all of it takes 5 MB
    tracemalloc.stop()
