"""Broken, absurd and foreign files: each gives one clear line, and costs no memory."""

import io
import itertools
import os
import struct
import threading
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli import audio
from sepcli.errors import SepcliError
from tests.sounds import FORMATS, RATE, encoded, fmt, pipe, sound, wav

DATA = (b"data", bytes(200))
DAMAGED = "; copy or record it again$"

HOSTILE = {
    "zero bytes": (b"", r"empty \(0 bytes\); check the program that wrote it$"),
    "one byte": (b"R", rf"cut off \(1 bytes are there\){DAMAGED}"),
    "only a magic": (b"RIFF", rf"cut off \(the WAV header ends before any audio\){DAMAGED}"),
    "no chunks": (wav(), rf"cut off \(the WAV header ends before any audio\){DAMAGED}"),
    "no data": (wav(fmt()), rf"cut off \(the WAV header ends before any audio\){DAMAGED}"),
    "no fmt": (wav(DATA), rf"damaged \(a WAV header without a fmt chunk\){DAMAGED}"),
    "no samples": (wav(fmt(), (b"data", b"")), r"no sound in it \(0 samples\); check the program"),
    "tiny fmt": (wav((b"fmt ", b"\1\0\1\0"), DATA), rf"\(a WAV fmt chunk of 4 bytes\){DAMAGED}"),
    "huge fmt": (
        wav((*fmt(), 0xFFFFFFF0), DATA),
        rf"damaged \(a WAV header chunk of 4294967280 bytes\){DAMAGED}",
    ),
    "huge chunk before the samples": (
        wav(fmt(), (b"LIST", b"abcd", 0xF0000000), DATA),
        rf"cut off \(the WAV header ends before any audio\){DAMAGED}",
    ),
    "a header of zeros": (
        wav(fmt(), (b"", bytes(100_000))),
        rf"damaged \(a WAV header of over 1000 chunks\){DAMAGED}",
    ),
    "a picture": (
        wav(fmt(), DATA, kind=b"WEBP"),
        r"a RIFF file of 'WEBP', not of WAVE audio; convert it to WAV first$",
    ),
    "0 Hz": (
        wav(fmt(rate=0), DATA),
        r"a sample rate of 0 Hz, not 1 to 768000; its header is damaged, make it again$",
    ),
    "4 GHz": (wav(fmt(rate=4_000_000_000), DATA), r"a sample rate of 4000000000 Hz, not 1 to"),
    "no channels": (wav(fmt(channels=0), DATA), r"0 channels, not 1 to 64; its header is damaged"),
    "1,000 channels": (
        wav(fmt(channels=1000, block=2000), DATA),
        r"1000 channels, not 1 to 64; its header is damaged, make it again$",
    ),
    "0 bits": (
        wav(fmt(bits=0), DATA),
        r"a WAV header of 0 bits, 1 channels and 2 bytes per frame, which no format has; describe "
        r"the samples: sox -t raw -r 16000 -c 1 -e signed -b BITS IN OUT.wav$",
    ),
    "a codec nobody knows": (
        wav(fmt(tag=0x1234), DATA),
        r"codec 0x1234 in WAV, which FFmpeg does not decode \(.*\); copy it again, or convert it",
    ),
    "2 GB promised": (
        wav(fmt(), (*DATA, 0x7FFF0000)),
        rf"cut off \(100 of 1073709056 samples are there\){DAMAGED}",
    ),
    "an exabyte promised": (
        b"RF64\xff\xff\xff\xffWAVE"
        + wav((b"ds64", struct.pack("<QQQI", 2**60, 2**60, 2**59, 0)), fmt(), (*DATA, 2**32 - 1))[
            12:
        ],
        rf"cut off \(100 of 576460752303423488 samples are there\){DAMAGED}",
    ),
    "text": (b"Dear diary,\ntoday was quiet.\n", r"text, not audio in a supported format;"),
    "a page from the web": (
        b"<!DOCTYPE html><html>404</html>",
        r"text, not sound: a web page; download",
    ),
    "zeros": (bytes(5000), r"unknown data, not audio in a supported format;"),
    "random bytes": (
        np.random.default_rng(3).bytes(5000),
        r"unknown data, not audio in",
    ),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        r"text, not sound: only a Git LFS pointer; fetch the file itself: git lfs pull$",
    ),
    "a FLAC header only": (
        encoded("flac", sound())[:30],
        rf"damaged \(in its header: .*\){DAMAGED}",
    ),
    "an AIFF without samples": (
        encoded("aiff", sound(0)),
        r"no sound in it \(0 samples\); check the program that wrote it$",
    ),
    "an AU of 1,000 channels": (
        b".snd" + struct.pack(">5I", 24, 200, 3, RATE, 1000) + bytes(200),
        r"1000 channels, not 1 to 64|damaged \(in its header",
    ),
    "an AU of 0 Hz": (
        b".snd" + struct.pack(">5I", 24, 200, 3, 0, 1) + bytes(200),
        r"a sample rate of 0 Hz, not 1 to 768000|damaged \(in its header",
    ),
    "a CAF of nothing": (b"caff\0\1\0\0" + bytes(100), r"damaged \(in its header"),
    "an MP3 of one broken frame": (
        b"\xff\xfb\x90\x64" + bytes(50),
        rf"cut off \(54 bytes are there\){DAMAGED}",
    ),
}


