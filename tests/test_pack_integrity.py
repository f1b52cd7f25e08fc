"""Packs in use by many, cut off, or with flipped bits."""

import json
import multiprocessing
import pickle
import zlib

import h5py
import numpy as np
import pytest
import soundfile

from sepcli.errors import SepcliError
from sepcli.samples.pack import Pack
from sepcli.samples.packwriting import Item, encode, itemsize, write_pack
from tests.packs import RATE, make, make_small
from tests.samples import tone


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("pack"))


def items(pack):
    return [(group, index) for group in pack.groups.values() for index in range(len(group.names))]


# --- many processes


def _sums(pack, numbers):
    """Sums of stretches, which tell whether the right ones were read."""
    every = items(pack)
    out = []
    for number in numbers:
        group, index = every[number % len(every)]
        start = number % 97
        out.append(float(pack.read(group, index, start=start, stop=start + 64).sum()))
    return out


def _answer(pack, numbers, connection):
    connection.send(_sums(pack, numbers))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_pack_in_use_goes_to_other_processes(pack_path, method):
    pack = Pack(pack_path)
    numbers = list(range(500))
    expected = _sums(pack, numbers)  # now it is open here
    context = multiprocessing.get_context(method)
    workers = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=_answer, args=(pack, numbers, theirs))
        process.start()
        workers.append((ours, process))
    assert _sums(pack, numbers) == expected  # while they read
    for ours, process in workers:
        assert ours.recv() == expected
        process.join(timeout=60)
        assert process.exitcode == 0


def test_a_pickled_pack_holds_neither_index_nor_sound(pack_path):
    pack = Pack(pack_path)
    _sums(pack, [0, 1])
    data = pickle.dumps(pack)
    assert len(data) < 500
    assert _sums(pickle.loads(data), range(20)) == _sums(pack, range(20))


def test_a_pack_that_was_replaced_is_noticed_by_workers(pack_path, tmp_path):
    path = tmp_path / "data.h5"
    path.write_bytes(pack_path.read_bytes())
    data = pickle.dumps(Pack(path))
    path.unlink()
    make(path, speech=pack_path.parent / "voices")
    with pytest.raises(SepcliError, match="replaced while it was in use"):
        _ = pickle.loads(data).groups


# --- what is refused


