"""Sounds that follow each other in a file: all are read, or none; and what may follow besides."""

import io
import itertools
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli import audio
from sepcli.errors import SepcliError
from tests.sounds import FORMATS, RATE, encoded, fmt, pipe, read, sound, wav

TAGS = {
    "ID3v1": b"TAG" + bytes(range(32, 157)),
    "ID3v2": b"ID3\4\0\0\0\0\0\x0a" + b"\xff\xfb\x90\x64RIFF\1\2",
    "ID3v2 with a footer": b"ID3\4\0\x10\0\0\0\x0a" + b"\xff\xfb\x90\x64RIFF\1\2"
    + b"3DI" + bytes(7),
    "APE": b"APETAGEX" + struct.pack("<IIII8x", 2000, 20 + 32, 1, 0xA0000000) + b"fLaC" * 5
    + b"APETAGEX" + struct.pack("<IIII8x", 2000, 20 + 32, 1, 0x80000000),
    "padding": bytes(3000),
    "a few bytes of nothing": b"\x81\x02~",
}  # fmt: skip


def every_way(data, folder):
    """What a file, its bytes, and a pipe of them hold: three times (C, T)."""
    (folder / "x").write_bytes(data)
    blocks = []
    with audio.open_blocks(pipe(data)) as reader:
        blocks += reader.blocks(999)
    assert {block.shape[1] for block in blocks[:-1]} <= {999}
    with audio.open_blocks(folder / "x") as reader:
        whole = reader.rest()
        assert reader.frames in (None, whole.shape[1])
    return whole, audio.decode(data, "x")[0], np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("tag", [None, *TAGS])
@pytest.mark.parametrize("extension", FORMATS)
def test_sounds_that_follow_each_other_are_read_as_one(tmp_path, extension, tag):
    parts = [encoded(extension, sound(length, pitch=length)) for length in (9001, 9001, 5000)]
    expected = np.concatenate([read(part) for part in parts], axis=1)
    for found in every_way(TAGS.get(tag, b"").join(parts), tmp_path):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    extensions=st.lists(st.sampled_from(sorted(FORMATS)), min_size=2, max_size=4),
    start=st.integers(0, 5000),
    length=st.integers(1, 5000),
    channels=st.integers(1, 2),
)
def test_crops_go_across_sounds_of_any_kind(extensions, start, length, channels):
    """Also of different formats; but behind an MP3 or FLAC, only more of the same is looked for."""
    extensions.sort(key=lambda name: name in ("mp3", "flac"))
    kinds = {name for name in extensions if name in ("mp3", "flac")}
    extensions = [name for name in extensions if len(kinds) < 2 or name not in kinds]
    parts = [encoded(name, sound(2500, channels)) for name in extensions or ["wav"]]
    whole = np.concatenate([read(part) for part in parts], axis=1)
    found, rate = audio.decode(b"".join(parts), "x", start=start, stop=start + length)
    assert rate == RATE
    np.testing.assert_allclose(found, whole[:, start : start + length], rtol=0, atol=1e-5)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (RATE, 2)])
def test_what_cannot_go_on_the_first_sound_is_refused(tmp_path, extension, rate, channels):
    other = encoded(extension, sound(9000, channels, sample_rate=rate), rate)
    line = (
        "several recordings of different layouts in one file, first 1 channels at 16000 Hz, then "
        f"{channels} channels at {rate} Hz; save each to a file of its own$"
    )
    data = encoded(extension, sound(9000)) + other
    with pytest.raises(SepcliError, match=f"^x: {line}"):
        audio.decode(data, "x")
    with pytest.raises(SepcliError, match=f"^standard input: {line}"):
        audio.open_blocks(pipe(data)).rest()


