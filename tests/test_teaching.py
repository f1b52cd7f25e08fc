"""Learning from what another model makes of the mixtures."""

import pytest
import torch

from sepcli.errors import SepcliError
from sepcli.training.loop import State
from sepcli.training.settings import Settings
from sepcli.training.teaching import Teacher
from tests.loops import QUICK, Gains, train


class Turned(Gains):
    """The same sources in another order, and one more."""

    sources = ("c", "b", "a")

    def __init__(self, *gains):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gains))


def learned(teacher=None, **settings):
    torch.manual_seed(0)
    settings = Settings(**QUICK | {"steps": 80, "loss": {"l1": 1.0}} | settings)
    student = Gains()
    taught_by = teacher and Teacher(teacher, student, "one")
    state = State(student, settings, teacher=taught_by)
    records = train(state, settings)
    return state.model.gain.data, [r for r in records if r["event"] == "train"]


def test_what_the_teacher_says_counts_by_its_weight_under_the_names_of_the_sources():
    teacher = Turned(0.9, 0.3, 0.6)
    gains, records = learned(teacher, teacher_weight=1.0)
    torch.testing.assert_close(gains, torch.tensor([0.6, 0.3]), atol=0.02, rtol=0)
    assert records[-1]["teacher"] < 0.1 * records[0]["teacher"]
    assert records[-1]["loss"] == pytest.approx(records[-1]["teacher"], rel=1e-6)
    gains, _ = learned(teacher, teacher_weight=0.2)  # the minority of two absolute differences
    torch.testing.assert_close(gains, torch.tensor([0.8, 0.2]), atol=0.02, rtol=0)


def test_a_teacher_without_weight_changes_nothing_and_never_changes_itself():
    teacher = Turned(0.9, 0.3, 0.6)
    alone, _ = learned()
    beside, records = learned(teacher, teacher_weight=0.0)
    assert torch.equal(alone, beside)
    assert records[0]["teacher"] > 0
    assert teacher.gain.tolist() == pytest.approx([0.9, 0.3, 0.6])
    assert teacher.gain.grad is None


class Other(Gains):
    sample_rate = 500


class Unlike(Gains):
    sources = ("a", "c")


class Stereo(Gains):
    channels = 2


class Conditioned(Gains):
    def condition(self, references):
        return references


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Other, "has 500 Hz, the model 1000"),
        (Unlike, "has no b"),
        (Stereo, "has 2 channels, the model 1"),
        (Conditioned, "not for models that take references"),
    ],
)
def test_who_cannot_teach_a_model_is_told(model, reason):
    with pytest.raises(SepcliError, match=f"train.teacher one: {reason}"):
        Teacher(model(), Gains(), "one")


@pytest.mark.parametrize(
    ("setting", "others"),
    [({"teacher_weight": 1.5}, {}), ({"teacher": "denoise"}, {"gan": {"from_step": 1}})],
)
def test_settings_that_make_no_sense_are_refused(setting, others):
    with pytest.raises(SepcliError, match=f"train.{min(setting)} must be"):
        Settings(**setting, **others)
