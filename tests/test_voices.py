"""Several people at once, as whole batches from excerpts of each in memory."""

import numpy as np
import pytest
import soundfile
import torch

from sepcli.data import datasets
from sepcli.data.specs import VoiceSpec
from sepcli.data.voices import Voices
from sepcli.errors import SepcliError
from sepcli.runs import runs

RATE = 8000
SMALL = {
    "sample_rate": RATE, "duration_s": 0.25, "excerpt_s": 0.5, "speech_minutes": 0.4,
    "noise_minutes": 0.05, "rooms": 3, "rir_s": 0.1, "enroll": True, "enroll_s": 0.5,
}  # fmt: skip
EVERYTHING = {
    "equaliser_db": 4.0, "low_pass_prob": 0.3, "low_pass_hz": (1000.0, 3000.0), "rir_prob": 0.5,
    "noise_rir_prob": 0.5, "noise_prob": 0.5, "noisy_enroll": 0.5, "target_absent": 0.3,
    "clip_prob": 0.3, "interferers": (0, 3), "varying_prob": 0.5, "varying_db": 3.0,
}  # fmt: skip


def power_db(x):
    return 10 * torch.log10(x.square().mean(-1) + 1e-20)


@pytest.fixture
def tones(tmp_path):
    """Speakers, each with two recordings of tones of its own: 100 k Hz, and 100 k + 50 Hz."""
    time = np.arange(2 * RATE) / RATE
    for speaker in range(1, 7):
        for name, hz in (("first", 300 * speaker), ("second", 300 * speaker + 100)):
            path = tmp_path / "speech" / f"s{speaker}" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * time), RATE)
    return str(tmp_path / "speech")


