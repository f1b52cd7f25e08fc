// Sends what it hears in blocks, and plays what it is sent; or, bypassed, what it hears.

const RAMP_S = 0.01;
const MOST_S = 0.5; // of sound that waits to be played; more is late, and left out
const START_S = 0.04; // waits before it begins, so that small delays of the network do not crackle

class Live extends AudioWorkletProcessor {
  constructor({ processorOptions = {} }) {
    super();
    this.size = processorOptions.block ?? 1024;
    this.heard = new Float32Array(this.size);
    this.filled = 0;
    this.queue = [];
    this.waiting = 0;
    this.running = false;
    this.dry = 0; // share of what is heard in what is played
    this.wanted = { bypass: false, muted: false };
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(data) {
    if (!(data instanceof Float32Array)) {
      Object.assign(this.wanted, data);
      return;
    }
    this.queue.push(data);
    this.waiting += data.length;
    while (this.waiting > MOST_S * sampleRate) this.waiting -= this.queue.shift().length;
  }

  process([input], [output]) {
    const heard = input[0];
    if (!heard) return true;
    this.keep(heard);
    if (this.wanted.muted) return true;
    if (!this.running && this.waiting >= START_S * sampleRate) this.running = true;
    const played = output[0];
    const step = 1 / (RAMP_S * sampleRate);
    for (let i = 0; i < played.length; i++) {
      this.dry = this.wanted.bypass ? Math.min(1, this.dry + step) : Math.max(0, this.dry - step);
      played[i] = this.dry * heard[i] + (1 - this.dry) * this.next();
    }
    for (const channel of output.slice(1)) channel.set(played);
    return true;
  }

  keep(heard) {
    for (const sample of heard) {
      this.heard[this.filled++] = sample;
      if (this.filled === this.size) {
        this.port.postMessage(this.heard.slice());
        this.filled = 0;
      }
    }
  }

  next() {
    if (!this.running) return 0;
    if (!this.queue.length) {
      this.running = false;
      return 0;
    }
    this.at = (this.at ?? 0) + 1;
    const sample = this.queue[0][this.at - 1];
    this.waiting--;
    if (this.at === this.queue[0].length) {
      this.queue.shift();
      this.at = 0;
    }
    return sample;
  }
}

registerProcessor("live", Live);