def both_ways(tmp_path, data, pattern):
    """The file and its bytes are refused with the same line, which starts with their name."""
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    for attempt in (audio.read, audio.info):
        with pytest.raises(SepcliError, match=pattern) as caught:
            attempt(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(SepcliError, match=pattern) as caught:
        audio.decode(data, "000000.mix.wav")
    assert str(caught.value).startswith("000000.mix.wav: ")


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_gives_one_line_and_takes_no_memory(tmp_path, capfd, case):
    data, pattern = HOSTILE[case]
    tracemalloc.start()
    both_ways(tmp_path, data, pattern)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("extension", sorted(set(FORMATS) - {"ulaw.wav"}))
def test_a_file_cut_off_anywhere_is_never_just_shorter(tmp_path, capfd, extension, part):
    data = encoded(extension, sound(3 * RATE))
    data = data[: int(part * len(data))]
    (tmp_path / "x").write_bytes(data)
    pattern = rf"(cut off \(|damaged \(or cut off: |damaged \(in its header: ).*\){DAMAGED}"
    with pytest.raises(SepcliError, match=pattern):
        audio.read(tmp_path / "x")
    with pytest.raises(SepcliError, match=pattern):
        audio.decode(data, "x")
    with (
        pytest.raises(SepcliError, match=pattern),
        audio.open_blocks(io.BytesIO(data)) as reader,
    ):
        list(reader.blocks(1000))
    assert capfd.readouterr().err == ""


def decoded_from_bytes(data, _):
    return audio.decode(data, "x")


def read_from_a_file(data, folder):
    (folder / "x").write_bytes(data)
    return audio.read(folder / "x", start=500)


def read_from_a_stream(data, _):
    with audio.open_blocks(io.BytesIO(data), name="x") as reader:
        return reader.rest(), reader.sample_rate


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_random_damage_never_gives_more_than_a_line(tmp_path, extension):
    healthy = encoded(extension, sound(2000))
    rng, lines = np.random.default_rng(1), []
    for _ in range(40):
        data = bytearray(healthy)
        for position in rng.integers(0, min(len(data), 200), 3):
            data[position] = rng.integers(0, 256)
        for attempt in (decoded_from_bytes, read_from_a_file, read_from_a_stream):
            try:
                samples, rate = attempt(bytes(data), tmp_path)
            except SepcliError as error:
                lines.append(str(error))
            else:
                assert np.isfinite(samples).all()
                assert 1 <= rate <= 768_000
                assert 1 <= len(samples) <= 64
    assert lines
    assert all("x: " in line and "\n" not in line for line in lines)


MAGICS = [
    b"RIFF\xff\0\0\0WAVE", b"RIFF\xff\0\0\0WAVEfmt \x10\0\0\0", b"RF64\xff\xff\xff\xffWAVEds64",
    b"FORM\0\0\1\0AIFF", b"FORM\0\0\1\0AIFC", b".snd\0\0\0\x18", b"caff\0\1\0\0desc", b"caff",
    b"riff\x2e\x91\xcf\x11", b"fLaC\0\0\0\x22", b"fLaC", b"OggS\0\2", b"OggS", b"ID3\4\0",
    b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42\0\0\0\1free\xff\xff\xff\xff\xff\xff\xff\xf0",
    b"\xff\xfb\x90\x64", b"\xff\xf3\x18\xc4", b"\xff\xf1\x50\x80", b"\0\0\0\x18ftypM4A ",
    b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"wvpk", b"MAC ", b"TTA1", b"#!AMR\n", b"NIST_1A\n",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    parts=st.lists(
        st.one_of(st.sampled_from(MAGICS), st.binary(max_size=40), st.just(bytes(100))),
        min_size=1,
        max_size=8,
    )
)
def test_any_bytes_give_sound_or_one_line(parts):
    """Whatever a header promises, in files and in pipes, strictly or not; and it ends."""
    data, lines = b"".join(parts), []
    for source, strict in itertools.product((io.BytesIO, pipe), (True, False)):
        try:
            with audio.open_blocks(source(data), name="x", strict=strict) as reader:
                found = reader.rest()
        except SepcliError as error:
            lines.append(str(error))
        else:
            assert len(found) == reader.channels
    assert all(line.startswith("x: ") and "\n" not in line for line in lines)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("extension", ["wav", "aiff", "au", "caf"])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path, extension, value):
    samples = sound(channels=2)
    samples[1, 8000] = value
    samples[0, 8001:] = np.nan
    path = tmp_path / f"x.{extension}"
    with soundfile.SoundFile(
        path, "w", RATE, 2, "FLOAT", format=audio.FORMATS[extension][0]
    ) as file:
        file.write(samples.T)
    what = "NaN" if np.isnan(value) else "infinity"
    line = rf"x.{extension}: {what} at 0.500 s \(sample 8000\); repair or remove what made it$"
    with pytest.raises(SepcliError, match=line):
        audio.read(path)
    with pytest.raises(SepcliError, match=line):
        audio.read(path, start=7000, stop=9000)
    with pytest.raises(SepcliError, match=line), audio.open_blocks(path) as reader:
        list(reader.blocks(999))
    with pytest.raises(SepcliError, match=line):
        audio.decode(path.read_bytes(), f"x.{extension}")


