"""The page of `sepcli serve` in a real browser; `make test-browser` runs these."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import sepcli
from sepcli.cli import main
from sepcli.mixing import synthetic
from tests.serving import Served, make_models, noise, silence

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RATE, SECONDS = 16000, 4
TOKEN = "a-token:with+and/and?>~"
SWITCHES = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)

# Plays what the page plays, from the buffers of its tracks, into an array: {name: gain} says how.
RENDER = """
async ([gains, offset, frames]) => {
  const { Player } = await import("/page/player.js");
  const { player } = window.sepcli;
  const context = new OfflineAudioContext(1, frames, player.context.sampleRate);
  const copy = new Player(context);
  for (const track of player.tracks) copy.add(track.name, track.buffer).volume = gains[track.name];
  copy.apply(0);
  copy.offset = offset;
  copy.play();
  const starts = copy.startedAt;
  return [Array.from((await context.startRendering()).getChannelData(0)), starts];
}
"""


def speech():
    """Synthetic speech in noise, (1, T)."""
    clean = synthetic.speech(RATE * SECONDS, RATE, np.random.default_rng(0), 0)
    return (0.2 * clean / np.abs(clean).max())[None].astype(np.float32) + noise(SECONDS) / 10


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "talk.wav"
    sepcli.write(path, speech(), RATE)
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    models = {"denoise": "denoise-tiny", **make_models(tmp_path_factory.mktemp("models"))}
    with Served(models, tmp_path_factory.mktemp("jobs"), env={"SEPCLI_TOKEN": TOKEN}) as server:
        yield server


@pytest.fixture(scope="module")
def browser(recording):
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "no chromium; apt-get install chromium"
    with sync_playwright() as running:
        switches = [*SWITCHES, f"--use-file-for-fake-audio-capture={recording}"]
        yield running.chromium.launch(executable_path=CHROMIUM, args=switches, timeout=180_000)


@pytest.fixture
def page(served, browser):
    """The page, past the question for the token; what it complains of fails the test."""
    context = browser.new_context(accept_downloads=True, permissions=["microphone"])
    context.set_default_timeout(180_000)
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.fill("#token", TOKEN)
    page.click("#access button")
    page.wait_for_selector("#model option", state="attached")
    yield page
    assert problems == []
    context.close()


def separate(page, path, model="denoise"):
    page.set_input_files("#file", path)
    page.select_option("#model", model)
    page.check("#residual")
    page.click("#start")
    page.wait_for_selector("#player:not([hidden])")


def test_a_recording_is_separated_played_in_sync_and_downloaded(page, recording, tmp_path):
    separate(page, recording)
    assert page.text_content("#status") == "Done."
    names = page.evaluate("sepcli.player.tracks.map((track) => track.name)")
    assert names == ["mixture", "speech", "noise", "residual"]

    frames = RATE // 2
    off = dict.fromkeys(names, 0)
    stems = {name: float(name != "mixture") for name in names}
    mixture, _ = page.evaluate(RENDER, [off | {"mixture": 1}, 0.5, frames])
    summed, start = page.evaluate(RENDER, [stems, 0.5, frames])
    np.testing.assert_allclose(summed, mixture, rtol=0, atol=2e-7)  # to the sample
    first = round(start * RATE)
    wanted = speech()[0, RATE // 2 :][: frames - first]
    np.testing.assert_allclose(mixture[first:], wanted, rtol=0, atol=1e-6)

    page.click("#play")
    page.wait_for_function("() => sepcli.player.position > 0.2")
    assert page.evaluate("new Set(sepcli.player.sources.map((s) => s.context)).size") == 1
    assert page.evaluate("sepcli.player.sources.length") == 4
    page.click("#play")
    assert page.evaluate("sepcli.player.playing") is False

    with page.expect_download() as download:
        page.click("[aria-label=speech] a")
    assert download.value.suggested_filename == "talk-speech.wav"
    args = ["separate", "-m", "denoise-tiny", "--target", "speech", recording, "-o"]
    assert CliRunner().invoke(main, [*map(str, args), str(tmp_path / "cli.wav")]).exit_code == 0
    assert download.value.path().read_bytes() == (tmp_path / "cli.wav").read_bytes()


def test_tracks_are_muted_and_played_alone_with_short_ramps(page, recording):
    separate(page, recording)
    gains = "sepcli.player.tracks.map((track) => Math.round(1e4 * track.gain.gain.value) / 1e4)"
    page.click("#play")
    page.wait_for_function(f"() => String({gains}) === '0,1,1,1'")
    page.keyboard.press("2")  # mute
    page.wait_for_function(f"() => String({gains}) === '0,0,1,1'")
    assert page.get_attribute("[aria-label=speech] button", "aria-pressed") == "true"
    page.keyboard.press("Shift+1")  # alone
    page.wait_for_function(f"() => String({gains}) === '1,0,0,0'")
    page.evaluate("document.querySelectorAll('#tracks input')[0].value = 0.5")
    page.dispatch_event("#tracks input", "input")
    page.wait_for_function(f"() => String({gains}) === '0.5,0,0,0'")


# A track of ones that is muted after 0.1 s: what is then heard.
MUTE = """
async (rate) => {
  const { Player } = await import("/page/player.js");
  const context = new OfflineAudioContext(1, rate / 5, rate);
  const player = new Player(context);
  const buffer = context.createBuffer(1, rate, rate);
  buffer.getChannelData(0).fill(1);
  const track = player.add("ones", buffer);
  player.play();
  context.suspend(0.1).then(() => {
    track.muted = true;
    player.apply();
    return context.resume();
  });
  return Array.from((await context.startRendering()).getChannelData(0));
}
"""


def test_a_track_fades_out_within_ten_milliseconds(page):
    heard = np.array(page.evaluate(MUTE, RATE))
    first = np.flatnonzero(heard < 1 - 1e-6)
    begin = first[first > RATE // 20 + 200][0] - 1  # the start of the sound is no fade
    fade = heard[begin : begin + RATE // 100 + 1]
    np.testing.assert_allclose(fade, np.linspace(1, 0, len(fade)), atol=0.01)
    assert not heard[begin + len(fade) + 1 :].any()


def test_a_loop_stays_within_its_ends(page, recording):
    separate(page, recording)
    page.evaluate("sepcli.player.seek(1)")
    page.keyboard.press("[")
    page.evaluate("sepcli.player.seek(1.3)")
    page.keyboard.press("]")
    page.evaluate("sepcli.player.seek(1)")
    page.click("#play")
    page.wait_for_function(
        "() => sepcli.player.context.currentTime > sepcli.player.startedAt + 0.5"
    )
    assert 1 <= page.evaluate("sepcli.player.position") < 1.3
    loops = page.evaluate("sepcli.player.sources.map((s) => [s.loop, s.loopStart, s.loopEnd])")
    np.testing.assert_allclose(loops, [[1, 1, 1.3]] * 4)


def test_the_microphone_is_recorded_and_separated(page):
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_timeout(1000)
    page.click("#record")
    page.wait_for_selector("#start:not([disabled])")
    assert page.text_content("#chosen") == "recording.wav"
    page.select_option("#model", "tiny")
    page.click("#start")
    page.wait_for_selector("#player:not([hidden])")
    assert page.evaluate("sepcli.player.duration") > 0.8


def test_the_microphone_is_denoised_live_and_may_be_bypassed(page):
    page.select_option("#live-model", "denoise")
    page.click("#live-start")
    page.wait_for_selector("#live-start[aria-pressed=true]")
    assert "24 ms late" in page.text_content("#live-status")
    page.wait_for_function("() => document.querySelector('#level-out').value > -55")
    page.click("#bypass")
    assert page.get_attribute("#bypass", "aria-pressed") == "true"
    page.click("#live-start")
    page.wait_for_function(
        "() => document.querySelector('#live-status').textContent === 'Stopped.'"
    )


def test_what_is_wrong_is_said_aloud(page, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    page.set_input_files("#file", bad)
    page.click("#start")
    page.wait_for_function(
        "() => document.querySelector('#problem').textContent.startsWith('bad: ')"
    )
    assert page.get_attribute("#problem", "role") == "alert"


def test_a_job_is_cancelled(page, served, tmp_path):
    (tmp_path / "long.flac").write_bytes(silence(300))
    page.set_input_files("#file", tmp_path / "long.flac")
    page.select_option("#model", "slow")
    page.click("#start")
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Sep')")
    page.click("#cancel")
    page.wait_for_selector("#start:not([disabled])")


def test_everything_is_reached_by_the_keyboard_and_has_a_name(page, recording):
    separate(page, recording)
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, a, meter, progress, canvas, img")]
        .filter((e) => !e.closest("[hidden]"))
        .filter((e) => !(e.textContent.trim() || e.labels?.length || e.alt
          || e.getAttribute("aria-label")))
        .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.id || document.activeElement.textContent")
        )
    assert {"file", "record", "model", "start", "play", "seek", "loop", "Mute", "Solo"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page, scheme):
    page.emulate_media(color_scheme=scheme)
    colours = page.evaluate(
        """[...document.querySelectorAll("h2, p.hint, button:not(:disabled)")].map((e) => {
          let under = e;
          while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)")
            under = under.parentElement;
          const numbers = (c) => c.match(/[0-9.]+/g).slice(0, 3).map(Number);
          const style = getComputedStyle(e);
          return [numbers(style.color), numbers(getComputedStyle(under).backgroundColor)];
        })"""
    )
    for text, ground in colours:
        light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def luminance(colour):
    """The relative luminance of an sRGB colour (0 to 255), WCAG 2.2."""
    c = np.array(colour) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
