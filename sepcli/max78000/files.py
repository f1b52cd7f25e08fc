"""A plan in the files of Analog Devices' tools: the network's YAML, and its checkpoint."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch

from sepcli.max78000.plan import Plan
from sepcli.quant.chip import INPUT, ChipLayer, ChipNetwork

ARCH = "tcn_max78000"
OPERATIONS = {"conv": "Conv1d", "keep": "Passthrough", "add": "Add"}
HEX = {"processors": 16, "output_processors": 16, "in_offset": 4, "out_offset": 4}  # digits


def config(plan: Plan) -> dict[str, Any]:
    """What network.yaml says, as a dict."""
    layers = [_layer(plan, i) for i in range(len(plan.steps))]
    return {"arch": ARCH, "dataset": "sepcli", "layers": layers}


def _layer(plan, index):
    """The keys of one layer; all that have defaults are given where these could mislead."""
    step = plan.steps[index]
    layer, written = step.layer, step.written
    entry = {"name": layer.name, "operation": OPERATIONS[layer.kind]}
    if index == 0:
        entry["data_format"] = "HWC"
    before = plan.steps[index - 1].layer.name if index else INPUT
    if len(layer.inputs) > 1:
        entry["in_sequences"] = list(layer.inputs)
    elif layer.inputs != (before,) or layer.crop[0]:  # or the tool warns of the offset
        entry["in_sequences"] = layer.inputs[0]
    if any(layer.crop):
        entry |= {"in_dim": step.frames_in, "in_crop": list(layer.crop)}
    entry |= {
        "processors": step.read[0].mask,
        "output_processors": written.mask,
        "in_offset": step.in_offset,
        "out_offset": written.offset,
    }
    if written.gap:
        entry["write_gap"] = written.gap
    if layer.weight is not None:
        entry |= {"kernel_size": layer.weight.shape[2], "pad": 0}
        if layer.dilation > 1 and layer.weight.shape[2] > 1:
            entry["dilation"] = layer.dilation
        entry["activate"] = "ReLU" if layer.relu else "None"
        entry["quantization"] = layer.weight_bits  # or the tool takes 1 where all weights are 0
    return entry


def yaml(config: dict[str, Any]) -> str:
    """The text of network.yaml."""
    lines = ["---", f"arch: {config['arch']}", f"dataset: {config['dataset']}", "", "layers:"]
    for entry in config["layers"]:
        pairs = [f"{key}: {_value(key, value)}" for key, value in entry.items()]
        lines += [f"  - {pairs[0]}", *(f"    {pair}" for pair in pairs[1:])]
    return "\n".join([*lines, ""])


def _value(key, value):
    if key in HEX:
        return f"0x{value:0{HEX[key]}x}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def checkpoint(network: ChipNetwork) -> dict[str, Any]:
    """The dict that checkpoint.pth.tar holds: all numbers are integers, as float32."""
    state = OrderedDict()
    for layer in network.layers:
        if layer.weight is None:
            continue
        state[f"{layer.name}.op.weight"] = torch.tensor(layer.weight, dtype=torch.float32)
        if layer.bias is not None:
            one = 2 ** (layer.weight_bits - 1)  # biases are scaled as weights are
            state[f"{layer.name}.op.bias"] = one * torch.tensor(layer.bias, dtype=torch.float32)
        state[f"{layer.name}.output_shift"] = torch.tensor([float(layer.output_shift)])
        state[f"{layer.name}.weight_bits"] = torch.tensor([float(layer.weight_bits)])
    return {"epoch": 0, "arch": ARCH, "state_dict": state}


def network(config: dict[str, Any], checkpoint: dict[str, Any]) -> ChipNetwork:
    """The `ChipNetwork` that the files describe, without padding; undoes the two above."""
    state, layers = checkpoint["state_dict"], []
    weights = iter(key.removesuffix(".op.weight") for key in state if key.endswith(".op.weight"))
    kinds = {operation: kind for kind, operation in OPERATIONS.items()}
    for entry in config["layers"]:
        inputs = entry.get("in_sequences", layers[-1].name if layers else INPUT)
        more = {}
        if kinds[entry["operation"]] == "conv":
            more = _stored(state, next(weights))
            more |= {"relu": entry["activate"] == "ReLU", "dilation": entry.get("dilation", 1)}
        layers.append(
            ChipLayer(
                entry["name"],
                kinds[entry["operation"]],
                tuple(inputs) if isinstance(inputs, list) else (inputs,),
                crop=tuple(entry.get("in_crop", (0, 0))),
                **more,
            )
        )
    first = next(iter(state.values()))
    return ChipNetwork(first.shape[1], tuple(layers))


def _stored(state, name):
    """What the checkpoint has of one layer."""
    bits, bias = int(state[f"{name}.weight_bits"][0]), state.get(f"{name}.op.bias")
    return {
        "weight": state[f"{name}.op.weight"].numpy().astype(np.int8),
        "bias": None if bias is None else (bias.numpy() / 2 ** (bits - 1)).astype(np.int8),
        "output_shift": int(state[f"{name}.output_shift"][0]),
        "weight_bits": bits,
    }
