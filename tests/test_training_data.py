"""Training data: the toy task, and the order of items."""

import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepcli.data import datasets
from sepcli.data.toy import Toy, ToySpec
from sepcli.errors import SepcliError
from sepcli.mixing.mixtures import Mixer, MixtureSpec
from sepcli.mixing.source import Drawn, Source
from sepcli.mixing.speakers import SpeakerMixer, SpeakerSpec
from sepcli.mixing.specs import PRESETS


class Numbers(Source):
    """A source whose item i has the constant value i; item 13 cannot be made."""

    def draw(self, seed, index, step=None):
        if index == 13:
            raise SepcliError("item 13: no such file; look for it")
        x = np.full((1, 4), index, np.float32)
        return Drawn(x, {"a": x, "b": -x})


def items(count=0, sources=("a", "b")):
    return datasets.Items(Numbers(), sources, items=count, seed=0)


def dataset(settings, sources, section="data"):
    resolved = datasets.resolve(settings, section=section, items=0, seed=4)
    return datasets.build(resolved, section=section, sample_rate=8000, sources=sources)


def order(loader, batches):
    return [mix[:, 0, 0].int().tolist() for mix, _ in islice(loader, batches)]


def test_toy_snippets_are_functions_of_seed_and_index():
    first, again, other = (Toy().draw(*key) for key in ((3, 7), (3, 7), (4, 7)))
    assert np.array_equal(first.mix, again.mix)
    assert not np.array_equal(first.mix, other.mix)
    assert first.mix.shape == (1, 16000)
    assert first.mix.dtype == np.float32


def test_a_toy_mix_is_the_sum_of_a_modulated_tone_in_noise_and_a_few_sines():
    toy = Toy()
    counts = set()
    for index in range(20):
        drawn = toy.draw(0, index)
        np.testing.assert_array_equal(drawn.mix, drawn.refs["modulated"] + drawn.refs["sines"])
        assert np.abs(drawn.mix).max() <= 1
        levels = [20 * np.log10(np.sqrt(np.mean(ref**2))) for ref in drawn.refs.values()]
        assert all(-26.01 < level_db < -19.99 for level_db in levels)
        # Nearly all energy of the sines is in two or three narrow lines of the spectrum.
        power = np.abs(np.fft.rfft(drawn.refs["sines"][0] * np.hanning(16000))) ** 2
        lines, everything = 0, power.sum()
        while power.sum() > 1e-3 * everything:
            peak = int(power.argmax())
            power[max(0, peak - 4) : peak + 5] = 0
            lines += 1
        counts.add(lines)
    assert counts == {2, 3}


def test_the_noise_of_a_modulated_tone_has_the_level_asked_for():
    quiet, loud = (
        Toy(ToySpec(noise_db=db, level_db=(-20, -20))).draw(0, 0).refs["modulated"][0]
        for db in (-200.0, -10.0)
    )
    gain = np.dot(quiet, loud) / np.dot(quiet, quiet)
    rest = loud - gain * quiet
    assert 10 * np.log10(np.mean(rest**2) / np.mean((gain * quiet) ** 2)) == pytest.approx(
        -10, abs=0.1
    )


def test_refs_are_stacked_in_the_order_of_the_sources():
    mix, refs = items(sources=("b", "a"))[5]
    assert mix.shape == (1, 4)
    assert refs.shape == (2, 1, 4)
    assert refs[0, 0, 0] == -5
    assert refs.dtype == torch.float32


def test_endless_data_is_read_in_order_and_can_start_anywhere():
    assert order(datasets.batches(items(), 4, seed=0), 3) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert order(datasets.batches(items(), 4, seed=0, start=1), 1) == [[4, 5, 6, 7]]


