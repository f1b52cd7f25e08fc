"""The configuration: YAML, overrides, and the check against a signature."""

from dataclasses import dataclass

import pytest
import yaml

from sepcli import config
from sepcli.errors import SepcliError


@dataclass(frozen=True)
class Settings:
    steps: int = 100
    lr: float = 1e-3
    name: str = "adam"
    fast: bool = False
    snr_db: tuple[float, float] = (-5.0, 15.0)
    speech: tuple[str, ...] = ()
    loss: dict | None = None


def needs_a_name(*, name, size=3):
    return name, size


@pytest.fixture
def load(tmp_path):
    def load_text(text, *overrides):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return config.load(path, overrides)

    return load_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5E+2", 150.0),
        ("-2e-4", -0.0002),
        ("1.0e-3", 0.001),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("12", 12),
        ("-5:15", "-5:15"),
        ("true", True),
        ("no", "no"),
        ("On", "On"),
        ("y", "y"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ("'1e-3'", "1e-3"),
        ("[-5, 1e1]", [-5, 10.0]),
        ("e3", "e3"),
        ("0.5", 0.5),
        ("", None),
    ],
)
def test_numbers_are_those_of_yaml_1_2(load, text, value):
    read = load(f"a: {text}")["a"]
    assert read == value
    assert isinstance(read, type(value))
    assert isinstance(value, bool) == isinstance(read, bool)


def test_an_empty_file_is_an_empty_configuration(load):
    assert load("") == {}
    assert load("# nothing but a comment\n") == {}


def test_overrides_change_add_and_create_sections(load):
    got = load(
        "train: {steps: 10, lr: 0.1}\nmodel:\n",
        "train.steps=4",
        "train.loss.si_sdr=1e-1",
        "model.sources=[a, b]",
        "data.valid.kind=toy",
        "train.note=a=b",
    )
    assert got == {
        "train": {"steps": 4, "lr": 0.1, "loss": {"si_sdr": 0.1}, "note": "a=b"},
        "model": {"sources": ["a", "b"]},
        "data": {"valid": {"kind": "toy"}},
    }