@pytest.mark.parametrize("extension", sorted(set(FORMATS) - {"mp3", "flac", "ogg", "opus"}))
def test_a_header_that_tells_too_little_is_not_believed(tmp_path, extension):
    """More samples than the header declares, without a header: a recorder that was switched off."""
    healthy = encoded(extension, sound())
    noise = np.random.default_rng(0).bytes(20_000)
    pattern = "data follow the .* its sizes are wrong .*, write it again$"
    with pytest.raises(SepcliError, match=pattern):
        audio.decode(healthy + noise, "x")
    with pytest.raises(SepcliError, match=pattern):
        audio.open_blocks(pipe(healthy + noise)).rest()
    with audio.open_blocks(io.BytesIO(healthy + noise), strict=False) as reader:
        np.testing.assert_array_equal(reader.rest(), read(healthy))


def test_a_flac_with_no_metadata_but_its_layout_may_follow():
    data = encoded("flac", sound())
    place = 4
    while not data[place] & 0x80:  # the last block of metadata
        place += 4 + int.from_bytes(data[place + 1 : place + 4], "big")
    place += 4 + int.from_bytes(data[place + 1 : place + 4], "big")
    bare = data[:4] + b"\x80" + data[5 : 4 + 4 + 34] + data[place:]
    found, _ = audio.decode(data + bare + bare, "x")
    np.testing.assert_array_equal(found, np.tile(read(data), 3))


def test_an_aiff_may_have_a_tag_behind_its_end():
    data = encoded("aiff", sound())
    tag = b"ID3 \0\0\x20\1" + b"ID3\3\0\0\0\0\x3f\x77".ljust(0x2001, b"\1") + b"\0"
    for found in (audio.decode(data + tag, "x")[0], audio.decode(data + tag + data, "x")[0]):
        np.testing.assert_array_equal(found[:, :RATE], read(data))
    assert found.shape[1] == 2 * RATE


def test_a_flac_with_more_frames_than_its_header_tells_is_read_whole():
    data = bytearray(encoded("flac", sound(20_001)))
    layout = int.from_bytes(data[18:26], "big")
    for told in (1, 9000, 20_000):
        data[18:26] = (layout >> 36 << 36 | told).to_bytes(8, "big")
        for tail in (b"", TAGS["ID3v1"]):
            found, _ = audio.decode(bytes(data) + tail, "x")
            assert found.shape[1] == 20_001


@pytest.mark.parametrize("kind", ["NIST", "RIFX", "dns.", "VOC", "IRCAM", "PAF", "PVF"])
def test_rarer_formats_are_read_whole_as_well(kind):
    container = {"RIFX": "WAV", "dns.": "AU"}.get(kind, kind)
    endian = {"RIFX": "BIG", "dns.": "LITTLE"}.get(kind, "FILE")
    stream = io.BytesIO()
    soundfile.write(stream, sound().T, RATE, "PCM_16", endian, container)
    data = stream.getvalue()
    found, _ = audio.decode(data * 2, "x")
    np.testing.assert_array_equal(found, np.tile(read(data), 2))
    if kind in ("NIST", "RIFX", "dns."):
        with pytest.raises(SepcliError, match=r"^x: cut off \(20000 of \d+ bytes are there\)"):
            audio.decode(data[:20_000], "x")


@pytest.mark.parametrize("extension", ["mp3", "flac", "ogg", "opus"])
def test_behind_frames_and_pages_what_is_none_is_no_sound(extension):
    healthy = encoded(extension, sound())
    noise = np.random.default_rng(0).bytes(20_000)
    found, _ = audio.decode(healthy + noise, "x")
    np.testing.assert_allclose(found, read(healthy), rtol=0, atol=1e-6)


def test_a_wav_s_second_data_chunk_is_read_as_well(tmp_path):
    pcm = np.arange(-500, 500).astype("<i2")
    first, second = pcm[:301].tobytes(), pcm[301:].tobytes()
    data = wav(fmt(), (b"data", first), (b"LIST", b"odd"), (b"data", second), (b"id3 ", b""))
    for found in every_way(data, tmp_path):
        np.testing.assert_array_equal(found[0] * 32768, pcm)


