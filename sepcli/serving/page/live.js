// The microphone through the server and back.

import { openStream } from "./api.js";
import { openMicrophone } from "./recorder.js";

export class Live {
  // tell: gets {event: "ready" | "closed" | "error" | "levels", ...}
  constructor(tell) {
    this.tell = tell;
  }

  async start(model, rate) {
    this.microphone = await openMicrophone(rate);
    const { context } = this.microphone;
    this.socket = openStream({ model, rate: context.sampleRate });
    this.sent = [];
    this.socket.onmessage = (event) => this.take(event.data);
    this.socket.onclose = ({ code }) => this.end(code === 1000 || code === 1005 ? null : this.why);
    this.socket.onerror = () => (this.why ??= "the server refused the stream; try again later");
  }

  take(data) {
    if (typeof data === "string") {
      const told = JSON.parse(data);
      if (told.event === "ready") this.connect(told);
      if (told.event === "error") this.why = told.error;
      return;
    }
    const samples = new Float32Array(data);
    const began = this.sent.shift();
    this.roundTrip = performance.now() - began;
    this.tell({ event: "levels", out: level(samples), roundTrip: this.roundTrip });
    if (samples.length) this.node.port.postMessage(samples);
  }

  connect(told) {
    const { context, source } = this.microphone;
    const options = { channelCount: 1, channelCountMode: "explicit" };
    const block = Math.max(128, told.hop);
    this.node = new AudioWorkletNode(context, "live", { ...options, processorOptions: { block } });
    this.node.port.onmessage = ({ data }) => {
      if (this.socket.readyState !== WebSocket.OPEN) return;
      this.sent.push(performance.now());
      this.socket.send(data);
      this.tell({ event: "levels", in: level(data) });
    };
    source.connect(this.node).connect(context.destination);
    this.tell(told);
  }

  bypass(on) {
    this.node?.port.postMessage({ bypass: on });
  }

  stop() {
    this.socket?.close(1000);
    this.end(null);
  }

  end(problem) {
    if (!this.microphone) return;
    this.microphone.close();
    this.microphone = null;
    this.tell({ event: "closed", problem });
  }
}

// RMS in dB re full scale.
export function level(samples) {
  const power = samples.reduce((sum, x) => sum + x * x, 0) / Math.max(1, samples.length);
  return 10 * Math.log10(power + 1e-12);
}
