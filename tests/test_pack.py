"""Packs: what they keep, how they are read from many processes, and what they refuse."""

import h5py
import numpy as np
import pytest
import soundfile

from sepcli.cluster.spread import Spread
from sepcli.errors import SepcliError
from sepcli.recordings.packing import find_sources, speaker_of, validation
from sepcli.samples.pack import Pack, read_pack
from tests.packs import RATE, make, make_small, write_tones


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("pack"))


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
