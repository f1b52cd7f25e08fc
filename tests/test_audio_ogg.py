"""Ogg files as recorders and live streams leave them: complete ones are read, others refused."""

import struct

import numpy as np
import pytest

from sepcli import audio
from sepcli.errors import Notes, SepcliError
from tests.sounds import encoded, joined, pages, read, sound

CODECS = ["ogg", "opus"]  # Vorbis and Opus
FIRST, LAST = 2, 4  # flags
CUT = r"^x: cut off \(its last Ogg page is missing\); copy or record it again$"


def ogg(extension, seconds=5):
    return encoded(extension, sound(seconds * 16000))


def without_end(data):
    """The same without the mark on the last page."""
    changed = pages(data)
    assert changed[-1][5] & LAST
    changed[-1][5] &= ~LAST
    return joined(changed)


def moved(data, samples):
    """The same with positions that begin at `samples` of 48 kHz or 16 kHz."""
    changed = pages(data)
    for page in changed:
        (granule,) = struct.unpack_from("<q", page, 6)
        if granule > 0:
            struct.pack_into("<q", page, 6, granule + samples)
    return joined(changed)


@pytest.fixture
def notes(caplog, monkeypatch):
    """The notes of a process that has told none before."""
    monkeypatch.setattr("sepcli.containers.ogg._UNMARKED", Notes("files", most=2))
    return caplog


def test_a_file_without_that_mark_may_be_cut_off_and_a_note_says_so(notes):
    data = without_end(ogg("ogg"))
    for name in "aabcd":
        audio.decode(data, name)
    line = "{}: its last Ogg page is not marked as the last; its end may be missing"
    more = "There are more files; they are not named"
    assert notes.messages == [line.format("a"), line.format("b"), more]
    shorter = joined(pages(data)[:-1])  # cut off between two pages
    assert audio.decode(shorter, "x")[0].shape[1] < audio.decode(data, "x")[0].shape[1]


@pytest.mark.parametrize("extension", CODECS)
def test_a_complete_file_needs_no_mark_on_its_last_page(tmp_path, extension):
    data = ogg(extension)
    (tmp_path / "x.ogg").write_bytes(without_end(data))
    found, _ = audio.read(tmp_path / "x.ogg")
    np.testing.assert_allclose(found, read(data), rtol=0, atol=1e-6)
    found, _ = audio.decode(without_end(data) + data, "x")
    np.testing.assert_allclose(found, np.tile(read(data), 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("extension", CODECS)
def test_a_file_that_ends_within_a_page_or_a_packet_is_cut_off(extension):
    data = ogg(extension)
    for size in (len(data) - 1, len(data) * 2 // 3, len(data) - len(pages(data)[-1]) + 3):
        with pytest.raises(SepcliError, match=CUT):
            audio.decode(data[:size], "x")
    split = pages(data)
    last = split[-1][: 27 + split[-1][26]]
    last[26], last[5] = 1, 0  # one lacing value of 255: its packet goes on
    with pytest.raises(SepcliError, match=CUT):
        audio.decode(joined([*split[:-1], last[:27] + b"\xff" + bytes(255)]), "x")


@pytest.mark.parametrize("extension", CODECS)
def test_a_page_that_is_missing_in_the_middle_is_damage(extension):
    split = pages(ogg(extension))
    ended = pages(ogg(extension))
    ended[4][5] |= LAST
    for damaged in (split[:4] + split[5:], ended):
        with pytest.raises(SepcliError, match=r"^x: damaged \(Ogg pages are missing within\)"):
            audio.decode(joined(damaged), "x")


@pytest.mark.parametrize("extension", CODECS)
def test_what_lies_between_pages_is_passed_over(extension):
    split, data = pages(ogg(extension)), ogg(extension)
    junk = b"Og\0 gS" * 50
    found, _ = audio.decode(joined(split[:4]) + junk + joined(split[4:]), "x")
    np.testing.assert_allclose(found, read(data), rtol=0, atol=1e-6)


@pytest.mark.parametrize("extension", CODECS)
def test_what_a_server_says_first_is_passed_over(extension):
    data = ogg(extension)
    front = b"HTTP/1.0 200 OK\r\nContent-Type: application/ogg\r\nOggS\0\2: no page\r\n\r\n"
    found, _ = audio.decode(front + data, "x")
    np.testing.assert_allclose(found, read(data), rtol=0, atol=1e-6)


@pytest.mark.parametrize("extension", CODECS)
def test_a_live_stream_begins_anywhere(tmp_path, extension):
    """Header pages, then those of the moment when the recorder joined."""
    split = pages(ogg(extension))
    live = moved(joined(split[:2] + split[4:]), 16000 * 3600)
    (tmp_path / "x.ogg").write_bytes(live)
    whole, _ = audio.read(tmp_path / "x.ogg")
    assert 2 * 16000 < whole.shape[1] < 4.5 * 16000
    assert audio.info(tmp_path / "x.ogg").frames == whole.shape[1]
    crop, _ = audio.read(tmp_path / "x.ogg", start=20_000, stop=21_000)
    np.testing.assert_allclose(crop, whole[:, 20_000:21_000], rtol=0, atol=1e-6)


def test_positions_that_begin_late_lose_nothing():
    data = ogg("ogg")
    found, _ = audio.decode(moved(data, 10**8), "x")
    np.testing.assert_allclose(found, read(data), rtol=0, atol=1e-6)


def test_vorbis_may_go_on_as_opus():
    both = [ogg("ogg"), ogg("opus")]
    found, _ = audio.decode(b"".join(both), "x")
    np.testing.assert_allclose(found, np.concatenate(list(map(read, both)), 1), rtol=0, atol=1e-6)