def loudest_hz(x):
    """Frequency (B,) of the strongest bin of (B, 1, T), to 2 Hz."""
    spectrum = torch.fft.rfft(x[:, 0] * torch.hann_window(x.shape[-1]), RATE // 2).abs()
    return (2 * spectrum.argmax(-1)).tolist()


def test_an_item_is_a_function_of_the_seed_and_its_number():
    source, again = (Voices(VoiceSpec(**SMALL | EVERYTHING)) for _ in range(2))
    numbers = [7, 8, 9, 300]
    mix, refs, enroll = source.draw_many(3, numbers)
    assert mix.shape == refs["speech"].shape == refs["interferers"].shape == (4, 1, 2000)
    assert enroll.shape == (4, 1, 4000)
    assert torch.equal(mix, again.draw_many(3, numbers)[0])
    for k, number in enumerate(numbers):  # whatever else is in the batch, up to rounding
        item = source.draw(3, number)
        torch.testing.assert_close(mix[k], torch.from_numpy(item.mix), rtol=0, atol=1e-6)
        torch.testing.assert_close(enroll[k], torch.from_numpy(item.enroll), rtol=0, atol=1e-6)
    assert not torch.isclose(power_db(enroll), power_db(source.draw_many(4, numbers)[2])).any()


def test_an_enrolment_is_another_recording_of_the_target_and_nobody_else_speaks_for_it(tones):
    """Who speaks is told by the tone, 300 Hz apart, and what is said by 100 Hz more or not."""
    spec = VoiceSpec(**SMALL, speech=tones, interferers=(1, 1), noise_prob=0.0, speed_prob=0.0)
    _, refs, enroll = Voices(spec).draw_many(0, range(60))
    said = [loudest_hz(x) for x in (refs["speech"], enroll, refs["interferers"])]
    targets = set()
    for wanted, enrolled, other in zip(*said, strict=True):
        assert abs(wanted - enrolled) == pytest.approx(100, abs=8)
        assert (wanted + 8) // 300 == (enrolled + 8) // 300 != (other + 8) // 300
        targets.add((wanted + 8) // 300)
    assert targets == {1, 2, 3, 4, 5, 6}


def test_a_speaker_of_one_recording_is_heard_but_never_the_target(tones, tmp_path):
    (tmp_path / "speech" / "s1" / "second.wav").unlink()
    spec = VoiceSpec(**SMALL, speech=tones, interferers=(1, 1), noise_prob=0.0, speed_prob=0.0)
    _, refs, _ = Voices(spec).draw_many(0, range(60))
    heard = [
        {(hz + 8) // 300 for hz in loudest_hz(refs[name])} for name in ("speech", "interferers")
    ]
    assert heard == [{2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6}]


def test_levels_and_ratios_are_those_that_were_asked_for():
    settings = {"interferers": (1, 1), "sir_db": (3, 3), "snr_db": (7, 7), "level_db": (-31, -31)}
    mix, refs, _ = Voices(VoiceSpec(**SMALL | settings)).draw_many(0, range(8))
    torch.testing.assert_close(mix, sum(refs.values()), rtol=0, atol=1e-6)
    assert power_db(mix).numpy() == pytest.approx(-31, abs=1e-2)
    ratio = power_db(refs["speech"]) - power_db(refs["interferers"])
    assert ratio.numpy() == pytest.approx(3, abs=1e-2)
    everyone = refs["speech"] + refs["interferers"]
    assert (power_db(everyone) - power_db(refs["noise"])).numpy() == pytest.approx(7, abs=1e-2)


@pytest.mark.parametrize(
    ("name", "setting"), [("speech", "target_absent"), ("noise", "noise_prob")]
)
def test_what_is_absent_is_zero_in_as_many_items_as_asked_for(name, setting):
    _, refs, _ = Voices(VoiceSpec(**SMALL | {setting: 0.5})).draw_many(0, range(60))
    silent = (refs[name].abs().amax(-1) == 0).float().mean()
    assert 0.3 < silent < 0.7


def test_as_many_others_speak_as_asked_for(tones):
    spec = VoiceSpec(**SMALL, speech=tones, interferers=(0, 2), speed_prob=0.0, sir_db=(0, 0))
    _, refs, _ = Voices(spec).draw_many(0, range(40))
    spectrum = torch.fft.rfft(refs["interferers"][:, 0], RATE // 2).abs()
    strong = spectrum > 0.5 * spectrum.amax(-1, keepdim=True).clamp(min=1e-6)
    peaks = strong & (spectrum >= spectrum.roll(1, -1)) & (spectrum >= spectrum.roll(-1, -1))
    assert set(peaks.sum(-1).tolist()) == {0, 1, 2}


def test_conditioned_models_take_them_as_training_data_in_batches(tmp_path):
    data = {"kind": "voices", **SMALL}
    del data["sample_rate"], data["enroll"]
    model = {"name": "speaker_lstm", "sample_rate": RATE, "window": 64, "hop": 32, "width": 8}
    model |= {"hidden": 8, "layers": 2, "keys": 4, "values": 4, "heads": 2, "embedding": 8}
    train = {"steps": 4, "batch": 2, "log_every": 2, "validate_every": 4}
    settings = {
        "model": model | {"bottleneck": 4, "encoder_channels": 8, "encoder_bands": 8},
        "data": {"train": data, "valid": data | {"items": 2, "seed": 9}},
        "train": train | {"loss": {"stft_si_sdr": 0.1, "stft_compressed": 2.0}},
    }
    run = runs.start(runs.resolve(settings), tmp_path / "run")
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    assert [r["step"] for r in run.records() if r["event"] == "step"] == [1, 2, 3, 4]
    moved = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    still = {name for name in before if name.startswith("encoder.")}
    assert moved == set(before) - still  # the speaker encoder is not trained by default


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"enroll_s": 0.6}, "excerpt_s must be at least 0.6, enroll_s times the speed"),
        ({"interferers": [1, 9]}, "interferers must be 0 to 3, not"),
        ({"noise_prob": 2.0}, "noise_prob must be 0 to 1, not 2.0"),
        ({"speech": ["nowhere"]}, "nowhere: no such file or folder"),
    ],
)
def test_what_makes_no_sense_is_said(settings, message):
    section = {"kind": "voices", **SMALL, **settings}
    del section["sample_rate"], section["enroll"]
    resolved = datasets.resolve(section, section="data", items=0, seed=5)
    known = {"section": "data", "sample_rate": RATE, "sources": ("speech",), "enroll": True}
    with pytest.raises(SepcliError, match=f"data: {message}"):
        datasets.build(resolved, **known)
