"""Files that are cut off, in every format that libsndfile knows: none is read short in silence."""

import io
import struct

import numpy as np
import pytest
import soundfile

from sepcli import audio
from sepcli.errors import SepcliError
from tests.sounds import RATE, pipe, sound

NO_HEADER = {"RAW": "it has none", "SD2": "it is in another file, the resource fork"}
NO_LENGTH = {"PAF", "PVF", "IRCAM", "XI"}  # libsndfile writes a length of 0 into an XI
WORDS = ("cut off", "damaged")
LONGEST_BLOCK = 3000  # frames
NOT_OPENED = ("VOC", "PCM_U8")  # by libsndfile, when it is cut off
REASONS = {"HTK": ("unknown data",)}  # has no mark but a length that fits
LAYOUTS = ((48000, 2), (8000, 1), (16000, 1))  # some subtypes take only the latter
KINDS = [
    (container, subtype)
    for container in sorted(set(soundfile.available_formats()) - set(NO_HEADER))
    for subtype in soundfile.available_subtypes(container)
]


def written(container, subtype, frames=20_000):
    """The bytes of a file that libsndfile writes; None where it only reads such files."""
    for rate, channels in LAYOUTS:
        stream = io.BytesIO()
        try:
            soundfile.write(stream, sound(frames, channels).T, rate, subtype, format=container)
        except soundfile.LibsndfileError:
            continue
        return stream.getvalue()
    return None


def test_every_format_can_be_tried():
    """What libsndfile does not write, of what it knows."""
    missing = {kind for kind in KINDS if written(*kind, frames=2000) is None}
    assert {container for container, _ in missing} <= {"MP3", "AIFF", "WAV"}
    assert len(KINDS) - len(missing) > 100


@pytest.mark.parametrize(("container", "subtype"), KINDS)
def test_a_file_that_is_cut_off_is_not_read_short_in_silence(container, subtype):
    if (data := written(container, subtype)) is None:
        return
    whole, _ = audio.decode(data, "x")
    for left in (len(data) * 2 // 5, len(data) * 3 // 4 + 1, len(data) - 500, len(data) - 1):
        for read in (lambda cut: audio.decode(cut, "x")[0], through_a_pipe):
            found, said = outcome(read, data[:left])
            lost = whole.shape[1] - found.shape[1]
            if said:
                assert said.startswith("x: ")
                assert any(word in said for word in REASONS.get(container, WORDS)), said
            else:
                assert lost == 0 or is_untold(container, len(data) - left, lost)


def outcome(read, data):
    """(What is read, "") or (nothing, the error)."""
    try:
        return read(data), ""
    except SepcliError as error:
        return np.empty((1, 0)), str(error)


def is_untold(container, missing, lost):
    """Whether nothing in a file tells that it was cut off: whole frames, of a format that never
    says how many there are; or up to two frames of an MP3, as many real ones have.
    """
    if container == "MP3":
        return missing < 1000 and lost < 2 * 1152
    return container in NO_LENGTH


def through_a_pipe(data):
    with audio.open_blocks(pipe(data), name="x") as reader:
        return reader.rest()


@pytest.mark.parametrize(("container", "subtype"), KINDS)
def test_what_is_there_of_it_is_read_on_demand(container, subtype, caplog):
    frames = 200_000 if container == "OGG" else 20_000  # a page holds a second
    if (data := written(container, subtype, frames)) is None or container in REASONS:
        return
    if (container, subtype) == NOT_OPENED:
        return
    whole, _ = audio.decode(data, "x")
    with audio.open_blocks(io.BytesIO(data[: len(data) * 3 // 4 + 1]), strict=False) as reader:
        found = reader.rest()
    assert 0.5 * whole.shape[1] < found.shape[1] < whole.shape[1]
    sure = found.shape[1] - LONGEST_BLOCK  # libsndfile decodes half a block, too
    np.testing.assert_allclose(found[:, :sure], whole[:, :sure], rtol=0, atol=2e-3)
    assert any("read up to there" in line for line in caplog.messages) or container in NO_LENGTH


@pytest.mark.parametrize("container", ["PAF", "PVF", "IRCAM"])
def test_without_a_length_at_least_the_last_frame_has_to_be_whole(container):
    for subtype in soundfile.available_subtypes(container):
        for channels in (2, 3):
            stream = io.BytesIO()
            signal = sound(2000, channels).T
            soundfile.write(stream, signal, RATE, subtype, "BIG", format=container)
            with pytest.raises(SepcliError, match=r"^x: cut off \(\d+ of \d+ bytes of its last"):
                audio.decode(stream.getvalue()[:-1], "x")


def test_a_length_that_was_never_filled_in_is_none():
    data = bytearray(written("AVR", "PCM_16"))
    data[26:30] = bytes(4)
    assert audio.decode(bytes(data), "x")[0].shape == (2, 20_000)
    data = bytearray(written("XI", "DPCM_16"))
    data[298:302] = struct.pack("<I", 40_000)
    assert audio.decode(bytes(data), "x")[0].shape == (1, 20_000)
    with pytest.raises(SepcliError, match=r"^x: cut off \(40337 of 40338 bytes are there\)"):
        audio.decode(bytes(data[:-1]), "x")


def test_a_damaged_sample_dump_is_read_up_to_the_damage(capfd):
    """libsndfile prints what it does not expect on standard output, where sound may be."""
    data = bytearray(written("SDS", "PCM_16"))
    whole, _ = audio.decode(bytes(data), "x")
    place = 21 + 100 * 127
    data[place : place + 127] = bytes(127)
    with pytest.raises(SepcliError, match=r"^x: damaged \(packet 101 of 500 is none\)"):
        audio.decode(bytes(data), "x")
    with audio.open_blocks(io.BytesIO(data), name="x", strict=False) as reader:
        np.testing.assert_array_equal(reader.rest(), whole[:, : 100 * 40])
    assert not capfd.readouterr().out


def test_a_nist_header_whose_size_is_no_number_is_damaged():
    data = written("NIST", "PCM_16").replace(b"   1024\n", b"   10x4\n", 1)
    with pytest.raises(SepcliError, match=r"^x: damaged \(a NIST header without its size\)"):
        audio.decode(data, "x")
