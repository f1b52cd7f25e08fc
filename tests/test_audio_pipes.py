"""Sound through pipes: WAV of unknown length, raw PCM, and everything else through a copy."""

import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli import audio
from sepcli.errors import SepcliError

RATE = 16000
ENCODINGS = {"u8": 8, "s16le": 16, "s24le": 24, "s32le": 32, "f32le": None, "f64le": None}
SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]


def noise(channels, frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.99, 0.99, (channels, frames)).astype(np.float32)


def step(bits):
    """Half a quantisation step, with float32's own rounding on top."""
    return 0.0 if bits is None else 2.0**-bits + 2.0**-25


class Trickle(io.RawIOBase):
    """A stream that cannot seek and hands out 1 to 7 bytes at a time, as a pipe may."""

    def __init__(self, data, seed=0):
        self._data, self._rng = io.BytesIO(data), np.random.default_rng(seed)

    def readable(self):
        return True

    def readinto(self, buffer):
        wanted = min(len(buffer), int(self._rng.integers(1, 8)))
        return self._data.readinto(memoryview(buffer)[:wanted])


def streamed(sound, blocks=3, **kwargs):
    stream = io.BytesIO()
    with audio.Writer(stream, RATE, len(sound), **kwargs) as writer:
        for block in np.array_split(sound, blocks, axis=1):
            writer.write(block)
    return stream.getvalue()


def with_sizes(data, riff_size, data_size):
    """A WAV of our own with other sizes in its header."""
    at = data.index(b"data") + 4
    return (
        data[:4] + riff_size.to_bytes(4, "little") + data[8:at] + data_size.to_bytes(4, "little")
        + data[at + 4 :]
    )  # fmt: skip


def test_a_stream_starts_with_unknown_sizes_and_an_18_byte_fmt_chunk():
    data = streamed(noise(2, 10))
    assert data[:8] == b"RIFF\xff\xff\xff\xff"
    assert data[8:20] == b"WAVEfmt \x12\0\0\0"
    assert data[38:46] == b"data\xff\xff\xff\xff"
    assert data[46:] == noise(2, 10).T.tobytes()


@settings(deadline=None, max_examples=80)
@given(
    channels=st.integers(1, 6),
    frames=st.integers(0, 300),
    subtype=st.sampled_from(SUBTYPES),
    block=st.integers(1, 200),
    seed=st.integers(0, 1000),
)
def test_any_stream_of_wav_comes_back(channels, frames, subtype, block, seed):
    sound = noise(channels, frames, seed)
    data = streamed(sound, subtype=subtype)
    with audio.open_blocks(Trickle(data, seed)) as reader:
        assert (reader.sample_rate, reader.channels, reader.frames) == (RATE, channels, None)
        blocks = list(reader.blocks(block))
    assert [b.shape[1] for b in blocks] == [
        min(block, frames - start) for start in range(0, frames, block)
    ]
    back = np.concatenate([np.empty((channels, 0)), *blocks], axis=1)
    bits = dict(zip(SUBTYPES, ENCODINGS.values(), strict=True))[subtype]
    np.testing.assert_allclose(back, sound, rtol=0, atol=step(bits))


