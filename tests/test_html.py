"""The report as one page: its structure, what is in it, and that it needs nothing else."""

import io
import json
import re
import subprocess
import sys
import weakref
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sepcli.cli import main
from sepcli.metrics.score import Score
from sepcli.models import build, modelfile
from sepcli.samples.streams import Sample, open_sample_writer
from sepcli.scoring import boxes, gallery
from sepcli.scoring.evaluate import Row
from sepcli.scoring.gallery import Gallery, excerpts, png

RATE = 8000
VOID = {"meta", "img", "path", "rect"}  # elements without an end
NAME = '<script>alert("x")</script> & Co'


class Page(HTMLParser):
    """Elements and text of a page; fails on elements that are not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def tone(hz, seconds=3.0, channels=2):
    t = np.arange(round(RATE * seconds)) / RATE
    return np.float32(0.2 * np.sin(2 * np.pi * hz * t)) * np.ones((channels, 1), np.float32)


def song(key, leak, *, mix=True):
    """A sample of two stems whose estimates have `leak` times the other one in them."""
    sample = Sample(key, {"sample_rate": RATE, "targets": ["vocals", "accompaniment"]})
    vocals, rest = (
        tone(440),
        tone(150) + 0.05 * np.random.default_rng(0).standard_normal((2, 3 * RATE), np.float32),
    )
    if mix:
        sample.set_audio("mix", vocals + rest)
    for name, own, other in (("vocals", vocals, rest), ("accompaniment", rest, vocals)):
        sample.set_audio(f"ref.{name}", own)
        sample.set_audio(f"est.{name}", own + leak * other)
    return sample


def report(tmp_path, samples, *args):
    """The page that `sepcli eval - --html` writes of samples in a pipe."""
    with open_sample_writer(tmp_path / "in.tar") as writer:
        for sample in samples:
            writer.write(sample)
    command = ["eval", "-", "--html", str(tmp_path / "report.html"), "--metrics", "sdr,si-sdr"]
    data = (tmp_path / "in.tar").read_bytes()
    result = CliRunner().invoke(main, [*command, *args], input=data)
    assert (result.exit_code, result.stderr) == (0, f"Wrote {tmp_path}/report.html\n")
    return (tmp_path / "report.html").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    leaks = (0.5, 0.1, 0.3, 0.2, 0.05, 0.4, 0.25, 0.15)
    songs = [song(f"song {i}", leak) for i, leak in enumerate(leaks)]
    return report(tmp_path_factory.mktemp("page"), [song(NAME, 0.6), *songs])


def test_a_page_is_well_formed_and_needs_no_network(page):
    parsed = Page(page)
    [policy] = [meta for meta in parsed.all("meta") if "http-equiv" in meta]
    assert policy["content"].startswith("default-src 'none'")
    assert not parsed.all("script")
    assert not parsed.all("link")
    for tag in ("img", "audio"):
        assert all(attrs["src"].startswith("data:") for attrs in parsed.all(tag))
    assert "//" not in re.sub(r'src="data:[^"]*"', "", page)  # no address anywhere
    assert "prefers-color-scheme: dark" in page


def test_names_are_text_and_never_markup(page):
    assert "<script" not in page
    assert NAME in "".join(Page(page).text)


def test_tables_hold_the_scores(page):
    text = "\n".join(Page(page).text)
    assert "sdr: BSS Eval v4, of each item the median of its frames of 1 s every 1 s" in text
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", page)
    assert ("vocals", "count", "9") in rows
    scores = {row[0]: float(row[2]) for row in rows if row[1] == "vocals"}
    rest = tone(150) + 0.05 * np.random.default_rng(0).standard_normal((2, 3 * RATE), np.float32)
    ratio = np.square(tone(440)).sum() / np.square(rest).sum()
    assert scores["song 1"] == pytest.approx(10 * np.log10(ratio / 0.1**2), abs=0.1)


def test_every_item_has_a_box_for_its_frames(page):
    labels = [attrs["aria-label"] for attrs in Page(page).all("svg")]
    assert labels == [
        "sdr: items",
        "sdr of vocals: frames of each item",
        "sdr of accompaniment: frames of each item",
        "si-sdr: items",
    ]
    svg = page[page.index("sdr of vocals: frames") :]
    svg = svg[: svg.index("</svg>")]
    assert re.findall(r'class="label">(.*?)</text>', svg)[-1] == "song 4"  # the best one
    assert svg.count('class="box"') == 9


def test_the_worst_and_the_best_can_be_heard_and_seen(page):
    keys = re.findall(r"<h3>(.*?)</h3>", page)
    assert keys[1:] == ["song 0", "song 5", "song 7", "song 1", "song 4"]
    parsed = Page(page)
    assert len(parsed.all("audio")) == len(parsed.all("img")) == 6 * 5
    for attrs in parsed.all("audio"):
        kind, data = attrs["src"].split(",")
        assert kind == "data:audio/mpeg;base64"
        sound, rate = soundfile.read(io.BytesIO(b64decode(data)))
        assert rate == RATE
        assert sound.shape[0] == pytest.approx(3 * RATE, abs=2500)
    heard = b64decode(parsed.all("audio")[2]["src"].split(",")[1])  # the vocals' reference
    spectrum = np.abs(np.fft.rfft(soundfile.read(io.BytesIO(heard))[0][8000:16000, 0]))
    assert np.argmax(spectrum) == 440


def test_samples_without_a_mixture_and_with_failures_have_a_page(tmp_path):
    broken = song("broken", 0.1)
    broken.set_audio("est.vocals", tone(440, 1.0))
    with open_sample_writer(tmp_path / "in.tar") as writer:
        for sample in (song("fine", 0.1, mix=False), broken):
            writer.write(sample)
    command = ["eval", str(tmp_path / "in.tar"), "--html", str(tmp_path / "report.html"), "-j", "2"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    page = (tmp_path / "report.html").read_text()
    assert "est.vocals has 8000 samples but ref.vocals has 24000" in page
    listening = page[page.index("Listening") :]
    assert re.findall(r"<h3>(.*?)</h3>", listening) == ["fine", "broken"]
    shown = re.findall(r"<figcaption>(.*?)</figcaption>", listening)
    assert shown[-3:] == ["mixture", "accompaniment, estimate", "accompaniment, reference"]
    assert len(shown) == 7  # of the other, both targets, and no mixture


def test_folders_have_a_page_and_the_output_stays(tmp_path):
    for index, leak in enumerate((0.1, 0.3)):
        for role, scale in (("est", leak), ("ref", 0.0)):
            folder = tmp_path / role / f"song{index}"
            folder.mkdir(parents=True)
            soundfile.write(folder / "vocals.wav", (tone(440) + scale * tone(99)).T, RATE)
    places = [str(tmp_path / "est"), str(tmp_path / "ref")]
    command = ["eval", "--median-of-median", *places]
    plain = CliRunner().invoke(main, command)
    result = CliRunner().invoke(main, [*command, "--html", str(tmp_path / "r.html")])
    assert result.stdout == plain.stdout
    assert result.stderr == f"Wrote {tmp_path}/r.html\n"
    assert "median of median" in (tmp_path / "r.html").read_text()


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    with open_sample_writer(tmp_path / "in.tar") as writer:
        writer.write(song("a", 0.1))
    path = str(tmp_path / "in.tar" / "report.html")
    result = CliRunner().invoke(main, ["eval", str(tmp_path / "in.tar"), "--html", path])
    assert result.exit_code == 1
    assert "in.tar: a file, where a folder is needed; choose another place" in result.stderr


def test_a_page_has_a_title_the_model_and_the_curve_of_its_training(tmp_path):
    settings = {"sources": ["speech"], "width": 8, "hidden": 8, "blocks": 1, "repeats": 1}
    model, run = build("spectral_tasnet", **settings), tmp_path / "run"
    weights = model.state_dict()
    modelfile.save(run / "best.safetensors", "spectral_tasnet", settings, weights, {"steps": 20})
    log = [
        {"event": "valid", "step": step, "loss": 1.0 - step / 40, "si_sdr_db": step / 2}
        for step in (0, 20, 40)
    ]
    log[1:1] = [{"event": "train", "step": n, "loss": loss} for n, loss in ((10, 0.9), (20, None))]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in log))
    page = report(tmp_path, [song("a", 0.1)], "--title", "Mine & <yours>", "--model", str(run))
    parsed = Page(page)
    assert "<h1>Mine &amp; &lt;yours&gt;</h1>" in page
    count = sum(weight.numel() for weight in model.parameters())
    assert f"spectral_tasnet, {count:,} parameters" in "".join(parsed.text)
    curves = {attrs["aria-label"]: attrs for attrs in parsed.all("svg")}
    assert list(curves)[:2] == ["Loss", "SI-SDR in validation"]
    svg = page[page.index('aria-label="SI-SDR in validation"') :]
    svg = svg[: svg.index("</svg>")]
    [line] = re.findall(r'class="curve" [^>]* d="M([^"]*)"', svg)
    points = np.array([list(map(float, point.split())) for point in line.split("L")])
    beside = re.findall(r'class="label" x="\d+" y="([\d.]+)">([^< ]*) dB<', svg)
    below = re.findall(r'class="tick" x="([\d.]+)" y="\d+">([^<]*)<', svg)
    ticks, marks = ({float(text): float(at) for at, text in found} for found in (beside, below))
    np.testing.assert_allclose(points[:, 0], [marks[step] for step in (0, 20, 40)], atol=0.1)
    np.testing.assert_allclose(points[:, 1], [ticks[y] - 4 for y in (0, 10, 20)], atol=0.1)
    assert f'd="M{marks[20]}' in svg  # the step of the model


def test_every_item_has_its_scores_and_spectrograms_their_axes(page):
    listening = page[page.index("Listening") :]
    first = re.search(r"<h3>song 0</h3>\n<p>(.*?)</p>", listening)
    number = r"-?\d+\.\d{3} dB"
    assert re.fullmatch(
        f"vocals: sdr {number}, si-sdr {number}; accompaniment: sdr {number}, si-sdr {number}",
        first[1],
    )
    figure = listening[: listening.index("</figure>")]
    heights = dict(re.findall(r'class="hz" style="top:(\d+)px">([^<]*)<', figure))
    expected = [128 * np.log(4000 / hz) / np.log(4000 / 60) for hz in (100, 300, 1000, 3000)]
    assert list(heights.values()) == ["100 Hz", "300 Hz", "1 kHz", "3 kHz"]
    np.testing.assert_allclose(list(map(float, heights)), expected, atol=0.5)
    assert re.findall(r'class="s" style="[^"]*">([^<]*)<', figure) == ["0 s", "1.5 s", "3 s"]


def test_a_title_without_a_page_is_a_usage_error():
    for option in ("--title", "--model"):
        result = CliRunner().invoke(main, ["eval", "-", option, "x"], input=b"")
        assert result.exit_code == 2
        assert "are for a report; add --html FILE" in result.stderr


@pytest.fixture
def names_for_excerpts(monkeypatch):
    """Excerpts that are the names of the targets."""
    monkeypatch.setattr(gallery, "excerpts", lambda sample, targets: targets)


def test_a_gallery_keeps_the_best_and_the_worst(names_for_excerpts):
    kept = Gallery()
    order = np.random.default_rng(0).permutation(100)
    for sample in kept.watch(Sample(f"{i}") for i in range(100)):
        for target in ("a", "b"):
            kept.see(Row(sample.key, target, {"sdr": Score(order[int(sample.key)])}))
    shown = [(order[int(key)], targets) for key, targets in kept.items()]
    assert shown == [(score, ["a", "b"]) for score in (0, 1, 2, 97, 98, 99)]


def test_a_gallery_lets_go_of_samples_whether_or_not_it_keeps_excerpts(names_for_excerpts):
    kept, made = Gallery(), []

    def samples():
        for number in range(50):
            sample = Sample(f"{number}")
            made.append(weakref.ref(sample))
            yield sample
            assert sum(each() is not None for each in made) <= 3

    for sample in kept.watch(samples()):
        kept.see(Row(sample.key, "a", {"sdr": Score(float(sample.key))}))  # each is the best so far
    assert [key for key, _ in kept.items()] == ["0", "1", "2", "47", "48", "49"]


def test_a_report_of_a_stream_takes_no_more_memory_for_more_songs(tmp_path):
    peaks = [_peak_mb(tmp_path, songs) for songs in (4, 16)]
    assert peaks[1] - peaks[0] < 15  # all that is kept of 12 songs of 11.5 MB


def _peak_mb(folder, songs):
    """Peak memory in MB of scoring so many minutes of stereo in a pipe, with a report."""
    code = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from sepcli.samples.streams import Sample\n"
        "from sepcli.scoring.evaluate import evaluate\n"
        "from sepcli.scoring.gallery import Gallery\n"
        "def made():\n"
        f"    for k in range({songs}):\n"
        "        sample = Sample(f'{k}', {'sample_rate': 8000})\n"
        "        signal = np.random.default_rng(k).standard_normal((2, 480000), np.float32)\n"
        "        for name, gain in (('mix', 0.1), ('ref.vocals', 0.1), ('est.vocals', 0.1 + k)):\n"
        "            sample.set_audio(name, gain * signal / 99)\n"
        "        yield sample\n"
        "gallery = Gallery()\n"
        "for row in evaluate(gallery.watch(made()), ['snr']): gallery.see(row)\n"
        "list(gallery.items())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_an_excerpt_is_short_and_from_where_the_reference_is_loudest(monkeypatch):
    monkeypatch.setattr(gallery, "SECONDS", 2)
    sample = Sample("a", {"sample_rate": RATE})
    reference = tone(440, 10.0, 6)
    reference[:, : 5 * RATE] *= 0.1
    sample.set_audio("ref.vocals", reference)
    sample.set_audio("est.vocals", reference)
    found = list(excerpts(sample, ["vocals"]))
    assert [each.name for each in found] == ["vocals, estimate", "vocals, reference"]
    sound, _ = soundfile.read(io.BytesIO(found[0].sound))
    assert len(sound) < 2.4 * RATE
    assert np.abs(sound).max() > 0.15


def test_a_png_is_what_it_was_made_of():
    from matplotlib import image

    rng = np.random.default_rng(0)
    shades, palette = rng.integers(256, size=(5, 7)), rng.integers(256, size=(256, 3))
    data = png(shades.astype(np.uint8), palette.astype(np.uint8))
    read = image.imread(io.BytesIO(data), format="png")[..., :3]
    np.testing.assert_array_equal((read * 255).round(), palette[shades])


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (-3.2, 17.8), (1e-4, 2e-4), (-100, 500), (5, 5.001)]
)
def test_ticks_are_few_and_hold_all_scores(low, high):
    ticks = boxes.round_ticks(low, high)
    assert ticks[0] <= low
    assert high <= ticks[-1]
    assert 2 <= len(ticks) <= 9


def test_a_plot_is_bounded_and_leaves_out_what_has_no_score():
    rows = [(f"{i}", [i, i + 1, np.nan, np.inf]) for i in range(1000)]
    svg = boxes.plot("sdr", [*rows, ("none", [np.nan])], "dB")
    assert svg.count('class="box"') == boxes.MOST
    assert "sdr (100 of 1000)" in svg
    assert boxes.plot("sdr", [("none", [np.nan])], "dB") == ""