@pytest.mark.parametrize("valid", ["*mixtures", "{<<: *mixtures}"])
def test_an_override_changes_one_of_the_places_that_share_a_section(load, valid):
    text = f"data: {{train: &mixtures {{kind: toy, room: {{rt60: 1}}, snr: [0]}}, valid: {valid}}}"
    got = load(text, "data.valid.items=50", "data.valid.room.rt60=2", "data.train.kind=stems")
    assert got["data"] == {
        "train": {"kind": "stems", "room": {"rt60": 1}, "snr": [0]},
        "valid": {"kind": "toy", "room": {"rt60": 2}, "snr": [0], "items": 50},
    }
    assert got["data"]["train"]["snr"] is not got["data"]["valid"]["snr"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", r"--set train\.steps: expected A\.B=VALUE, for example"),
        ("=4", r"--set =4: expected A\.B=VALUE"),
        ("train..steps=4", r"expected A\.B=VALUE"),
        ("train.steps.more=4", r"steps is a value, it has no settings"),
        ("train.steps=[1,", r"--set train\.steps=\[1,: not valid YAML"),
    ],
)
def test_a_wrong_override_says_how_to_write_it(load, override, message):
    with pytest.raises(SepcliError, match=message):
        load("train: {steps: 10}", override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", r"config\.yaml: holds no settings; write"),
        ("a: [1, 2\n", r"config\.yaml: not valid YAML \(.*line 2"),
        ("a: 1\nb: 2\na: 3\n", r"config\.yaml: not valid YAML \(a is set twice"),
        ("!!python/object/apply:os.getcwd []", r"not valid YAML"),
        ("a: &a {b: *a}", r"not valid YAML"),
        ("a: &a [*a]", r"not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_line(load, text, message):
    with pytest.raises(SepcliError, match=message) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path):
    with pytest.raises(SepcliError, match=r"absent\.yaml: No such file or directory; check"):
        config.load(tmp_path / "absent.yaml")
    (tmp_path / "audio.wav").write_bytes(b"RIFF\xff\xff\xff\xff\0")
    with pytest.raises(SepcliError, match=r"audio\.wav: neither UTF-8 nor UTF-16; save it as"):
        config.load(tmp_path / "audio.wav")


def test_an_unknown_key_names_the_near_and_the_known_ones():
    with pytest.raises(
        SepcliError, match=r"unknown setting train\.stesp; did you mean steps\?"
    ) as caught:
        config.check_keys(Settings, {"stesp": 4}, section="train")
    assert "known: steps, lr, name, fast, snr_db, speech, loss" in str(caught.value)


def test_a_reserved_argument_is_unknown_and_a_required_one_must_be_there():
    with pytest.raises(SepcliError, match="unknown setting lr; known: steps, name"):
        config.check_keys(Settings, {"lr": 4}, reserved=("lr",))
    with pytest.raises(SepcliError, match=r"model\.name is missing"):
        config.check_keys(needs_a_name, {}, section="model")
    assert config.check_keys(needs_a_name, {"name": "x"}) == {"name": "x"}


@pytest.mark.parametrize(
    ("given", "fitted"),
    [
        ({"steps": 1e4}, {"steps": 10000}),
        ({"lr": 1}, {"lr": 1.0}),
        ({"snr_db": [0, 5]}, {"snr_db": (0, 5)}),
        ({"snr_db": "-5:1e1"}, {"snr_db": (-5, 10.0)}),
        ({"snr_db": 3}, {"snr_db": (3, 3)}),
        ({"speech": "folder"}, {"speech": ("folder",)}),
        ({"speech": ["a", "b"]}, {"speech": ("a", "b")}),
        ({"loss": {"l1": 1}}, {"loss": {"l1": 1}}),
    ],
)
def test_values_take_the_type_of_the_default(given, fitted):
    got = config.check_keys(Settings, given)
    assert got == fitted
    assert [type(v) for v in got.values()] == [type(v) for v in fitted.values()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": "many"}, r"train\.steps must be a whole number, not 'many'"),
        ({"steps": 1.5}, r"train\.steps must be a whole number, not 1\.5"),
        ({"steps": True}, r"train\.steps must be a whole number, not True"),
        ({"lr": "fast"}, r"train\.lr must be a number, not 'fast'"),
        ({"lr": float("nan")}, r"train\.lr must be a number, not nan"),
        ({"name": 3}, r"train\.name must be text in quotes, not 3"),
        ({"fast": 1}, r"train\.fast must be true or false, not 1"),
        ({"snr_db": [1, 2, 3]}, r"train\.snr_db must be LO:HI, \[LO, HI\] or one number"),
        ({"snr_db": "low:high"}, r"train\.snr_db must be LO:HI"),
        (["steps"], r"train: expected `key: value` lines"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error(given, message):
    with pytest.raises(SepcliError, match=message):
        config.check_keys(Settings, given, section="train")


def test_defaults_come_from_the_signature():
    assert config.defaults(needs_a_name) == {"size": 3}
    assert config.defaults(Settings, reserved=("loss",)) == {
        "steps": 100,
        "lr": 1e-3,
        "name": "adam",
        "fast": False,
        "snr_db": (-5.0, 15.0),
        "speech": (),
    }


def test_what_is_dumped_loads_to_the_same_values(load):
    tree = {"a": {"lr": 1e-5, "text": "1e-5", "range": (-5.0, 15.0), "none": None, "n": "-5:15"}}
    assert load(config.dump(tree)) == {"a": {**tree["a"], "range": [-5.0, 15.0]}}


def test_differences_name_the_path_and_both_values():
    old = {"train": {"lr": 0.1, "steps": 5}, "model": {"sources": ("a",)}, "gone": 1}
    new = {"train": {"lr": 0.2, "steps": 5}, "model": {"sources": ["a"]}, "came": {}}
    assert config.differences(old, new) == [
        "train.lr: 0.1 -> 0.2",
        "gone: 1 -> absent",
        "came: absent -> {}",
    ]
    assert config.differences(old, old) == []


@dataclass
class Places:
    folder: str = ""
    speech: tuple = ()
    gain: tuple = (0.0, 1.0)


WORDS = [
    "no",
    "on",
    "Yes",
    "y",
    "1e3",
    "0123",
    "12",
    "-5",
    "2024-01-01",
    "12:30:00",
    "0x1F",
    "1_000",
]


@pytest.mark.parametrize("word", [*WORDS, ".5", "1.", "+7", "=", "a=0.5", "v1.0", "~x", "nulls"])
def test_a_path_is_what_is_written_whatever_else_yaml_takes_it_for(load, word):
    for text in (f"{{folder: {word}, speech: {word}}}", f"{{folder: {word}, speech: [{word}]}}"):
        settings = load(f"data: {text}")["data"]
        checked = config.check_keys(Places, settings, section="data")
        assert checked == {"folder": word, "speech": (word,)}
        assert [type(value) for value in (checked["folder"], *checked["speech"])] == [str, str]
        again = load(config.dump({"data": checked}))["data"]
        assert config.check_keys(Places, again) == checked
    settings = load("", f"data.folder={word}")["data"]
    assert config.check_keys(Places, settings) == {"folder": word}


@pytest.mark.parametrize("word", ["true", "False", "null", "~", "[a]", "{a: b}"])
def test_a_path_that_is_a_word_of_yaml_is_to_be_quoted(load, word):
    with pytest.raises(SepcliError, match=r"data\.folder must be text in quotes, not "):
        config.check_keys(Places, load(f"data: {{folder: {word}}}")["data"], section="data")
    assert config.check_keys(Places, load(f"folder: '{word}'")) == {"folder": word}


@pytest.mark.parametrize("word", ["no", "on", "off", "y", "2024-01-01", "true", "1e3", "0123"])
def test_what_is_dumped_reads_the_same_elsewhere(word):
    """Also where YAML is still 1.1."""
    assert yaml.safe_load(config.dump({"folder": word})) == {"folder": word}


def test_numbers_are_plain_ones_once_they_are_checked(load):
    settings = load("{steps: 12, lr: 1e-3, snr_db: [1, 2.5]}")
    checked = config.check_keys(Settings, settings)
    found = (checked["steps"], checked["lr"], *checked["snr_db"])
    assert [type(number) for number in found] == [int, float, int, float]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_settings_are_read_as_any_editor_saves_them(tmp_path, encoding):
    path = tmp_path / "config.yaml"
    path.write_bytes("train:\r\n  folder: Träume\r\n".encode(encoding))
    assert config.load(path) == {"train": {"folder": "Träume"}}
