// The page: what its controls do.

import * as api from "./api.js";
import { Live } from "./live.js";
import { Player } from "./player.js";
import { Recorder } from "./recorder.js";
import { trackItem } from "./tracks.js";

const $ = (id) => document.getElementById(id);
const state = { facts: {}, defaults: {}, file: null, job: null, player: null, items: [] };
window.sepcli = state; // for tests, and for those who look

async function begin() {
  try {
    const { models, defaults } = await api.models();
    Object.assign(state, { facts: models, defaults });
    $("access").hidden = true;
    offer($("model"), Object.keys(models), defaults.separate ?? defaults.extract);
    const live = Object.keys(models).filter((name) => models[name].causal && !models[name].takes_reference);
    offer($("live-model"), live, defaults.enhance);
    $("live").hidden = !live.length;
    chosen();
  } catch (error) {
    $("access").hidden = error.status !== 401;
    if (error.status !== 401) $("problem").textContent = error.message;
    else $("token").focus();
  }
}

function offer(select, names, first) {
  select.replaceChildren(...names.map((name) => {
    const about = state.facts[name];
    const option = new Option(`${name}: ${about.sources.join(", ")}`, name);
    option.selected = name === first;
    return option;
  }));
}

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useToken($("token").value);
  begin();
});

// The upload

function chosen() {
  const takes = state.facts[$("model").value]?.takes_reference;
  $("reference-field").hidden = !takes;
  const ready = state.file && (!takes || $("reference").files.length);
  $("start").disabled = !ready || Boolean(state.job);
  $("chosen").textContent = state.file ? state.file.name : "";
}

function take(file) {
  if (!file) return;
  state.file = file;
  chosen();
  $("start").focus();
}

$("file").addEventListener("change", () => take($("file").files[0]));
$("reference").addEventListener("change", chosen);
$("model").addEventListener("change", chosen);
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}

let recorder = null;
$("record").addEventListener("click", async () => {
  const button = $("record");
  try {
    if (recorder) {
      const file = await recorder.stop();
      recorder = null;
      take(file);
    } else {
      const started = new Recorder();
      await started.start();
      recorder = started;
    }
  } catch (error) {
    $("problem").textContent = `The microphone cannot be used: ${error.message}`;
  }
  button.setAttribute("aria-pressed", String(Boolean(recorder)));
  button.textContent = recorder ? "Stop recording" : "Record the microphone";
});

$("upload").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("problem").textContent = "";
  try {
    await separate();
  } catch (error) {
    if (error.name !== "AbortError") $("problem").textContent = error.message;
    $("status").textContent = "";
  }
  state.job = null;
  busy(false);
});

async function separate() {
  const form = new FormData();
  form.append("file", state.file);
  form.append("model", $("model").value);
  form.append("views", "true");
  form.append("residual", String($("residual").checked));
  const takes = state.facts[$("model").value].takes_reference;
  for (const file of takes ? $("reference").files : []) form.append("reference", file);
  busy(true);
  tell({ state: "uploading", progress: 0 });
  state.job = await api.begin(takes ? "extract" : "separate", form);
  const abort = new AbortController();
  $("cancel").onclick = () => {
    api.remove(state.job);
    abort.abort();
  };
  const job = await api.follow(state.job, tell, abort.signal);
  if (job.state !== "done") throw new Error(job.error ?? "The job was deleted.");
  await show(job);
}

function busy(on) {
  $("cancel").hidden = $("progress").hidden = !on;
  chosen();
}

function tell(job) {
  $("progress").value = job.progress;
  const percent = Math.round(100 * job.progress);
  const words = {
    uploading: "Uploading…",
    queued: `Waiting for ${job.position ?? 0} other jobs…`,
    running: `Separating… ${percent} %`,
    done: "Done.",
    failed: "Failed.",
  };
  // A screen reader reads every change, so that only every tenth percent is one.
  if (job.state !== "running" || percent % 10 === 0 || !$("status").textContent.startsWith("Sep")) {
    $("status").textContent = words[job.state] ?? job.state;
  }
}

// The player

