"""Lists as any editor saves them, and names as any system writes them."""

import io
import json
import unicodedata

import numpy as np
import pytest
from click.testing import CliRunner

from sepcli import audio, files
from sepcli.cli import main
from sepcli.errors import SepcliError
from sepcli.recordings.pools import find_audio
from sepcli.recordings.songs import find_songs
from sepcli.samples.sample import Sample
from sepcli.samples.streams import read_samples
from tests.samples import tone

SAVED = {  # how editors of Windows and of others save the same text
    "utf-8": lambda text: text.encode(),
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "notepad": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "powershell": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "no mark": lambda text: text.encode("utf-16-le"),
    "without a last end": lambda text: text.rstrip("\n").encode(),
}
saved = pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
NAMES = ["a.wav", "Träume (live).wav", "日本.flac"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        audio.write(tmp_path / name, tone(), 16000)
    return tmp_path


@saved
def test_a_list_of_paths(here, save):
    (here / "list.txt").write_bytes(save("".join(f"{name}\n" for name in NAMES)))
    assert find_audio("list.txt") == NAMES


@saved
def test_a_list_of_paths_in_json_lines(here, save):
    lines = (json.dumps({"path": name}, ensure_ascii=False) for name in NAMES)
    (here / "list.jsonl").write_bytes(save("".join(f"{line}\n" for line in lines)))
    assert find_audio("list.jsonl") == NAMES


@pytest.mark.parametrize("save", [save for name, save in SAVED.items() if name != "cr"])
@pytest.mark.parametrize("through", ["file", "pipe"])
def test_a_list_of_samples(here, save, through):
    """Of JSON lines, to which a carriage return is a space."""
    lines = (json.dumps({"mix": name, "ref": {"ü": name}}, ensure_ascii=False) for name in NAMES)
    data = save("".join(f"{line}\n" for line in lines))
    if through == "file":
        (here / "list.jsonl").write_bytes(data)
        samples = list(read_samples("list.jsonl"))
    else:
        samples = list(read_samples("-", stdin=io.BytesIO(data)))
    assert [sample.key for sample in samples] == ["a", "Träume (live)", "日本"]
    assert all(list(sample.refs()) == ["ü"] for sample in samples)


@saved
def test_the_json_of_a_sample(here, save):
    (here / "in" / "s").mkdir(parents=True)
    audio.write(here / "in" / "s" / "mix.wav", tone(), 16000)
    (here / "in" / "s" / "sample.json").write_bytes(save('{"targets": ["ü"],\n "snr_db": 1}\n'))
    [sample] = read_samples("in")
    assert (sample.targets, sample.meta["snr_db"]) == (["ü"], 1)


def test_names_in_a_list_may_be_any_bytes(here):
    audio.write(here / "x\udcff.wav", tone(), 16000)
    (here / "list.txt").write_bytes(b"x\xff.wav\n")
    assert find_audio("list.txt") == ["x\udcff.wav"]


@pytest.mark.parametrize("data", [bytes(100), b"RIFF\x00\x01\x02\x03", b"\xff\xfe\x00\xd8\x00\xd8"])
def test_what_is_no_text_is_one_line(here, data):
    (here / "list.txt").write_bytes(data)
    with pytest.raises(SepcliError, match=r"list\.txt: neither UTF-8 nor UTF-16; save it as UTF-8"):
        find_audio("list.txt")


# One bad line among many


BAD_LINES = ["not JSON", "[]", "{}", '{"mix": 3}', '{"mix": "a.txt"}', '{"mix": "a.wav", "ref": 1}']


@pytest.mark.parametrize("bad", [*BAD_LINES, '{"mix": "gone.wav"}', '{"mix": "a.wav", "key": 7}'])
def test_a_bad_line_does_not_end_a_list(here, bad):
    good = [json.dumps({"mix": "a.wav", "ref": {"speech": "a.wav"}, "est": {"speech": "a.wav"}})]
    (here / "list.jsonl").write_text("\n".join([*good, bad, *good]))
    result = CliRunner().invoke(main, ["eval", "list.jsonl", "--metrics", "si-sdr", "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [item["key"] for item in report["items"]] == ["a", "a-2"]
    assert len(report["failed"]) == 1
    result = CliRunner().invoke(main, ["pack", "list.jsonl", "-o", "x.h5"])
    assert result.stderr.count("Skipped: ") == 1
    assert "1 of 3 inputs could not be read" in result.stderr


@pytest.mark.parametrize("bad", ["{", "[]", '{"sample_rate": "x"}'])
def test_bad_json_in_a_folder_or_tar_does_not_end_the_others(here, bad):
    for name in "abc":
        (here / "in" / name).mkdir(parents=True)
        audio.write(here / "in" / name / "mix.wav", tone(), 16000)
    (here / "in" / "b" / "sample.json").write_text(bad)
    samples = list(read_samples("in"))
    assert [bool(sample.fault) for sample in samples] == [False, True, False]
    with pytest.raises(SepcliError, match=r"b/sample\.json: "):
        samples[1].audio("mix")


# Composed and decomposed letters


FORMS = [(ours, theirs) for ours in ("NFC", "NFD") for theirs in ("NFC", "NFD")]
forms = pytest.mark.parametrize(("ours", "theirs"), FORMS)
TITLE = "Träume é 한"


def score(*args):
    metrics = ["--metrics", "si-sdr", "--json"]
    result = CliRunner().invoke(main, ["eval", *map(str, args), *metrics])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@forms
def test_estimates_meet_their_references(tmp_path, ours, theirs):
    ours, theirs = (unicodedata.normalize(form, TITLE) for form in (ours, theirs))
    noisy = tone() + 0.1 * tone(3)
    layouts = {
        "stems": ("{}/vocals.wav", "{}/vocals.wav"),
        "targets": ("song/est.{}.wav", "song/ref.{}.wav"),
        "files": ("{}.wav", "{}.wav"),
        "file and folder": ("x/{}.wav", "x/ref.{}.wav"),
    }
    for layout, (est, ref) in layouts.items():
        for name in (f"{layout}/est/{est.format(ours)}", f"{layout}/ref/{ref.format(theirs)}"):
            audio.write(tmp_path / name, noisy if "/est/" in name else tone(), 16000)
        report = score(tmp_path / layout / "est", tmp_path / layout / "ref")
        assert len(report["items"]) == 1, layout


@forms
def test_reports_are_compared_whoever_wrote_their_names(tmp_path, ours, theirs):
    for form, name in ((ours, "ours"), (theirs, "theirs")):
        title = unicodedata.normalize(form, TITLE)
        for role in ("est", "ref"):
            audio.write(tmp_path / name / role / f"{title}.wav", tone(role == "est"), 16000)
    old = score(tmp_path / "theirs" / "est", tmp_path / "theirs" / "ref")
    files.save(tmp_path / "old.json", json.dumps(old))
    places = (tmp_path / "ours" / "est", tmp_path / "ours" / "ref")
    assert score(*places, "--compare", tmp_path / "old.json")["compared"]["items"] == 1


@forms
def test_a_sample_finds_its_signals(ours, theirs):
    ours, theirs = (unicodedata.normalize(form, "Stimme é") for form in (ours, theirs))
    sample = Sample("x", {"sample_rate": 16000, "targets": [ours]})
    sample.set_audio(f"ref.{theirs}", tone())
    sample.set_audio(f"est.{ours}", tone())
    assert sample.has(f"ref.{ours}")
    assert list(sample.refs()) == list(sample.ests()) == sample.targets
    np.testing.assert_array_equal(sample.audio(f"ref.{ours}"), tone())


@forms
def test_stems_of_a_song_meet(tmp_path, ours, theirs):
    for form, stem in ((ours, "vocals"), (theirs, "accomp")):
        audio.write(tmp_path / stem / f"{unicodedata.normalize(form, TITLE)}.wav", tone(), 16000)
    [song] = find_songs(str(tmp_path))
    assert set(song.stems) == {"vocals", "accompaniment"}


def test_two_files_that_differ_in_nothing_else_are_both_read(tmp_path):
    for form in ("NFC", "NFD"):
        for role in ("est", "ref"):
            name = unicodedata.normalize(form, TITLE)
            audio.write(tmp_path / role / f"{name}.wav", tone(role == "est"), 16000)
    assert len(score(tmp_path / "est", tmp_path / "ref")["items"]) == 2
