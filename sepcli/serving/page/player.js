// All tracks in one AudioContext: every play starts one source per track at the same sample.

const RAMP_S = 0.01;
const AHEAD_S = 0.05;

export class Player {
  // context: an AudioContext at the rate of the sound, so that nothing is resampled.
  constructor(context) {
    this.context = context;
    this.tracks = [];
    this.sources = [];
    this.offset = 0; // of the sound, in seconds, where it stands or began to play
    this.startedAt = null; // time of the context
    this.loop = null; // [begin, end] in seconds
  }

  add(name, buffer) {
    const gain = this.context.createGain();
    gain.connect(this.context.destination);
    const track = { name, buffer, gain, volume: 1, muted: false, solo: false };
    this.tracks.push(track);
    this.apply(0);
    return track;
  }

  get duration() {
    return Math.max(0, ...this.tracks.map((track) => track.buffer.duration));
  }

  get playing() {
    return this.startedAt !== null;
  }

  get position() {
    if (!this.playing) return this.offset;
    const at = this.offset + Math.max(0, this.context.currentTime - this.startedAt);
    if (!this.loop || this.offset >= this.loop[1]) return Math.min(at, this.duration);
    const [begin, end] = this.loop;
    return at < end ? at : begin + ((at - begin) % (end - begin));
  }

  play() {
    if (this.playing) return;
    if (this.offset >= this.duration) this.offset = 0;
    const when = this.context.currentTime + AHEAD_S;
    this.sources = this.tracks.map((track) => {
      const source = this.context.createBufferSource();
      source.buffer = track.buffer;
      if (this.loop) {
        source.loop = true;
        [source.loopStart, source.loopEnd] = this.loop;
      }
      source.connect(track.gain);
      source.start(when, this.offset);
      return source;
    });
    this.startedAt = when;
  }

  stop() {
    this.offset = this.position;
    this.halt();
  }

  halt() {
    for (const source of this.sources) {
      source.stop();
      source.disconnect();
    }
    this.sources = [];
    this.startedAt = null;
  }

  seek(seconds) {
    const playing = this.playing;
    this.halt();
    this.offset = Math.min(Math.max(0, seconds), this.duration);
    if (playing) this.play();
  }

  setLoop(range) {
    const at = this.position;
    this.loop = range;
    this.seek(at);
  }

  // What each track plays at: its volume, nothing if it is muted or others are alone.
  apply(ramp = RAMP_S) {
    const alone = this.tracks.some((track) => track.solo);
    const now = this.context.currentTime;
    for (const track of this.tracks) {
      const heard = track.solo || (!alone && !track.muted);
      const { gain } = track.gain;
      gain.cancelScheduledValues(now);
      gain.setValueAtTime(gain.value, now);
      gain.linearRampToValueAtTime(heard ? track.volume : 0, now + ramp);
    }
  }
}
