"""Packs and tars as sources of mixtures: the same as the files they were made of."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sepcli.data.datasets import Items
from sepcli.errors import SepcliError
from sepcli.mixing.mixtures import Mixer, MixtureSpec
from sepcli.recordings.packing import Packing, PackSpec, find_sources
from sepcli.recordings.pools import Pool
from sepcli.recordings.stored import in_archive
from sepcli.samples.shards import TarForm
from tests.samples import make_sample, to_tar
from tests.test_pack import make, write_tones


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders, a pack of all that is in them, and one with a validation split."""
    root = tmp_path_factory.mktemp("sources")
    voices = [f"{speaker}/{n}.wav" for speaker in ("ann", "bob", "eve") for n in range(3)]
    folders = {
        "speech": write_tones(root / "voices", voices, frames=4000),
        "noise": write_tones(root / "street", [f"{n}.wav" for n in range(5)], frames=6000),
        "rir": write_tones(root / "rooms", ["a.wav", "b.wav"], frames=300, subtype="FLOAT"),
    }
    make(root / "all.h5", val_fraction=0, **folders)
    make(root / "split.h5", val_fraction=0.3, **folders)
    return root


def mixer(root, **sources):
    names = {kind: str(root / source) for kind, source in sources.items()}
    return Mixer(MixtureSpec(**names, duration_s=0.5, min_rms_db=-60, rir_prob=1, target="dry"))


def test_mixtures_from_a_pack_equal_those_from_its_files(root):
    files = mixer(root, speech="voices", noise="street", rir="rooms")
    packed = mixer(root, speech="all.h5", noise="all.h5", rir="all.h5")
    for index in range(10):
        expected, found = files.draw(3, index), packed.draw(3, index)
        np.testing.assert_array_equal(found.mix, expected.mix)
        np.testing.assert_array_equal(found.refs["speech"], expected.refs["speech"])
        [*_, piece] = found.record["sources"]["noise"]["files"]
        assert piece["path"].startswith(f"{root / 'all.h5'}: noise/street/")


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_workers_of_a_loader_read_what_this_process_reads(root, method, workers):
    data = Items(mixer(root, speech="all.h5", noise="all.h5"), ["speech"], items=24, seed=1)
    expected = [data[index][0] for index in range(24)]  # the pack is open here now
    parts = [list(range(start, start + 6)) for start in range(0, 24, 6)]
    loader = DataLoader(
        data, batch_sampler=parts, num_workers=workers, multiprocessing_context=method
    )
    found = torch.cat([mix for mix, _ in loader])
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_what_is_for_validation_is_drawn_only_when_asked_for(root):
    def speakers(suffix):
        return {recording.speaker for recording in in_archive(f"{root}/split.h5{suffix}", "speech")}

    assert speakers("") == speakers(":train") == {"ann", "bob"}
    assert speakers(":validation") == {"eve"}
    assert speakers(":all") == {"ann", "bob", "eve"}
    with pytest.raises(SepcliError, match=r"no speech for validation; use .*all.h5:all for all"):
        in_archive(f"{root}/all.h5:validation", "speech")


def test_every_item_is_there_once(root):
    found = in_archive(f"{root}/split.h5:all", "audio")
    assert len({(r.group, r.index) for r in found}) == len(found) == 9 + 5 + 2
    with pytest.raises(IndexError):
        found[16]


def test_packs_have_weights_as_folders_have(root):
    pool = Pool([f"{root}/split.h5:all=3", f"{root}/street"], what="noise")
    rng = np.random.default_rng(0)
    packed = sum(not isinstance(pool.draw(rng), str) for _ in range(1000))
    assert 700 < packed < 800


def test_samples_are_sources_by_their_references(tmp_path):
    samples = [make_sample(n, frames=9000, roles=("mix", "ref.speech")) for n in range(3)]
    (tmp_path / "s.tar").write_bytes(to_tar(samples))
    make(tmp_path / "s.h5", samples=[tmp_path / "s.tar"], dtype="float32", val_fraction=0)
    for name in ("s.tar", "s.h5"):
        found = list(in_archive(str(tmp_path / name), "speech"))
        assert len(found) == 3
        for recording, sample in zip(found, samples, strict=True):
            assert recording.header() == (9000, 16000)
            expected = sample.audio("ref.speech")
            np.testing.assert_array_equal(recording.read()[0], expected)
            np.testing.assert_array_equal(recording.read(5, 70)[0], expected[:, 5:70])
        with pytest.raises(SepcliError, match=rf"{name}: no (ref.)?noise in it, but .*mix"):
            in_archive(str(tmp_path / name), "noise")


def test_samples_with_nothing_but_a_mix_are_sources_by_that(tmp_path):
    samples = [make_sample(n, frames=9000, roles=("mix",)) for n in range(3)]
    (tmp_path / "s.tar").write_bytes(to_tar(samples))
    make(tmp_path / "s.h5", samples=[tmp_path / "s.tar"], dtype="float32", val_fraction=0)
    mixers = [mixer(tmp_path, noise=name, speech=name) for name in ("s.tar", "s.h5")]
    first, second = (each.draw(0, 0).mix for each in mixers)
    np.testing.assert_array_equal(first, second)


def test_damaged_archives_are_refused_before_anything_is_drawn(root, tmp_path):
    tar = to_tar([make_sample(0)])
    pack = (root / "all.h5").read_bytes()
    for name, data, message in (
        ("cut.tar", tar[:-1024], "cut off after __end__; copy it again"),
        ("short.tar", tar[:1700], "cut off inside 000000.mix.wav"),
        ("bad.tar", b"x" * 2048 + bytes(1024), "not a tar archive"),
        ("none.tar", bytes(1024), "no ref.speech in it, but no sound at all"),
        ("cut.h5", pack[:-1], "cut off, [0-9]+ bytes instead of"),
        ("none.h5", b"", "no pack, or its start is damaged"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SepcliError, match=f"{name}: {message}"):
            Pool([str(tmp_path / name)], what="speech")
    with pytest.raises(SepcliError, match="No such file"):
        Pool([str(tmp_path / "nowhere.h5")], what="speech")


def test_shards_are_a_source_with_the_split_of_their_manifest(root, tmp_path):
    sources = [
        s
        for kind, name in (("speech", "voices"), ("noise", "street"))
        for s in find_sources(kind, [str(root / name)])
    ]
    list(
        Packing(sources, spec=PackSpec(val_fraction=0.3), form=TarForm(4)).run(tmp_path / "shards")
    )
    found = {
        split: [recording.name for recording in in_archive(f"{tmp_path}/shards{split}", "speech")]
        for split in ("", ":train", ":validation", ":all")
    }
    assert found[""] == found[":train"] == [f"{n:06d}.ref.speech.wav" for n in range(6)]
    assert found[":validation"] == [f"{n:06d}.ref.speech.wav" for n in range(6, 9)]
    assert found[":all"] == found[":train"] + found[":validation"]
    assert len(in_archive(f"{tmp_path}/shards/*.tar", "noise")) == 5
    tars, pack = (
        mixer(tmp_path, speech="shards", noise="shards"),
        mixer(root, speech="split.h5", noise="split.h5"),
    )
    np.testing.assert_array_equal(tars.draw(0, 1).mix, pack.draw(0, 1).mix)


@pytest.mark.parametrize("source", ["", "nowhere", "nowhere.tar", "nowhere/*.tar", "a:all"])
def test_anything_else_is_left_to_the_search_for_files(source):
    assert in_archive(source, "speech") is None