@pytest.mark.parametrize("pad", [b"\0", b""])
def test_an_odd_chunk_may_lack_its_padding(tmp_path, pad):
    odd = wav(fmt(bits=8, block=1), (b"data", bytes([200] * 5), 5))[:-1]
    for end in (odd + pad + b"LIST\4\0\0\0abcd", odd + pad + odd + pad):
        for found in every_way(end, tmp_path):
            assert found.shape[1] in (5, 10)
            assert (found == (200 - 128) / 128).all()


def test_samples_whose_number_no_header_tells_end_where_the_next_header_begins(tmp_path):
    part = encoded("wav", sound())
    streamed = part[:4] + b"\xff" * 4 + part[8:40] + b"\xff" * 4 + part[44:]
    (tmp_path / "x.wav").write_bytes(streamed * 3)
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav")[0], np.tile(read(part), 3))
    for block in (7, 1000, 100_000):
        with (
            pytest.raises(SepcliError, match=r"^standard input: several WAV files in one stream"),
            audio.open_blocks(pipe(streamed * 2)) as reader,
        ):
            list(reader.blocks(block))


@pytest.mark.parametrize(
    ("extension", "place", "size"), [("au", 8, 4), ("caf", None, 8), ("w64", 16, 8), ("aiff", 4, 4)]
)
def test_so_do_those_of_other_formats(extension, place, size):
    part = bytearray(encoded(extension, sound()))
    place = part.index(b"data") + 4 if place is None else place
    part[place : place + size] = b"\xff" * size
    if extension == "w64":
        part[96:104] = b"\xff" * 8
    for count in (1, 2):
        found, _ = audio.decode(bytes(part) * count, "x")
        np.testing.assert_array_equal(found, np.tile(sound_of(extension), count))


def sound_of(extension):
    return read(encoded(extension, sound()))


def huge(path, head, frames, tail):
    """A sparse file: a header, `frames` of 4 bytes of which only the last are no zeros, a tail."""
    pcm = np.arange(1, 2001).astype("<i2").reshape(2, -1).T  # (1000, 2)
    pcm = pcm if head[:4] == b"RIFF" else pcm.astype(">i2")
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + 4 * frames - pcm.nbytes)
        file.write(pcm.tobytes() + tail)
    return np.arange(1, 2001).reshape(2, -1) / 32768


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("tail", [b"", b"LIST\4\0\0\0abcd"])
def test_a_wav_whose_sizes_wrapped_around_is_read_whole(tmp_path, times, tail):
    frames = times * 2**30 + 1_000_000
    size = 4 * frames % 2**32
    riff = struct.pack("<4sI4s", b"RIFF", (size + 36) % 2**32, b"WAVE")
    head = (
        riff + b"fmt \x10\0\0\0" + fmt(channels=2, block=4)[1] + struct.pack("<4sI", b"data", size)
    )
    expected = huge(tmp_path / "x.wav", head, frames, tail)
    assert audio.info(tmp_path / "x.wav").frames == frames
    found, _ = audio.read(tmp_path / "x.wav", start=frames - 1000)
    np.testing.assert_array_equal(found, expected)


def test_an_au_whose_size_wrapped_around_is_read_whole(tmp_path):
    frames = 2**30 + 1_000_000
    head = b".snd" + struct.pack(">5I", 24, 4 * frames % 2**32, 3, RATE, 2)
    expected = huge(tmp_path / "x.au", head, frames, b"")
    assert audio.info(tmp_path / "x.au").frames == frames
    found, _ = audio.read(tmp_path / "x.au", start=frames - 1000)
    np.testing.assert_array_equal(found, expected)


