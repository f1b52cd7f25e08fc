"""What is wrong with an export, read from its files alone: keys, limits, places, hazards.

Knows nothing of the plan that made the files. Besides what Analog Devices' tool refuses, it refuses
three things that the tool accepts and its simulator does not show, but which break on silicon: the
junk that an emulated dilated convolution writes below its output, gaps in such an output, and
overwriting what a later layer than the next one still reads.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sepcli.max78000 import limits
from sepcli.quant.chip import HIGH, LOW

GLOBAL_KEYS = {"arch", "dataset", "layers"}
KEYS = {
    "name", "operation", "kernel_size", "pad", "dilation", "activate", "processors",
    "output_processors", "in_offset", "out_offset", "in_sequences", "in_dim", "in_crop",
    "write_gap", "data_format", "output_width", "quantization",
}  # fmt: skip
CONVOLUTION_KEYS = {
    "kernel_size", "pad", "dilation", "activate", "output_width", "quantization",
}  # fmt: skip
OPERATIONS = ("conv1d", "passthrough", "add")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; `layer` is its index, None if it concerns the whole."""

    layer: int | None
    name: str
    text: str

    def __str__(self):
        return self.text if self.layer is None else f"layer {self.layer} ({self.name}): {self.text}"


@dataclass
class _Tensor:
    """What a layer leaves in memory; `start` to `end` is all that it writes."""

    channels: int
    frames: int
    offset: int
    gap: int
    width: int
    mask: int
    start: int
    end: int
    last: int = -1  # layer that reads it


def lint(config: dict[str, Any], checkpoint: dict[str, Any], sample: np.ndarray) -> list[Finding]:
    """List the `Finding`s in network.yaml, checkpoint.pth.tar and sample_input.npy, as loaded."""
    return _Lint(config, checkpoint, sample).findings