def test_every_epoch_is_another_permutation_and_can_be_entered_in_the_middle():
    whole = order(datasets.batches(items(10), 4, seed=0), 10)
    flat = [number for batch in whole for number in batch]
    epochs = [flat[k : k + 10] for k in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    for start in (1, 2, 3, 7):
        assert order(datasets.batches(items(10), 4, seed=0, start=start), 3) == whole[start:][:3]
    assert order(datasets.batches(items(10), 4, seed=1), 10) != whole


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 with threads about
def test_workers_change_nothing():
    alone = order(datasets.batches(items(12), 4, seed=0, start=1), 5)
    assert order(datasets.batches(items(12), 4, seed=0, start=1, workers=2), 5) == alone


class Steps(Numbers):
    """Numbers whose mix has the step besides."""

    def draw(self, seed, index, step=None):
        drawn = super().draw(seed, index)
        drawn.mix[0, 1] = -1 if step is None else step
        return drawn


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("number", [0, 8])
@pytest.mark.parametrize("workers", [0, 2])
def test_items_know_the_step_that_they_are_for_whoever_makes_them_and_wherever_it_starts(
    number, workers
):
    data = datasets.Items(Steps(), ("a", "b"), items=number, seed=0)

    def steps(start, count):
        loader = datasets.batches(data, 1, seed=0, start=start, workers=workers, per_step=3)
        return [mix[:, 0, 1].int().tolist() for mix, _ in islice(loader, count)]

    assert steps(0, 5) == [[0]] * 3 + [[1]] * 2
    assert steps(4, 4) == [[1]] * 2 + [[2]] * 2
    assert data[5][0][0, 1] == -1


def test_validation_is_as_after_all_steps():
    data = datasets.Items(Steps(), ("a", "b"), items=3, seed=0)
    assert [mix[0, 0, 1] for mix, _ in datasets.in_order(data, 3)] == [-1]


def test_one_pass_takes_every_item_once():
    assert order(datasets.in_order(items(5), 2), 9) == [[0, 1], [2, 3], [4]]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_cannot_be_made_is_one_line_from_a_worker_too(workers):
    with pytest.raises(SepcliError) as caught:
        order(datasets.batches(items(), 4, seed=0, start=3, workers=workers), 2)
    assert str(caught.value) == "item 13: no such file; look for it"


def test_a_source_that_the_data_lacks_is_named():
    message = "source 'vocals' is not in the data, which has a, b; set model.sources"
    with pytest.raises(SepcliError, match=message):
        order(datasets.in_order(items(2, sources=("vocals",)), 2), 1)


def test_items_of_different_length_do_not_make_a_batch():
    data = dataset({"kind": "mixtures", "duration_s": "0.7:0.9"}, ("speech",))
    with pytest.raises(SepcliError, match="differ in length; give duration_s as one number"):
        order(datasets.batches(data, 2, seed=0), 1)


def test_mixtures_are_those_of_the_mixer():
    settings = {"kind": "mixtures", "duration_s": 1, "snr_db": "0:5"}
    mix, refs = dataset(settings, ("noise", "speech"))[9]
    drawn = Mixer(MixtureSpec(sample_rate=8000, duration_s=(1, 1), snr_db=(0, 5))).draw(4, 9)
    assert np.array_equal(mix, drawn.mix)
    assert np.array_equal(refs[0], drawn.refs["noise"])
    assert np.array_equal(refs[1], drawn.refs["speech"])


@pytest.mark.parametrize("kind", ["mixtures", "speakers"])
def test_a_preset_stands_for_its_settings_unless_they_are_there(kind):
    section = {"kind": kind, "preset": "poconet", "snr_db": 3}
    resolved = datasets.resolve(section, section="data.train", items=0, seed=0)
    assert "preset" not in resolved
    assert resolved["snr_db"] == (3.0, 3.0)
    for name, value in PRESETS["poconet"].items():
        assert name == "snr_db" or resolved[name] == value


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "mixtures", "preset": "x"}, r"data\.preset: unknown 'x'; choose from poconet"),
        (
            {"kind": "stems", "preset": "poconet"},
            r"data\.preset is for the kinds mixtures and",
        ),
    ],
)
def test_presets_that_are_not_there_are_named(section, message):
    with pytest.raises(SepcliError, match=message):
        datasets.resolve(section, section="data", items=0, seed=0)


