"""MP3 and MP2: every frame is read, whatever lies around them and whatever the first one tells."""

import struct

import numpy as np
import pytest

from sepcli import audio
from sepcli.errors import SepcliError
from tests.sounds import encoded, sound

LAYOUTS = [(8000, 1), (16000, 1), (16000, 2), (44100, 1), (44100, 2)]


def mp3(sample_rate, channels, mode="VARIABLE", seconds=2):
    """An MP3 that is loud at first and then quiet, so that its bit rate does vary."""
    signal = sound(seconds * sample_rate, channels, sample_rate=sample_rate)
    signal[:, signal.shape[1] // 2 :] *= 1e-3
    return encoded("mp3", signal, sample_rate, bitrate_mode=mode, compression_level=0.5)


def without_length(data):
    """The frames behind the first one, which holds nothing but their number."""
    return data[data.index(data[:2], 4) :]


def samples_of(data, sample_rate):
    """How many the frames hold that are counted in the first one; a decoder is 529 late."""
    place = max(data.find(b"Xing"), data.find(b"Info"))
    frames = struct.unpack_from(">I", data, place + 8)[0]
    return frames * (1152 if sample_rate >= 32000 else 576) - 529


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize(("sample_rate", "channels"), LAYOUTS)
def test_frames_are_counted_where_none_tells_their_number(tmp_path, sample_rate, channels, mode):
    data = mp3(sample_rate, channels, mode)
    whole, _ = audio.decode(data, "x")
    length = samples_of(data, sample_rate)
    found, rate = audio.decode(without_length(data), "x")
    assert (found.shape, rate) == ((channels, length), sample_rate)
    late = 576  # samples that LAME puts before the first one, and says so in what is missing here
    np.testing.assert_allclose(
        found[:, late + 2000 : late + whole.shape[1]], whole[:, 2000:], rtol=0, atol=2e-3
    )
    (tmp_path / "x.mp3").write_bytes(without_length(data))
    assert audio.info(tmp_path / "x.mp3").frames == length
    crop, _ = audio.read(tmp_path / "x.mp3", start=length - 5000, stop=length - 1000)
    np.testing.assert_allclose(crop, found[:, -5000:-1000], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_frames_of_others_that_follow_are_counted_as_well(mode):
    data = mp3(44100, 1, mode)
    bare, length = without_length(data), samples_of(data, 44100) + 529
    assert audio.decode(bare + bare, "x")[0].shape[1] == 2 * length - 529
    assert audio.decode(data + bare, "x")[0].shape[1] == 2 * length - 529


@pytest.mark.parametrize("factor", [0.3, 3])
def test_a_wrong_count_of_frames_is_not_believed(factor):
    data = bytearray(mp3(44100, 1, "CONSTANT"))
    place = data.find(b"Info") + 8
    (frames,) = struct.unpack_from(">I", data, place)
    struct.pack_into(">I", data, place, int(factor * frames))
    if factor < 1:
        assert audio.decode(bytes(data), "x")[0].shape[1] == frames * 1152 - 529
    else:
        with pytest.raises(SepcliError, match=rf"^x: cut off \({frames} of {3 * frames} frames"):
            audio.decode(bytes(data), "x")


FRONTS = {
    "junk": np.random.default_rng(0).bytes(5000),
    "text": b"ICY 200 OK\r\nicy-name: FFF\r\n\r\n",
    "padding": bytes(1000),
    "ID3v2": b"ID3\3\0\0\0\0\x02\x01" + bytes(257),
    "ID3v2 with a footer": b"ID3\4\0\x10\0\0\0\x0a" + bytes(10) + b"3DI\4\0\x10\0\0\0\x0a",
    "two ID3v2": 2 * (b"ID3\4\0\0\0\0\0\x0a" + b"\xff" * 10),
    "the end of another frame": b"\x55" * 200,
}


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("has_length", [True, False])
def test_what_comes_before_the_first_frame_is_passed_over(tmp_path, front, has_length):
    data = mp3(16000, 1) if has_length else without_length(mp3(16000, 1))
    expected, _ = audio.decode(data, "x")
    (tmp_path / "x.mp3").write_bytes(FRONTS[front] + data)
    found, _ = audio.read(tmp_path / "x.mp3")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_an_id3_tag_may_hold_a_picture_that_looks_like_anything():
    data = mp3(16000, 1)
    tag = b"ID3\4\0\0\0\0\x02\0" + b"RIFFfLaC\xff\xfb\x90\x64".ljust(256, b"\xff")
    found, _ = audio.decode(tag + data, "x")
    np.testing.assert_allclose(found, audio.decode(data, "x")[0], rtol=0, atol=1e-6)
    with pytest.raises(SepcliError, match=r"cut off \(\d+ of \d+ bytes are there\)"):
        audio.decode((tag + data)[:1500], "x")


@pytest.mark.parametrize("other", [(48000, 1), (44100, 2)])
def test_a_layout_that_changes_is_refused(other):
    first, second = mp3(44100, 1), mp3(*other)
    for data in (first + second, without_length(first) + without_length(second)):
        with pytest.raises(
            SepcliError,
            match="several recordings of different layouts in one file, first 1",
        ):
            audio.decode(data, "x")


def test_damage_in_the_middle_is_refused():
    data = mp3(44100, 1, "CONSTANT", seconds=4)
    for broken in (data, without_length(data)):
        half = len(broken) // 2
        with pytest.raises(SepcliError, match=r"^x: (damaged|cut off)"):
            audio.decode(broken[:half] + bytes([0x55] * 20_000) + broken[half + 20_000 :], "x")


def test_an_mp3_inside_a_wav_is_read_to_its_last_frame():
    data = mp3(44100, 1)
    body = b"fmt \x10\0\0\0" + struct.pack("<HHIIHH", 0x55, 1, 44100, 8000, 1, 0)
    riff = body + struct.pack("<4sI", b"data", len(data)) + data + b"\0" * (len(data) % 2)
    wav = b"RIFF" + struct.pack("<I", 4 + len(riff)) + b"WAVE" + riff
    np.testing.assert_array_equal(audio.decode(wav, "x")[0], audio.decode(data, "x")[0])


def test_a_random_file_is_no_mp3():
    for seed in range(20):
        noise = np.random.default_rng(seed).bytes(20_000)
        with pytest.raises(SepcliError, match=r"unknown data, not audio|cut off|damaged"):
            audio.decode(noise, "x")
