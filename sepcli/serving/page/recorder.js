// The microphone as blocks of samples, and a recording of it as a WAV file.

export async function openMicrophone(rate) {
  const sound = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
  let context = new AudioContext(rate ? { sampleRate: rate } : {});
  let source;
  try {
    source = context.createMediaStreamSource(stream);
  } catch {
    await context.close(); // a browser that does not resample microphones: the server does
    context = new AudioContext();
    source = context.createMediaStreamSource(stream);
  }
  await context.audioWorklet.addModule("/page/worklet.js");
  const close = () => {
    stream.getTracks().forEach((track) => track.stop());
    return context.close();
  };
  return { context, source, close };
}

export class Recorder {
  async start() {
    this.microphone = await openMicrophone();
    const { context, source } = this.microphone;
    this.blocks = [];
    this.node = new AudioWorkletNode(context, "live", { channelCount: 1, channelCountMode: "explicit" });
    this.node.port.onmessage = ({ data }) => this.blocks.push(data);
    this.node.port.postMessage({ muted: true });
    source.connect(this.node).connect(context.destination);
  }

  async stop() {
    const rate = this.microphone.context.sampleRate;
    await this.microphone.close();
    return new File([wav(this.blocks, rate)], "recording.wav", { type: "audio/wav" });
  }
}

// Mono float32 WAV of blocks of samples.
export function wav(blocks, rate) {
  const size = 4 * blocks.reduce((sum, block) => sum + block.length, 0);
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  head.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  head.setUint32(16, 16, true);
  head.setUint16(20, 3, true); // IEEE float
  head.setUint16(22, 1, true);
  head.setUint32(24, rate, true);
  head.setUint32(28, 4 * rate, true);
  head.setUint16(32, 4, true);
  head.setUint16(34, 32, true);
  text(36, "data");
  head.setUint32(40, size, true);
  return new Blob([head, ...blocks]);
}