@pytest.mark.parametrize("kind", ["mixtures", "speakers", "stems"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_and_entering_in_the_middle_change_no_item_of_any_kind(kind, tmp_path):
    settings = {"kind": kind, "duration_s": 0.2}
    if kind == "stems":
        for name in ("vocals", "drums"):
            signal = 0.1 * np.random.default_rng(0).standard_normal((8000, 2))
            soundfile.write(tmp_path / f"{name}.wav", signal, 8000)
        settings |= {"stems": str(tmp_path), "augment": ["remix", "gain=0.5:2", "pitch"]}
    data = dataset(settings, {"stems": ("vocals", "drums")}.get(kind, ("speech", "noise")))
    whole = list(islice(datasets.batches(data, 2, seed=0), 4))
    resumed = islice(datasets.batches(data, 2, seed=0, start=1, workers=2), 3)
    for (mix, refs), (other_mix, other_refs) in zip(whole[1:], resumed, strict=True):
        assert torch.equal(mix, other_mix)
        assert torch.equal(refs, other_refs)
    assert refs.shape == (2, 2, 2 if kind == "stems" else 1, 1600)


@settings(deadline=None, max_examples=6)
@given(
    kind=st.sampled_from(["mixtures", "speakers", "toy"]),
    items=st.sampled_from([0, 5]),
    duration_s=st.floats(0.1, 0.4),
    size=st.integers(1, 3),
    start=st.integers(0, 10**6),
    workers=st.integers(1, 2),
    seed=st.integers(0, 2**32),
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_any_number_of_workers_makes_the_same_batches_of_any_data(
    kind, items, duration_s, size, start, workers, seed
):
    section = {"kind": kind, "duration_s": duration_s, "items": items, "seed": seed}
    data = dataset(section, {"toy": ("sines",)}.get(kind, ("speech",)))
    order = {"seed": seed, "start": start, "per_step": 2}
    alone = islice(datasets.batches(data, size, **order), 3)
    helped = islice(datasets.batches(data, size, workers=workers, **order), 3)
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


class Pinned(torch.Tensor):
    def pin_memory(self):
        return self.as_subclass(Pinned)


def test_batches_for_a_gpu_are_in_pinned_memory(monkeypatch):
    expected = order(datasets.in_order(items(5), 2), 9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", Pinned.pin_memory)
    batches = list(datasets.in_order(items(5), 2))
    assert all(isinstance(signal, Pinned) for batch in batches for signal in batch)
    assert order(batches, 9) == expected
    with pytest.raises(SepcliError, match="item 13"):
        list(datasets.in_order(items(20), 2))


# A program without `if __name__ == "__main__"` that leaves the loop.
LEFT = """
import os, numpy, torch
from sepcli.data import datasets
from sepcli.data.toy import Toy, ToySpec
data = datasets.Items(Toy(ToySpec(duration_s=0.1)), ["sines"], items=0, seed=0)
batches = datasets.batches(data, 2, seed=0, workers=2)
for number, (mix, refs) in enumerate(batches):
    if number == 3:
        END
print(mix.shape)
"""


@pytest.mark.parametrize(("end", "code"), [("break", 0), ("1 / 0", 1)])
def test_a_loop_over_batches_may_be_left(end, code):
    process = subprocess.run(
        [sys.executable, "-c", LEFT.replace("END", end)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == code, process.stderr
    assert "[2, 1, 1600]" in process.stdout or code


def test_enrolments_are_a_third_tensor_for_those_who_ask():
    settings = {"kind": "speakers", "duration_s": 0.2, "enroll_s": 0.3}
    resolved = datasets.resolve(settings, section="data", items=0, seed=4)
    about = {"section": "data", "sample_rate": 8000, "sources": ("speech",)}
    data = datasets.build(resolved, **about, enroll=True)
    mix, refs, enroll = next(iter(datasets.batches(data, 2, seed=0)))
    assert (mix.shape, refs.shape, enroll.shape) == ((2, 1, 1600), (2, 1, 1, 1600), (2, 1, 2400))
    spec = SpeakerSpec(sample_rate=8000, duration_s=0.2, enroll_s=0.3, enroll=True)
    assert np.array_equal(enroll[1], SpeakerMixer(spec).draw(4, 1).enroll)
    assert len(datasets.build(resolved, **about)[0]) == 2

    toy = datasets.resolve({"kind": "toy"}, section="data", items=0, seed=4)
    with pytest.raises(SepcliError, match=r"data\.kind toy has no enrolments; use speakers"):
        datasets.build(toy, **about, enroll=True)


def test_a_resolved_section_is_complete_and_resolves_to_itself():
    resolved = datasets.resolve({"kind": "mixtures", "snr_db": 3}, section="", items=7, seed=1)
    assert resolved["items"] == 7
    assert resolved["snr_db"] == (3, 3)
    assert resolved["noise"] == ()
    assert "sample_rate" not in resolved
    assert datasets.resolve(resolved, section="", items=0, seed=0) == resolved


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            r"train\.kind is missing; choose from excerpts, masked, mixtures, songs, speakers",
        ),
        (None, r"data\.train\.kind is missing"),
        (
            {"kind": "tio"},
            r"unknown data\.train\.kind 'tio'; choose from excerpts, masked, mixtures",
        ),
        ({"kind": "toy", "item": 3}, r"unknown setting data\.train\.item; .*known: duration_s"),
        ({"kind": "toy", "items": -1}, r"data\.train\.items must be a whole number, 0 or more"),
        ({"kind": "toy", "seed": "x"}, r"data\.train\.seed must be a whole number"),
        ({"kind": "toy", "duration_s": 0}, r"data\.train: duration_s must be above 0"),
        ({"kind": "toy", "sample_rate": 8000}, r"unknown setting data\.train\.sample_rate"),
        ({"kind": "mixtures", "rir_prob": "x"}, r"data\.train: .*"),
        ({"kind": "speakers", "enroll": True}, r"unknown setting data\.train\.enroll"),
        ({"kind": "stems"}, r"data\.train: stems must be folders or packs of songs"),
        ({"kind": "mixtures", "speech": "absent/"}, r"data\.train: .*absent"),
    ],
)
def test_a_wrong_data_section_is_one_line(settings, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SepcliError, match=message) as caught:
        dataset(settings, ("speech",), section="data.train")
    assert "\n" not in str(caught.value)