def test_a_pack_cut_off_anywhere_is_refused(pack_path, tmp_path):
    data = pack_path.read_bytes()
    path = tmp_path / "cut.h5"
    rng = np.random.default_rng(0)
    for size in [0, 1, 100, 511, 512, len(data) - 1, *rng.integers(len(data), size=20)]:
        path.write_bytes(data[:size])
        with pytest.raises(SepcliError, match=r"cut.h5: (cut off, |no pack|damaged in its first)"):
            Pack(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(SepcliError, match="longer than when it was written"):
        Pack(path)


def test_a_flipped_bit_anywhere_is_found(pack_path, tmp_path):
    data = pack_path.read_bytes()
    path = tmp_path / "flip.h5"
    rng = np.random.default_rng(1)
    for position in [0, 20, 511, *rng.integers(len(data), size=150)]:
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(SepcliError, match=r"flip.h5: .*damaged"):
            Pack(path).verify()


def test_a_flipped_bit_outside_the_sound_is_found_at_opening(pack_path, tmp_path):
    data = pack_path.read_bytes()
    with h5py.File(pack_path) as file:
        places = []
        for name in ("speech/voices", "noise/street", "rir/rooms"):
            pcm = file[name]["pcm"]
            start = pcm.id.get_offset()
            places.append(range(start, start + pcm.size * pcm.dtype.itemsize))
    path = tmp_path / "flip.h5"
    outside = [n for n in range(0, len(data), 61) if not any(n in place for place in places)]
    assert len(outside) > 100
    for position in outside:
        flipped = bytearray(data)
        flipped[position] ^= 4
        path.write_bytes(flipped)
        with pytest.raises(SepcliError, match=r"flip.h5: .*damaged"):
            Pack(path)


def test_whole_items_are_checked_where_they_are_read(pack_path, tmp_path):
    pack = Pack(pack_path)
    group = pack.groups["speech/voices"]
    data = bytearray(pack_path.read_bytes())
    data[group.start + 2 * int(group.offsets[2]) + 5] ^= 1
    (tmp_path / "flip.h5").write_bytes(data)
    damaged = Pack(tmp_path / "flip.h5")
    damaged.read(group, 1)
    with pytest.raises(SepcliError, match=r"flip.h5: speech/voices/bob/1.wav: damaged; copy it"):
        damaged.read(group, 2)


@pytest.fixture(scope="module")
def long_pack(tmp_path_factory):
    """The bytes of a pack of three recordings of noise, 9 blocks of 64 KiB in all, and its path."""
    root = tmp_path_factory.mktemp("long")
    (root / "in").mkdir()
    for k in range(3):
        noise = 0.1 * np.random.default_rng(k).standard_normal(6 * RATE)
        soundfile.write(root / f"in/{k}.wav", noise, RATE)
    make(root / "data.h5", noise=root / "in")
    return (root / "data.h5").read_bytes(), root / "data.h5"


def test_the_blocks_of_a_pack_are_those_of_zlib(long_pack):
    with h5py.File(long_pack[1]) as file:
        group = file["noise/in"]
        pcm = group["pcm"][()].tobytes()
        expected = [zlib.crc32(pcm[k : k + 65536]) for k in range(0, len(pcm), 65536)]
        assert group["blocks"][()].tolist() == expected
        assert len(expected) == 9


def test_no_stretch_is_read_from_a_block_with_a_flipped_bit(long_pack, tmp_path):
    data, path = long_pack
    pack = Pack(path)
    group = pack.groups["noise/in"]
    rng = np.random.default_rng(0)
    for _ in range(30):
        index, start = int(rng.integers(3)), int(rng.integers(5 * RATE))
        place = 2 * int(group.offsets[index]) + 2 * start + int(rng.integers(2 * RATE))
        flipped = bytearray(data)
        flipped[group.start + place] ^= 1 << rng.integers(8)
        (tmp_path / "flip.h5").write_bytes(flipped)
        damaged = Pack(tmp_path / "flip.h5")
        with pytest.raises(SepcliError, match=rf"flip.h5: noise/in/{index}\.wav: damaged; copy it"):
            damaged.read(group, index, start=start, stop=start + RATE)
        for other in range(3):
            for begin in range(0, 6 * RATE, RATE // 2):
                byte = 2 * (int(group.offsets[other]) + begin)
                blocks = range(byte // 65536, (byte + RATE - 1) // 65536 + 1)
                if place // 65536 not in blocks:
                    stretch = {"start": begin, "stop": begin + RATE // 2}
                    np.testing.assert_array_equal(
                        damaged.read(group, other, **stretch), pack.read(group, other, **stretch)
                    )


def test_a_block_is_checked_once(long_pack, monkeypatch):
    pack = Pack(long_pack[1])
    group = pack.groups["noise/in"]
    sums, crc32 = [], zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda data: sums.append(len(data)) or crc32(data))
    for _ in range(3):
        pack.read(group, 1, start=10, stop=5 * RATE)
    assert sums == [65536] * 4


def test_other_files_are_no_packs(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "text.h5").write_text("hello")
    for name, what in (
        ("other", "HDF5, but not a pack"),
        ("text", "no pack"),
        ("none", "No such file"),
    ):
        with pytest.raises(SepcliError, match=rf"{name}.h5: {what}"):
            Pack(tmp_path / f"{name}.h5")


@pytest.mark.parametrize(("version", "advice"), [(1, "make the pack again"), (3, "update the pro")])
def test_a_pack_of_another_version_says_so(pack_path, tmp_path, version, advice):
    data = pack_path.read_bytes().replace(b"sepcli pack 2 ", b"sepcli pack %d " % version, 1)
    (tmp_path / "other.h5").write_bytes(data)
    with pytest.raises(SepcliError, match=f"a pack of version {version}, but .* reads 2; {advice}"):
        Pack(tmp_path / "other.h5")


def test_bytes_that_do_not_match_their_checksum_are_not_sealed_into_a_pack(tmp_path):
    content = encode(tone(), RATE, "int16")
    item = Item("a", "", len(content) // itemsize("int16"), 160, 1, 0, zlib.crc32(content) ^ 1)
    about = {"sample_rate": RATE, "source": "s", "dtype": "int16", "clipped": 0}
    with pytest.raises(SepcliError, match="damaged on the disk"):
        write_pack(tmp_path / "x.h5", {"speech/s": (about, [item], [content])})


def test_the_manifest_is_json(pack_path):
    lines = [json.dumps(item) for item in Pack(pack_path).manifest()]
    assert json.loads(lines[-1]) == {
        "kind": "speech",
        "source": "voices",
        "name": "bob/2.wav",
        "speaker": "bob",
        "split": "validation",
        "sample_rate": RATE,
        "frames": 430,
        "channels": 1,
    }