def aiff_head(frames, told):
    """The head of an AIFF of two channels of 16 bits that tells of `told` frames."""
    comm = b"COMM\0\0\0\x12" + struct.pack(">hLh", 2, told, 16) + b"\x40\x0c\xfa" + bytes(7)
    size = 4 * frames + 8
    ssnd = b"SSND" + struct.pack(">I8x", size % 2**32)
    return b"FORM" + struct.pack(">I", (size + 38) % 2**32) + b"AIFF" + comm + ssnd


@pytest.mark.parametrize("times", [1, 2])
def test_an_aiff_whose_sizes_wrapped_around_is_read_whole(tmp_path, times):
    frames = times * 2**30 + 1_000_000
    expected = huge(tmp_path / "x.aiff", aiff_head(frames, frames), frames, b"")
    assert audio.info(tmp_path / "x.aiff").frames == frames
    found, _ = audio.read(tmp_path / "x.aiff", start=frames - 1000)
    np.testing.assert_array_equal(found, expected)


def test_a_rifx_whose_sizes_wrapped_around_is_read_whole(tmp_path):
    frames = 2**30 + 1_000_000
    about = struct.pack(">HHIIHH", 1, 2, RATE, 4 * RATE, 4, 16)
    sizes = [struct.pack(">I", (4 * frames + more) % 2**32) for more in (36, 0)]
    head = b"RIFX" + sizes[0] + b"WAVEfmt " + struct.pack(">I", 16) + about + b"data" + sizes[1]
    expected = huge(tmp_path / "x.wav", head, frames, b"")
    assert audio.info(tmp_path / "x.wav").frames == frames
    found, _ = audio.read(tmp_path / "x.wav", start=frames - 1000)
    np.testing.assert_array_equal(found, expected)


def test_an_aiff_that_does_not_fit_what_is_there_is_refused(tmp_path):
    frames = 2**30 + 1_000_000
    huge(tmp_path / "x.aiff", aiff_head(frames, frames - 1), frames, b"")
    with pytest.raises(SepcliError, match=r"x\.aiff: data follow the \d+ bytes that its header"):
        audio.info(tmp_path / "x.aiff")


def test_an_rf64_with_a_wrong_size_is_refused_or_read_whole(tmp_path):
    healthy = encoded("rf64", sound())
    place = healthy.index(b"ds64") + 16  # of the size of the samples
    for size, line in ((40_000, r"cut off \(16000 of 20000 samples"), (2000, "data follow the")):
        data = healthy[:place] + struct.pack("<Q", size) + healthy[place + 8 :]
        with pytest.raises(SepcliError, match=f"^x: {line}"):
            audio.decode(data, "x")
    unknown = healthy[:place] + bytes(8) + healthy[place + 8 :]
    np.testing.assert_array_equal(audio.decode(unknown, "x")[0], read(healthy))


def test_a_file_that_changes_is_looked_at_again(tmp_path, monkeypatch):
    """What was found in a file is kept until it changes, for crops."""
    monkeypatch.setattr("sepcli.audio.opening._SETTLED_S", -1.0)  # however young it is
    one, path = encoded("flac", sound()), tmp_path / "x.flac"
    for count in itertools.chain((1, 1), (3, 3), (2,)):
        path.write_bytes(one * count)
        assert audio.info(path).frames == count * RATE


@pytest.mark.parametrize("extension", sorted(set(FORMATS) - {"ulaw.wav"}))
def test_what_is_cut_off_is_read_as_far_as_it_goes_when_asked(caplog, extension):
    healthy = encoded(extension, sound(5 * RATE))
    data = healthy[: len(healthy) * 3 // 4]
    with pytest.raises(SepcliError, match=r"cut off|damaged"):
        audio.decode(data, "x")
    for source in (io.BytesIO(data), pipe(data)):
        with audio.open_blocks(source, name="x", strict=False) as reader:
            found = reader.rest()
        assert 2 * RATE < found.shape[1] < 4 * RATE
        np.testing.assert_allclose(found, read(healthy)[:, : found.shape[1]], rtol=0, atol=1e-3)
    assert any("x: " in line and "read up to there" in line for line in caplog.messages)
