// The list of tracks: waveforms, spectrograms, and what can be done to each.

import { blobUrl, save } from "./api.js";

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

export function trackItem(track, player, about, peaks, number) {
  const item = make("li");
  const mute = toggle("Mute", track.muted, (on) => (track.muted = on), player);
  const solo = toggle("Solo", track.solo, (on) => (track.solo = on), player);
  mute.setAttribute("aria-keyshortcuts", String(number));
  solo.setAttribute("aria-keyshortcuts", `Shift+${number}`);
  const volume = make("input", { type: "range", min: 0, max: 1.5, step: 0.01, value: 1 });
  volume.addEventListener("input", () => {
    track.volume = Number(volume.value);
    player.apply();
  });
  const link = make("a", { href: about.url, download: "", textContent: "Download" });
  link.addEventListener("click", (event) => {
    event.preventDefault();
    save(about.url, about.filename);
  });
  const picture = make("div", { className: "picture" });
  const canvas = make("canvas", { width: peaks.length, height: 96 });
  const now = make("div", { className: "now" });
  picture.append(canvas, now);
  if (about.spectrogram) {
    const image = make("img", { alt: `Spectrogram of ${track.name}` });
    blobUrl(about.spectrogram).then((url) => (image.src = url));
    picture.append(image);
  }
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Waveform of ${track.name}`);
  draw(canvas, peaks);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(canvas, peaks));
  picture.addEventListener("pointerdown", (event) => {
    const box = picture.getBoundingClientRect();
    player.seek(((event.clientX - box.left) / box.width) * player.duration);
  });
  const name = make("h3", { textContent: `${number} ${track.name}` });
  const group = make("div", { className: "row" }, name, mute, solo);
  group.append(make("label", { className: "grow" }, "Volume ", volume), link);
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", track.name);
  item.append(group, picture);
  return { item, mute, solo, now };
}

function toggle(label, pressed, set, player) {
  const button = make("button", { type: "button", textContent: label });
  button.setAttribute("aria-pressed", String(pressed));
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    set(on);
    player.apply();
  });
  return button;
}

function draw(canvas, peaks) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(document.body).getPropertyValue("--wave");
  const level = (value) => (1 - Math.max(-1, Math.min(1, value))) * (height / 2);
  peaks.forEach(([low, high], column) => {
    context.fillRect(column, level(high), 1, Math.max(1, level(low) - level(high)));
  });
}