def test_a_double_beyond_float32_counts_as_infinity(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.array([0.0, 1e300]), RATE, subtype="DOUBLE")
    with pytest.raises(SepcliError, match=r"infinity at 0.000 s \(sample 1\)"):
        audio.read(tmp_path / "x.wav")


def test_a_flac_that_promises_the_moon_takes_no_memory(tmp_path):
    audio.write(tmp_path / "x.flac", sound(), RATE)
    data = bytearray((tmp_path / "x.flac").read_bytes())
    field = int.from_bytes(data[18:26], "big") | (2**36 - 1)  # the largest length there is
    data[18:26] = field.to_bytes(8, "big")
    (tmp_path / "x.flac").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(SepcliError, match=r"cut off \(16000 of 68719476735 samples are there\)"):
        audio.read(tmp_path / "x.flac")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_mp3_that_ends_within_its_xing_header_gives_one_line():
    head = b"\xff\xf3\x18\xc4" + bytes(9) + b"Xing\0\0\0\3"  # a frame of 26 bytes
    for size in range(12, 40):
        with pytest.raises(SepcliError, match=r"^x: (cut off|damaged)"):
            audio.decode(head.ljust(40, b"\0")[:size], "x")


@pytest.mark.parametrize("attempt", [audio.read, audio.info, audio.open_blocks])
def test_a_path_that_leads_nowhere_gives_one_line(tmp_path, attempt):
    with pytest.raises(SepcliError) as caught:
        attempt(tmp_path / "gone.wav")
    assert str(caught.value) == f"{tmp_path}/gone.wav: no such file; check its spelling"
    with pytest.raises(SepcliError) as caught:
        attempt(tmp_path)
    assert str(caught.value) == f"{tmp_path}: a folder; name a file in it"
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(SepcliError, match=r"x/y\.wav: Not a directory; check that it can be read$"):
        attempt(tmp_path / "x" / "y.wav")


def test_a_file_that_may_not_be_read_gives_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # file modes do not stop every user
    with pytest.raises(SepcliError, match=r"^x\.wav: permission denied; change its permissions$"):
        audio.read("x.wav")


def test_files_are_closed_whether_or_not_they_are_sound(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound at all")
    (tmp_path / "cut.flac").write_bytes(encoded("flac", sound())[:5000])
    audio.write(tmp_path / "good.wav", sound(), RATE)
    before = len(os.listdir("/dev/fd"))
    for name in ("bad.wav", "cut.flac", "good.wav"):
        for _ in range(5):
            try:
                audio.read(tmp_path / name)
                audio.open_blocks(io.BytesIO((tmp_path / name).read_bytes())).close()
            except SepcliError:
                pass
    assert len(os.listdir("/dev/fd")) == before


def test_files_are_read_by_many_threads_at_once(tmp_path):
    audio.write(tmp_path / "x.flac", sound(), RATE)
    expected, _ = audio.read(tmp_path / "x.flac")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(audio.read(tmp_path / "x.flac")[0]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        np.testing.assert_array_equal(result, expected)