@settings(deadline=None, max_examples=80)
@given(
    channels=st.integers(1, 6),
    frames=st.integers(0, 300),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    exact=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_raw_stream_comes_back(channels, frames, encoding, exact, seed):
    sound = noise(channels, frames, seed)
    raw = streamed(sound, encoding=encoding)
    with audio.open_blocks(
        Trickle(raw, seed), encoding=encoding, sample_rate=RATE, channels=channels
    ) as reader:
        back = np.concatenate([np.empty((channels, 0)), *reader.blocks(50, exact=exact)], axis=1)
    np.testing.assert_allclose(back, sound, rtol=0, atol=step(ENCODINGS[encoding]))


@pytest.mark.parametrize("size", [0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF])
@pytest.mark.parametrize("riff_size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_every_program_s_way_to_say_unknown_means_until_the_end(size, riff_size):
    sound = noise(2, 100)
    data = with_sizes(audio.encode_wav(sound, RATE), riff_size, size)
    np.testing.assert_array_equal(audio.decode(data, "x")[0], sound)
    with audio.open_blocks(Trickle(data)) as reader:
        assert reader.frames is None
        np.testing.assert_array_equal(reader.rest(), sound)


@pytest.mark.parametrize("riff_size", [0, 36, 0xFFFFFFFF])
def test_zero_sizes_mean_unknown_only_if_the_whole_header_was_never_filled_in(riff_size):
    sound = noise(1, 100)
    data = audio.encode_wav(sound, RATE)
    with audio.open_blocks(Trickle(with_sizes(data, riff_size, 0))) as reader:
        np.testing.assert_array_equal(reader.rest(), sound)
    truly_empty = with_sizes(data, len(data) - 8, 0)  # the rest belongs to other chunks
    with audio.open_blocks(Trickle(truly_empty)) as reader:
        assert reader.frames == 0


def test_rf64_of_unknown_length_is_read_to_its_end():
    sound = noise(1, 50)
    plain = audio.encode_wav(sound, RATE)
    for lengths in (bytes(24), b"\xff" * 24):
        ds64 = b"ds64\x1c\0\0\0" + lengths + bytes(4)
        data = b"RF64\xff\xff\xff\xffWAVE" + ds64 + plain[12:38] + b"data\xff\xff\xff\xff"
        with audio.open_blocks(Trickle(data + plain[46:])) as reader:
            np.testing.assert_array_equal(reader.rest(), sound)


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_what_libsndfile_writes_is_read_from_a_pipe(tmp_path, container, subtype):
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(3, 500).T, RATE, format=container, subtype=subtype)
    expected, _ = soundfile.read(path, dtype="float32")
    with audio.open_blocks(Trickle(path.read_bytes())) as reader:
        assert reader.frames == 500
        np.testing.assert_array_equal(reader.rest(), expected.T)


def test_chunks_before_and_after_the_samples_are_passed_over():
    sound = noise(1, 100)
    data = audio.encode_wav(sound, RATE)
    odd = b"LIST\x05\0\0\0hello\0"  # odd chunks are padded
    with audio.open_blocks(Trickle(data[:12] + odd + data[12:] + odd)) as reader:
        assert reader.frames == 100
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks(30)), axis=1), sound)


def test_zeros_after_the_samples_are_padding():
    data = audio.encode_wav(noise(1, 100), RATE) + bytes(999)
    with audio.open_blocks(Trickle(data)) as reader:
        assert reader.rest().shape == (1, 100)


def test_an_odd_number_of_bytes_is_padded_both_ways():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(5), RATE, format="WAV", subtype="PCM_U8")
    with audio.open_blocks(Trickle(buffer.getvalue() + b"LIST\0\0\0\0")) as reader:
        assert sum(block.shape[1] for block in reader.blocks(2)) == 5