async function show(job) {
  state.player?.halt();
  await state.player?.context.close();
  const context = new AudioContext({ sampleRate: job.sample_rate });
  const player = new Player(context);
  const peaks = await (await api.ask(job.links.peaks)).json();
  const buffers = await Promise.all(
    job.stems.map(async (stem) => context.decodeAudioData(await api.bytes(stem.url))));
  state.items = job.stems.map((stem, index) => {
    const track = player.add(stem.name, buffers[index]);
    track.muted = stem.name === "mixture"; // its stems are heard
    const filename = `${job.name}-${stem.name}.wav`;
    return trackItem(track, player, { ...stem, filename }, peaks[stem.name], index + 1);
  });
  player.apply(0);
  $("tracks").replaceChildren(...state.items.map(({ item }) => item));
  $("all").onclick = (event) => {
    event.preventDefault();
    api.save(job.links.result, `${job.name}.zip`, { Accept: "application/zip" });
  };
  $("all").href = job.links.result;
  $("seek").max = player.duration;
  $("loop").checked = false;
  loopRange = [0, player.duration];
  state.player = player;
  state.done = job;
  $("player").hidden = false;
  $("play").focus();
}

let loopRange = [0, 0];
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

function applyLoop() {
  const [begin, end] = loopRange;
  const whole = begin === 0 && end === state.player.duration;
  $("loop-range").textContent = whole ? "" : `${clock(begin)} to ${clock(end)}`;
  state.player.setLoop($("loop").checked ? loopRange : null);
}

function setLoop(which) {
  const at = state.player.position;
  const range = [...loopRange];
  range[which] = at;
  if (range[0] >= range[1]) range[1 - which] = which ? 0 : state.player.duration;
  loopRange = range;
  $("loop").checked = true;
  applyLoop();
}

async function playOrStop() {
  const { player } = state;
  await player.context.resume();
  player.playing ? player.stop() : player.play();
  frame();
}

function frame() {
  const { player } = state;
  if (!player) return;
  const at = player.position;
  const ended = player.playing && !player.loop && at >= player.duration;
  if (ended) player.stop();
  $("play").textContent = player.playing ? "Stop" : "Play";
  $("play").setAttribute("aria-pressed", String(player.playing));
  $("seek").value = at;
  $("seek").setAttribute("aria-valuetext", clock(at));
  $("time").textContent = `${clock(at)} / ${clock(player.duration)}`;
  for (const { now } of state.items) now.style.left = `${(100 * at) / player.duration}%`;
}
setInterval(frame, 50);

$("play").addEventListener("click", playOrStop);
$("seek").addEventListener("input", () => state.player.seek(Number($("seek").value)));
$("loop").addEventListener("change", applyLoop);
$("loop-start").addEventListener("click", () => setLoop(0));
$("loop-end").addEventListener("click", () => setLoop(1));
$("view").addEventListener("change", () => ($("tracks").dataset.view = $("view").value));

document.addEventListener("keydown", (event) => {
  const { player } = state;
  const typing = event.target.closest("input:not([type=range]):not([type=checkbox]), select");
  if (!player || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const digit = /^Digit([1-9])$/.exec(event.code)?.[1];
  const moves = { ArrowLeft: -5, ArrowRight: 5 };
  if (event.code === "Space" && !event.target.closest("button, a, input")) playOrStop();
  else if (event.key === "[") setLoop(0);
  else if (event.key === "]") setLoop(1);
  else if (event.key in moves && event.target.type !== "range") {
    player.seek(player.position + moves[event.key]);
  } else if (digit && state.items[digit - 1]) {
    state.items[digit - 1][event.shiftKey ? "solo" : "mute"].click();
  } else return;
  event.preventDefault();
});

// The microphone, live

let live = null;

function hear(told) {
  if (told.event === "levels") {
    if (told.in !== undefined) $("level-in").value = told.in;
    if (told.out !== undefined) $("level-out").value = told.out;
    return;
  }
  const on = told.event === "ready";
  $("live-start").textContent = on ? "Stop" : "Start";
  $("live-start").setAttribute("aria-pressed", String(on));
  $("bypass").disabled = !on;
  $("bypass").setAttribute("aria-pressed", "false");
  $("live-status").textContent = on ? `Running, ${Math.round(told.latency_ms)} ms late.` : "Stopped.";
  if (!on) live = null;
  if (told.problem) $("live-problem").textContent = told.problem;
}

$("live-start").addEventListener("click", async () => {
  $("live-problem").textContent = "";
  if (live) {
    live.stop();
    return;
  }
  const model = $("live-model").value;
  live = new Live(hear);
  state.live = live;
  try {
    await live.start(model, state.facts[model].sample_rate);
    $("live-status").textContent = "Connecting…";
  } catch (error) {
    live = null;
    $("live-problem").textContent = `The microphone cannot be used: ${error.message}`;
  }
});

$("bypass").addEventListener("click", () => {
  const on = $("bypass").getAttribute("aria-pressed") !== "true";
  $("bypass").setAttribute("aria-pressed", String(on));
  live?.bypass(on);
});

begin();
