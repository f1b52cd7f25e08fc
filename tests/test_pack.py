"""Packs: what they keep, how they are read from many processes, and what they refuse."""

import json
import multiprocessing
import pickle
import zlib

import h5py
import numpy as np
import pytest
import soundfile

from sepcli.cluster.spread import ALONE, Spread
from sepcli.errors import SepcliError
from sepcli.recordings.packing import Packing, PackSpec, find_sources, speaker_of, validation
from sepcli.samples.pack import Pack, read_pack
from sepcli.samples.packwriting import Item, encode, itemsize, write_pack
from tests.samples import tone

RATE = 16000


def write_tones(folder, names, *, channels=1, frames=400, subtype="PCM_16"):
    """Files that differ from each other, 10 frames longer from one to the next."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        signal = tone(index, frames=frames + 10 * index, channels=channels)
        soundfile.write(path, signal.T, RATE, subtype=subtype)
    return folder


def make(output, *, samples=(), resume=False, overwrite=None, spread=ALONE, **settings):
    """Pack folders given as speech=…, noise=…, rir=…; returns the records."""
    kinds = {k: settings.pop(k) for k in ("speech", "noise", "rir") if k in settings}
    sources = [s for kind, folder in kinds.items() for s in find_sources(kind, [str(folder)])]
    packing = Packing(sources, samples, PackSpec(**settings))
    return list(packing.run(output, resume=resume, overwrite=overwrite, spread=spread))


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory):
    """A pack of two speakers with two files each, stereo noise, and a room."""
    root = tmp_path_factory.mktemp("pack")
    speech = write_tones(root / "voices", ["ann/1.wav", "ann/2.wav", "bob/1.wav", "bob/2.wav"])
    noise = write_tones(root / "street", ["a.wav", "b.wav"], channels=2)
    rir = write_tones(root / "rooms", ["r.wav"], channels=2, subtype="FLOAT")
    make(root / "data.h5", speech=speech, noise=noise, rir=rir)
    return root / "data.h5"


def items(pack):
    return [(group, index) for group in pack.groups.values() for index in range(len(group.names))]


# --- what is kept


def test_plain_hdf5_tools_find_the_sound_by_offsets_and_sizes(pack_path):
    with h5py.File(pack_path) as file:
        assert file.attrs["format"] == "sepcli pack"
        group = file["speech/voices"]
        assert (group.attrs["sample_rate"], group.attrs["dtype"]) == (RATE, "int16")
        assert group["pcm"].dtype == np.dtype("<i2")
        assert group["pcm"].chunks is None  # contiguous
        assert group["names"][()].tolist() == [
            b"ann/1.wav",
            b"ann/2.wav",
            b"bob/1.wav",
            b"bob/2.wav",
        ]
        assert group["speakers"][()].tolist() == [b"ann", b"ann", b"bob", b"bob"]
        for name, offset, size in zip(
            group["names"], group["offsets"], group["sizes"], strict=True
        ):
            stored = group["pcm"][offset : offset + size]
            expected, _ = soundfile.read(pack_path.parent / "voices" / name.decode(), dtype="int16")
            np.testing.assert_array_equal(stored, expected)


def test_16_bit_recordings_come_back_bit_for_bit_whole_and_in_stretches(pack_path):
    pack = Pack(pack_path)
    group = pack.groups["speech/voices"]
    for index, name in enumerate(group.names):
        path = pack_path.parent / "voices" / name.decode()
        expected, _ = soundfile.read(path, dtype="float32")
        np.testing.assert_array_equal(pack.read(group, index), expected[None])
        for start, stop in ((0, 1), (17, 230), (399, 10_000), (5000, 6000)):
            stretch = pack.read(group, index, start=start, stop=stop)
            np.testing.assert_array_equal(stretch, expected[None, start:stop])


def test_noise_is_averaged_and_rooms_keep_channels_and_floats(pack_path):
    pack = Pack(pack_path)
    noise, rir = pack.groups["noise/street"], pack.groups["rir/rooms"]
    expected, _ = soundfile.read(pack_path.parent / "street/b.wav")
    np.testing.assert_allclose(pack.read(noise, 1)[0], expected.mean(axis=1), atol=0.51 / 32768)
    expected, _ = soundfile.read(pack_path.parent / "rooms/r.wav", dtype="float32")
    assert rir.dtype == "float32"
    np.testing.assert_array_equal(pack.read(rir, 0), expected.T)
    np.testing.assert_array_equal(pack.read(rir, 0, start=3, stop=9), expected.T[:, 3:9])


@pytest.mark.parametrize("dtype", ["int16", "float32", "flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_dtype_reads_what_was_packed(tmp_path, dtype, channels):
    folder = write_tones(tmp_path / "in", ["a.wav", "b.wav"], channels=channels)
    make(tmp_path / "x.h5", noise=folder, dtype=dtype, keep_channels=True)
    pack = Pack(tmp_path / "x.h5")
    group = pack.groups["noise/in"]
    assert (group.dtype, group.channels.tolist()) == (dtype, [channels, channels])
    for index, name in enumerate(("a.wav", "b.wav")):
        expected = soundfile.read(folder / name, dtype="float32", always_2d=True)[0].T
        np.testing.assert_array_equal(pack.read(group, index), expected)
        np.testing.assert_array_equal(pack.read(group, index, start=7, stop=90), expected[:, 7:90])


def test_what_exceeds_full_scale_is_clamped_and_counted(tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", np.array([0.5, 1.5, -2, 1]), RATE, subtype="FLOAT")
    make(tmp_path / "x.h5", speech=tmp_path / "in")
    pack = Pack(tmp_path / "x.h5")
    group = pack.groups["speech/in"]
    assert group.clipped == 2
    np.testing.assert_array_equal(pack.read(group, 0)[0] * 32768, [16384, 32767, -32768, 32767])


def test_recordings_are_resampled_to_the_rate_of_the_first_or_the_one_asked_for(tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", 0.1 * np.ones(800), 8000)
    soundfile.write(tmp_path / "in/b.wav", 0.1 * np.ones(1600), 16000)
    make(tmp_path / "first.h5", speech=tmp_path / "in")
    make(tmp_path / "asked.h5", speech=tmp_path / "in", sample_rate=4000)
    for name, rate in (("first", 8000), ("asked", 4000)):
        group = Pack(tmp_path / f"{name}.h5").groups["speech/in"]
        assert (group.sample_rate, group.lengths.tolist()) == (rate, [rate // 10, rate // 10])


def test_the_same_inputs_give_the_same_bytes_with_any_number_of_jobs(tmp_path, pack_path):
    root = pack_path.parent
    sources = {"speech": root / "voices", "noise": root / "street", "rir": root / "rooms"}
    make(tmp_path / "again.h5", **sources)
    make(tmp_path / "jobs.h5", spread=Spread(jobs=2), **sources)
    assert (tmp_path / "again.h5").read_bytes() == pack_path.read_bytes()
    assert (tmp_path / "jobs.h5").read_bytes() == pack_path.read_bytes()


def test_damaged_recordings_are_left_out_and_noted(tmp_path):
    folder = write_tones(tmp_path / "in", ["a.wav", "c.wav"])
    (folder / "b.wav").write_bytes((folder / "a.wav").read_bytes()[:200])
    records = make(tmp_path / "x.h5", speech=folder)
    assert [r["name"] for r in records] == ["a.wav", "b.wav", "c.wav"]
    pack = Pack(tmp_path / "x.h5")
    assert [record["name"] for record in pack.skipped] == ["b.wav"]
    assert "b.wav: cut off" in pack.skipped[0]["skipped"]
    assert pack.groups["speech/in"].names.tolist() == [b"a.wav", b"c.wav"]


def test_nothing_readable_is_an_error_and_no_pack(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.wav").write_bytes(b"RIFF")
    with pytest.raises(SepcliError, match="nothing to pack could be read"):
        make(tmp_path / "x.h5", speech=tmp_path / "in")
    assert not (tmp_path / "x.h5").exists()


def test_sources_of_one_name_stay_apart(tmp_path):
    write_tones(tmp_path / "a/wav", ["1.wav"])
    write_tones(tmp_path / "b/wav", ["1.wav"])
    sources = find_sources("speech", [str(tmp_path / "a/wav"), str(tmp_path / "b/wav")])
    assert [source.name for source in sources] == ["wav", "wav-2"]


def test_lists_and_globs_are_named_below_what_they_have_in_common(tmp_path):
    write_tones(tmp_path / "in", ["ann/1.wav", "bob/2.wav"])
    (tmp_path / "all.txt").write_text("in/ann/1.wav\nin/bob/2.wav\n")
    for given in (tmp_path / "all.txt", tmp_path / "in/*/*.wav"):
        [source] = find_sources("speech", [str(given)])
        assert source.names == ["ann/1.wav", "bob/2.wav"]


# --- speakers and validation


def test_speakers_come_from_the_first_folder_or_a_regex():
    assert speaker_of("p225/x_1.wav", None) == "p225"
    assert speaker_of("x_1.wav", None) == ""
    assert speaker_of("clips/p225_1.wav", r"(p\d+)_") == "p225"
    assert speaker_of("clips/p225_1.wav", r"p\d+") == "p225"
    assert speaker_of("clips/other.wav", r"p\d+") == ""


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [(100, 0.05, 5), (40, 0.05, 2), (3, 0.05, 1), (2, 0.9, 1), (1, 0.5, 0), (10, 0, 0)],
)
def test_the_last_of_the_sorted_ids_are_for_validation(count, fraction, expected):
    ids = {f"{n:03d}" for n in range(count)}
    assert validation(ids, fraction) == set(sorted(ids)[count - expected :])


def test_no_speaker_is_on_both_sides_and_every_source_has_its_own_split(tmp_path, pack_path):
    pack = Pack(pack_path)
    speech, noise = pack.groups["speech/voices"], pack.groups["noise/street"]
    assert speech.validation.tolist() == [0, 0, 1, 1]  # all of bob
    assert noise.validation.tolist() == [0, 1]
    assert [item["split"] for item in pack.manifest()].count("validation") == 3


# --- samples


def test_samples_come_back_with_their_json_and_other_members(tmp_path):
    from sepcli.samples.streams import read_samples
    from tests.samples import make_sample, to_tar

    originals = [make_sample(index, snr_db=float(index)) for index in range(3)]
    originals[1].members["note.txt"] = b"kept \x00 as it is"
    (tmp_path / "in.tar").write_bytes(to_tar(originals))
    make(tmp_path / "x.h5", samples=[tmp_path / "in.tar"], dtype="float32")
    found = list(read_samples(tmp_path / "x.h5"))
    assert [sample.key for sample in found] == ["000000", "000001", "000002"]
    for sample, original in zip(found, originals, strict=True):
        assert sample.meta["snr_db"] == original.meta["snr_db"]
        assert sample.ordered() == original.ordered()
        for name in ("mix", "ref.speech"):
            np.testing.assert_array_equal(sample.audio(name), original.audio(name))
    assert found[1].members["note.txt"] == b"kept \x00 as it is"


def test_recordings_read_as_samples_are_a_mix_each(pack_path):
    found = list(read_pack(pack_path))
    assert [sample.key for sample in found][:2] == ["speech/voices/ann/1", "speech/voices/ann/2"]
    expected, _ = soundfile.read(pack_path.parent / "voices/ann/1.wav", dtype="float32")
    np.testing.assert_array_equal(found[0].audio("mix"), expected[None])


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