@pytest.mark.parametrize("extension", ["flac", "ogg", "opus", "mp3", "aiff", "au", "caf", "w64"])
def test_every_other_format_is_read_from_a_pipe_as_from_a_file(tmp_path, extension):
    path = tmp_path / f"x.{extension}"
    audio.write(path, 0.5 * noise(2, 20_000), RATE)
    with audio.open_blocks(Trickle(path.read_bytes())) as reader:
        assert reader.format == audio.info(path).format
        back = np.concatenate(list(reader.blocks(999)), axis=1)
    np.testing.assert_allclose(back, audio.read(path)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("extension", ["flac", "ogg", "mp3", "caf"])
def test_a_stream_gets_other_formats_whole_at_the_end(tmp_path, extension):
    sound = 0.5 * noise(1, 20_000)
    data = streamed(sound, blocks=1, format=extension)
    audio.write(tmp_path / f"x.{extension}", sound, RATE)
    expected, _ = audio.read(tmp_path / f"x.{extension}")
    np.testing.assert_allclose(audio.decode(data, "x")[0], expected, rtol=0, atol=1e-6)


def test_a_block_is_there_as_soon_as_its_bytes_are():
    read_end, write_end = os.pipe()
    rescue = threading.Timer(20, os.close, [write_end])  # a failure instead of a hang
    rescue.start()
    with (
        os.fdopen(read_end, "rb") as source,
        os.fdopen(write_end, "wb", closefd=False) as sink,
        audio.Writer(sink, RATE, 1) as writer,
    ):
        first, second = noise(1, 160), noise(1, 240, seed=1)
        writer.write(first)
        with audio.open_blocks(source) as reader:
            np.testing.assert_array_equal(reader.read(16_000, exact=False), first)
            writer.write(second)
            np.testing.assert_array_equal(reader.read(16_000, exact=False), second)
            assert rescue.is_alive()
            rescue.cancel()
            os.close(write_end)
            assert reader.read(16_000, exact=False).shape == (1, 0)


def test_a_frame_split_over_two_writes_is_put_together():
    read_end, write_end = os.pipe()
    frame = np.array([[0.25], [-0.5]], np.float32)
    data = frame.T.tobytes()
    os.write(write_end, data + data[:3])
    later = threading.Timer(0.05, lambda: (os.write(write_end, data[3:]), os.close(write_end)))
    later.start()
    with os.fdopen(read_end, "rb", buffering=0) as source:
        reader = audio.open_blocks(source, encoding="f32le", sample_rate=RATE, channels=2)
        np.testing.assert_array_equal(reader.read(9, exact=False), np.tile(frame, 2))
        assert reader.read(9).shape == (2, 0)


@pytest.mark.parametrize(
    ("encoding", "channels", "extra", "there"),
    [("f32le", 1, 3, "3 of 4"), ("s16le", 2, 1, "1 of 4"), ("s24le", 2, 5, "5 of 6")],
)
def test_an_end_in_the_middle_of_a_frame_is_an_error(encoding, channels, extra, there):
    raw = streamed(noise(channels, 10), encoding=encoding) + bytes(extra)
    reader = audio.open_blocks(Trickle(raw), encoding=encoding, sample_rate=RATE, channels=channels)
    with pytest.raises(
        SepcliError,
        match=rf"^standard input: ends in the middle of a frame \({there} bytes are there\); "
        "check its channels and encoding, and that its writer finished$",
    ):
        reader.rest()
    with pytest.raises(SepcliError, match=r"^mic: ends in the middle of a frame"):
        audio.open_blocks(Trickle(streamed(noise(2, 9))[:-3]), name="mic").rest()


def test_a_stream_shorter_than_its_header_says_is_an_error():
    data = audio.encode_wav(noise(1, 100), RATE)
    with pytest.raises(
        SepcliError,
        match=r"^standard input: cut off \(90 of 100 samples are there\); copy or record it again",
    ):
        list(audio.open_blocks(Trickle(data[:-40])).blocks(64))
    with pytest.raises(SepcliError, match=r"cut off \(100 of 200 samples are there\)"):
        list(audio.open_blocks(Trickle(with_sizes(data, 0, 800))).blocks(50, exact=False))


def test_nan_in_a_stream_is_found_where_it_is():
    sound = noise(2, 1000)
    sound[1, 640] = np.nan
    raw = sound.T.tobytes()
    with pytest.raises(SepcliError, match=r"^standard input: NaN at 0.040 s \(sample 640\); "):
        list(
            audio.open_blocks(Trickle(raw), encoding="f32le", sample_rate=RATE, channels=2).blocks(
                100
            )
        )


def test_an_empty_stream_is_an_error():
    with pytest.raises(SepcliError, match=r"^standard input: empty \(0 bytes\); check the program"):
        audio.open_blocks(io.BytesIO())


def test_a_compressed_wav_is_read_from_a_pipe_as_from_a_file(tmp_path):
    soundfile.write(tmp_path / "x.wav", noise(1, 1000)[0], RATE, subtype="ULAW")
    with audio.open_blocks(Trickle((tmp_path / "x.wav").read_bytes())) as reader:
        np.testing.assert_array_equal(reader.rest(), audio.read(tmp_path / "x.wav")[0])


def test_unknown_encodings_are_a_caller_s_mistake():
    with pytest.raises(ValueError, match="unknown encoding 's12be'; choose from u8, s16le"):
        audio.open_blocks(io.BytesIO(), encoding="s12be", sample_rate=RATE, channels=1)
    with pytest.raises(ValueError, match="unknown encoding 's12be'; choose from u8, s16le"):
        audio.Writer(io.BytesIO(), RATE, 1, encoding="s12be")


def test_a_named_pipe_is_read_and_written_like_a_stream(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    sound = noise(2, 50_000)
    writing = threading.Thread(target=audio.write, args=(tmp_path / "x.wav", sound, RATE))
    writing.start()
    back, rate = audio.read(tmp_path / "x.wav", start=100)
    writing.join(20)
    np.testing.assert_array_equal(back, sound[:, 100:])
    assert rate == RATE
    assert os.listdir(tmp_path) == ["x.wav"]


SENDER = """
import sys, numpy as np
from sepcli import audio
with audio.Writer(sys.stdout.buffer, 16000, 2, subtype=sys.argv[1]) as writer:
    for start in range(0, 40_000, 160):
        t = np.arange(start, start + 160) / 16000
        writer.write(np.stack([np.sin(t), np.cos(t)]).astype(np.float32) / 2)
"""
HALVER = """
import sys
from sepcli import audio
with audio.open_blocks(sys.stdin.buffer) as reader:
    with audio.Writer(sys.stdout.buffer, reader.sample_rate, reader.channels) as writer:
        for block in reader.blocks(1000, exact=False):
            writer.write(block / 2)
"""


def test_two_processes_pass_sound_on(tmp_path):
    """Real pipes, and libsndfile at their end: it must take our stream, read by descriptor."""
    command = (
        f"{sys.executable} -c '{SENDER}' PCM_16 | {sys.executable} -c '{HALVER}' | "
        f"{sys.executable} -c 'import soundfile, sys; f = soundfile.SoundFile(0); "
        f"n = 0\nwhile len(b := f.read(1000)): n += len(b)\nprint(f.samplerate, f.channels, n)'"
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("16000 2 40000\n", "")


def test_a_reader_that_leaves_early_is_a_broken_pipe():
    read_end, write_end = os.pipe()
    os.close(read_end)
    with (
        os.fdopen(write_end, "wb", buffering=0) as sink,
        pytest.raises(BrokenPipeError),
        audio.Writer(sink, RATE, 1) as writer,
    ):
        writer.write(noise(1, 10))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"RIFF\0\0\0\0WAVE", "wav"),
        (b"RF64\xff\xff\xff\xffWAVE", "wav"),
        (b"BW64\xff\xff\xff\xffWAVE", "wav"),
        (b"000000.json".ljust(257, b"\0") + b"ustar\x0000", "tar"),
        (b"{x}.wav".ljust(257, b"\0") + b"ustar  \0", "tar"),
        (b'{"mix": "a.wav"}\n', "jsonl"),
        (b'\n  {"mix": "a.wav"}\n', "jsonl"),
        (b"fLaC\0\0\0\x22", "audio"),
        (b"OggS\0\x02", "audio"),
        (b"ID3\x04\0\0\0\0\0\0", "audio"),
        (b"\xff\xfb\x90\x64" + bytes(20), "audio"),
        (b"\xff\xf3\x98\xc4" + bytes(20), "audio"),
        (b".snd\0\0\0\x18", "audio"),
        (b"FORM\0\0\0\0AIFF", "audio"),
        (b"FORM\0\0\0\0AIFC", "audio"),
        (b"caff\0\x01\0\0", "audio"),
        (b"riff\x2e\x91\xcf\x11", "audio"),
        (b"FORM\0\0\0\0ILBM", None),
        ("ﬁ".encode("utf-16"), None),
        (b"\xff\xf1\x50\x80" + bytes(20), "audio"),
        (b"\0\0\0 ftypM4A ", "audio"),
        (b"MAC 1.wav".ljust(257, b"\0") + b"ustar\x0000", "tar"),
        (b"hello", None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell_what_a_stream_holds(head, kind):
    assert audio.sniff(head) == kind
    assert audio.Peekable(Trickle(head)).sniff() == kind


@settings(deadline=None)
@given(
    data=st.binary(max_size=200),
    steps=st.lists(st.tuples(st.sampled_from(["peek", "read", "read1"]), st.integers(1, 60))),
)
def test_peeking_takes_nothing_away(data, steps):
    stream, position = audio.Peekable(Trickle(data)), 0
    for method, count in steps:
        got = getattr(stream, method)(count)
        expected = data[position : position + count]
        if method == "read1":
            assert expected.startswith(got)
            assert got or not expected
        else:
            assert got == expected
        position += 0 if method == "peek" else len(got)
    assert stream.read() == data[position:]