class _Lint:
    """One pass over the layers; `tensors` by layer, -1 is the input."""

    layer: Any  # its number; None of what concerns all of them

    def __init__(self, config, checkpoint, sample):
        self.findings, self.layer, self.name = [], None, ""
        self.state = checkpoint.get("state_dict", {})
        self.weights = [key for key in self.state if key.endswith(".weight")]
        self.tensors, self.columns, self.biases = {}, 0, []
        self._whole(config, checkpoint, sample)
        if self.findings:
            return
        layers = config["layers"]
        numbers = {"input": -1, "-1": -1}
        for i, entry in enumerate(layers):
            self.layer, self.name = i, str(entry.get("name", i))
            if not self._keys(entry, numbers):
                return
            numbers[self.name] = numbers[str(i)] = i
        self.sources = [self._sources(entry, i, numbers) for i, entry in enumerate(layers)]
        self._input(layers, sample)
        for i, entry in enumerate(layers):
            self.layer, self.name = i, str(entry.get("name", i))
            if not self._run(entry, last=i == len(layers) - 1):
                return
        self.layer = None
        self._after(layers)

    def say(self, text):
        self.findings.append(Finding(self.layer, self.name, text))

    def _whole(self, config, checkpoint, sample):
        """What concerns the files as such."""
        if unknown := sorted(set(config) - GLOBAL_KEYS):
            self.say(f"unknown keys in network.yaml: {', '.join(unknown)}")
        if missing := sorted(GLOBAL_KEYS - set(config)):
            self.say(f"network.yaml lacks {', '.join(missing)}")
            return
        if not isinstance(checkpoint.get("epoch"), int):
            self.say("the checkpoint lacks `epoch`")
        if str(checkpoint.get("arch")).lower() != str(config["arch"]).lower():
            self.say(f"arch {checkpoint.get('arch')} in the checkpoint, {config['arch']} in YAML")
        if len(config["layers"]) > limits.LAYERS:
            entry = config["layers"][limits.LAYERS]
            self.findings.append(
                Finding(
                    limits.LAYERS,
                    str(entry.get("name", limits.LAYERS)),
                    f"{len(config['layers'])} layers, the chip has {limits.LAYERS}",
                )
            )
        if sample.dtype != np.int64 or sample.ndim not in (2, 3):
            self.say(f"sample input {sample.dtype} {sample.shape}, must be int64 (C, L)")
        elif sample.size == 0 or sample.min() < LOW or sample.max() > HIGH:
            self.say(f"sample input outside {LOW}..{HIGH}")

    def _keys(self, entry, numbers):
        """Names and keys of a layer; whether it makes sense to go on."""
        if self.name in numbers or self.name in ("stop", "input"):
            self.say("this name is taken")
        if unknown := sorted(set(entry) - KEYS):
            self.say(f"unknown keys: {', '.join(unknown)}")
        operation = str(entry.get("operation", "conv2d")).lower()
        if operation not in OPERATIONS:
            self.say(f"operation {operation} is not one of {', '.join(OPERATIONS)}")
            return False
        if operation != "conv1d" and (odd := sorted(CONVOLUTION_KEYS & set(entry))):
            self.say(f"{', '.join(odd)}: only a convolution has these")
        for key in ("processors", "out_offset"):
            if key not in entry:
                self.say(f"lacks `{key}`")
                return False
        if "data_format" in entry and (self.layer or str(entry["data_format"]).upper() != "HWC"):
            self.say("data_format: only HWC, and only in the first layer")
        return True

    def _sources(self, entry, index, numbers):
        """Indices of the layers that a layer reads."""
        named = entry.get("in_sequences", index - 1)
        named = named if isinstance(named, list) else [named]
        return [numbers.get(str(name), index) for name in named]

    def _input(self, layers, sample):
        """The sample as a tensor in memory, where the first layer reads it."""
        channels, frames = sample.shape[0], int(np.prod(sample.shape[1:]))
        offset = layers[0].get("in_offset", 0)
        end = offset + limits.data_bytes(channels, frames)
        mask = layers[0]["processors"]
        self.tensors[-1] = _Tensor(channels, frames, offset, 0, 1, mask, offset, end)
        self._room(self.tensors[-1], "the input")

    def _run(self, entry, last):
        """Check a layer and what it reads, and note what it writes; whether to go on."""
        if any(source not in self.tensors for source in self.sources[self.layer]):
            self.say("in_sequences names a layer that has not run yet")
            return False
        read = [self.tensors[source] for source in self.sources[self.layer]]
        for source in self.sources[self.layer]:
            self.tensors[source].last = self.layer
        crop = entry.get("in_crop", [0, 0])
        self._read(entry, read, crop)
        frames, channels = read[0].frames - sum(crop), read[0].channels
        if not self._length(frames, "input"):
            return False
        operation = entry["operation"].lower()
        dilation, taps = entry.get("dilation", 1), 1
        if operation == "conv1d":
            if not self._weights(entry, channels):
                return False
            channels, _, taps = self.state[self.weights[0]].shape
            self.weights.pop(0)
            self._convolution(entry, taps, dilation)
        shorter = (taps - 1) * dilation - 2 * entry.get("pad", 0) * (operation == "conv1d")
        if not self._length(frames - shorter, "output"):
            return False
        self._written(entry, channels, frames, frames - shorter, taps, last)
        return True

    def _length(self, frames, what):
        if 1 <= frames <= limits.FRAMES:
            return True
        self.say(f"{frames} frames of {what}, the chip takes 1 to {limits.FRAMES}")
        return False

    def _read(self, entry, read, crop):
        """Whether a layer reads its inputs where and as they were written."""
        front, back = crop
        if front and not back:
            self.say(f"in_crop [{front}, 0] leaves nothing in the tool; crop 1 at the end")
        if any(crop) and entry.get("in_dim") != read[0].frames - front - back:
            self.say(f"in_dim {entry.get('in_dim')}, but {read[0].frames - front - back} remain")
        elif "in_dim" in entry and entry["in_dim"] != read[0].frames - front - back:
            self.say(f"in_dim {entry['in_dim']}, but the input has {read[0].frames} frames")
        first = read[0]
        before = first.offset + front * limits.data_bytes(first.channels, 1, gap=first.gap)
        default = self.tensors[self.layer - 1].offset
        if entry.get("in_offset", default) != before:
            self.say(f"in_offset {entry.get('in_offset', default):#x}, the input is at {before:#x}")
        self._mask("processors", entry["processors"], first.channels)
        for tensor in read:
            if tensor.mask != entry["processors"]:
                self.say(f"processors {entry['processors']:#x}, written were {tensor.mask:#x}")
            if tensor.channels != first.channels or tensor.frames != first.frames:
                self.say("the operands differ in shape")
            if tensor.gap != len(read) - 1:
                self.say(f"reads a tensor written with write_gap {tensor.gap}")
            if tensor.width != 1:
                self.say("reads a 32-bit output")
        for n, tensor in enumerate(read):
            if tensor.offset != first.offset + 4 * n:
                self.say(f"operand {n} at {tensor.offset:#x}, must be at {first.offset + 4 * n:#x}")
        if entry["operation"].lower() == "add":
            if not limits.OPERANDS[0] <= len(read) <= limits.OPERANDS[1]:
                self.say(f"{len(read)} operands, a sum has {limits.OPERANDS[0]} or more")
            if first.channels > limits.PROCESSORS:
                self.say(f"{first.channels} channels; where their gaps lie is not documented")
        elif len(read) > 1:
            self.say("in_sequences names several layers, which would be concatenated")

    def _mask(self, key, mask, channels):
        """Whether so many processors hold so many channels."""
        need = limits.processors(channels)
        if mask.bit_count() != need or mask >> limits.PROCESSORS:
            self.say(f"{key} has {mask.bit_count()} bits, {channels} channels need {need}")
        if channels > limits.CHANNELS:
            self.say(f"{channels} channels, the chip has {limits.CHANNELS}")

    def _weights(self, entry, channels):
        """Weights, scales and biases of a convolution; whether there are any that fit."""
        if not self.weights:
            self.say("the checkpoint has no weights left for it")
            return False
        key = self.weights[0]
        weight = self.state[key].numpy()
        if weight.ndim != 3 or weight.shape[1] != channels:
            self.say(f"{key} is {weight.shape}, the input has {channels} channels")
            return False
        base = key.removesuffix(".weight")
        layer = base.removesuffix(".op")
        bits = int(entry.get("quantization", self.state.get(f"{layer}.weight_bits", [8.0])[0]))
        if bits not in (1, 2, 4, 8):
            self.say(f"weights of {bits} bits")
            return False
        if not weight.any() and "quantization" not in entry:
            self.say("all weights are 0: without `quantization` the tool takes them for 1 bit")
        one = 2 ** (bits - 1)
        if (weight != np.round(weight)).any() or weight.min() < -one or weight.max() >= one:
            self.say(f"{key}: not whole numbers from {-one} to {one - 1}")
        if weight.shape[2] != entry.get("kernel_size", 9):
            self.say(f"kernel_size {entry.get('kernel_size', 9)}, {key} has {weight.shape[2]}")
        shift = float(self.state.get(f"{layer}.output_shift", [0.0])[0]) + 8 - bits
        if shift != round(shift) or not limits.SHIFTS[0] <= shift <= limits.SHIFTS[1]:
            self.say(f"shift {shift:g}, the chip has {limits.SHIFTS[0]} to {limits.SHIFTS[1]}")
        if f"{base}.bias" in self.state:
            self._bias(self.state[f"{base}.bias"].numpy(), one, len(weight))
        outputs, inputs, taps = weight.shape
        self.columns = -(-self.columns // 4) * 4
        need = limits.columns(inputs, outputs, taps, entry.get("dilation", 1), bits)
        if self.columns <= limits.COLUMNS < self.columns + need:
            self.say(
                f"its weights end at column {self.columns + need} of {limits.COLUMNS}: the kernel "
                "memory is exhausted"
            )
        self.columns += need
        return True

    def _bias(self, bias, one, outputs):
        if bias.shape != (outputs,) or (bias % one).any():
            self.say(f"bias {bias.shape}, must be {outputs} multiples of {one}")
        elif (bias / one).min() < LOW or (bias / one).max() > HIGH:
            self.say(f"biases outside {LOW}..{HIGH}")
        self.biases.append((outputs, self.layer, self.name))

    def _convolution(self, entry, taps, dilation):
        """What the chip can convolve."""
        pad, activate = entry.get("pad", 1), str(entry.get("activate", "None")).lower()
        emulated = limits.emulated(taps, dilation)
        if not 1 <= taps <= limits.TAPS:
            self.say(f"{taps} taps, the chip has 1 to {limits.TAPS}")
        if "pad" not in entry:
            self.say("lacks `pad`, whose default is 1")
        if not 0 <= pad <= limits.PAD or (pad and pad >= taps):
            self.say(f"pad {pad}, the chip has 0 to {min(limits.PAD, taps - 1)} for {taps} taps")
        if dilation > 1 and taps == 1:
            self.say(f"dilation {dilation}, but there is 1 tap")
        if not 1 <= dilation <= limits.DILATION:
            self.say(f"dilation {dilation}, the chip has 1 to {limits.DILATION}")
        if emulated and (taps > 3 or pad):
            self.say(f"dilation {dilation} with {taps} taps needs 3 taps and pad 0")
        if emulated and entry.get("write_gap", 0):
            self.say(
                f"write_gap after dilation {dilation}: the chip places the output elsewhere; "
                "write the gap in a later layer"
            )
        if activate not in ("relu", "abs", "none"):
            self.say(f"activation {activate}, the chip has ReLU, Abs, None")

    def _written(self, entry, channels, frames_in, frames, taps, last):
        """Note what a layer writes, and whether it may."""
        gap, offset, width = entry.get("write_gap", 0), entry["out_offset"], 1
        dilation = entry.get("dilation", 1)
        if entry.get("output_width", 8) != 8:
            width = 4
            if not last or str(entry.get("activate", "None")).lower() != "none":
                self.say("32 bits only come out of the last layer, without activation")
        mask = entry.get("output_processors", limits.mask(channels))
        if "output_processors" not in entry and not last:
            self.say("lacks `output_processors`; the default is what the next layer reads")
        self._mask("output_processors", mask, channels)
        if entry["operation"].lower() != "conv1d" and mask != entry["processors"]:
            self.say("output_processors differ from processors, but nothing is convolved")
        if gap and channels > limits.PROCESSORS:
            self.say(f"write_gap with {channels} channels is not documented")
        start, end = offset, offset + limits.data_bytes(channels, frames, gap=gap, width=width)
        if limits.emulated(taps, dilation):
            in_all = limits.emulated_bytes(channels, frames_in, dilation)
            if offset + in_all > limits.INSTANCE_BYTES:
                self.say(f"out_offset {offset:#x} leaves no {in_all:,} bytes for dilation")
            start -= limits.junk(channels, dilation)
            end = max(end, start + in_all)
        tensor = _Tensor(channels, frames, offset, gap, width, mask, start, end)
        self._room(tensor, "the output")
        for source, other in self.tensors.items():
            needed = [i for i in range(self.layer, len(self.sources)) if source in self.sources[i]]
            if needed and _overlap(tensor, other):
                what = "the input" if source < 0 else f"layer {source}'s output"
                self.say(
                    f"writes {start:#x}..{end:#x} over {what} at {other.start:#x}..{other.end:#x}, "
                    f"which layer {needed[-1]} still reads"
                )
        self.tensors[self.layer] = tensor

    def _room(self, tensor, what):
        if tensor.offset % 4:
            self.say(f"{what} at {tensor.offset:#x}, which is not a multiple of 4")
        if tensor.start < 0 or tensor.end > limits.INSTANCE_BYTES:
            self.say(
                f"{what} takes {tensor.start:#x}..{tensor.end:#x}, an instance of data memory has "
                f"0..{limits.INSTANCE_BYTES:#x}"
            )

    def _after(self, layers):
        """What only the whole network tells."""
        used = self.tensors[len(layers) - 1].mask
        for entry in layers:
            used |= entry["processors"]
        if not used & 0xFFFF:
            self.say("nothing uses the processors 0 to 15")
        free = [
            limits.BIAS_GROUP_BYTES if used >> 16 * group & 0xFFFF else 0
            for group in range(limits.BIAS_GROUPS)
        ]
        for need, layer, name in sorted(self.biases, key=lambda bias: (-bias[0], bias[1])):
            group = free.index(max(free))
            if need > free[group]:
                text = f"{need} biases, but the best group of bias memory has {free[group]} left"
                self.findings.append(Finding(layer, name, text))
                break
            free[group] -= need


def _overlap(one, other):
    """Whether two tensors share a word; those written in turn do not."""
    if one.start >= other.end or other.start >= one.end:
        return False
    turns = one.gap + 1
    apart = one.gap == other.gap > 0 and (one.offset - other.offset) // 4 % turns
    return not apart
