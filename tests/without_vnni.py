"""Run a command as if this x86 processor had no VNNI, for ONNX Runtime: its kernels saturate then.

    python -m tests.without_vnni pytest tests/test_qdq.py
    python -m tests.without_vnni --avx2 pytest tests/test_qdq.py

A temporary copy of ONNX Runtime gets other instructions in place of CPUID, which
tests/without_vnni.c answers. --avx2 hides AVX-512, too. First it is shown that the kernels do
saturate: 255 * 127 twice is more than 16 bits hold. Needs gcc and objdump.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"
STARTS = range(24, 48, 3)  # bytes before a place from which it is disassembled
PROVE = """
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper
shapes = ("a", TensorProto.UINT8, [16, 64]), ("b", TensorProto.INT8, [64, 32])
ends = [helper.make_tensor_value_info(*each) for each in shapes]
out = helper.make_tensor_value_info("y", TensorProto.INT32, [16, 32])
node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
graph = helper.make_graph([node], "x", ends, [out])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString())
feeds = {"a": np.full((16, 64), 255, np.uint8), "b": np.full((64, 32), 127, np.int8)}
print(int(session.run(None, feeds)[0][0, 0]))
"""
EXACT = 64 * 255 * 127
SATURATED = 32 * 32767


def is_instruction(data: bytes | bytearray, place: int, scratch: Path) -> bool:
    """Whether the bytes at a place of some code are a CPUID, and not a part of something else."""
    seen = 0
    for before in STARTS:  # wherever one begins, instructions are soon told apart
        scratch.write_bytes(data[max(0, place - before) : place + 2])
        text = subprocess.run(
            ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", str(scratch)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        seen += text.rstrip().endswith("cpuid")
    return seen > len(STARTS) // 2


def code_of(library: Path) -> list[tuple[int, int]]:
    """(where in the file, where it ends) of the sections with instructions."""
    told = subprocess.run(
        ["objdump", "-h", "-w", str(library)], capture_output=True, text=True, check=True
    ).stdout
    sections = [line.split() for line in told.splitlines() if " CODE" in line]
    return [(int(each[5], 16), int(each[5], 16) + int(each[2], 16)) for each in sections]


def patch(library: Path) -> int:
    """Replace the CPUID instructions of a library; returns how many there are."""
    data, scratch = bytearray(library.read_bytes()), library.with_suffix(".code")
    places = [
        start + match.start()
        for start, stop in code_of(library)
        for match in re.finditer(re.escape(CPUID), data[start:stop])
    ]
    found = [place for place in places if is_instruction(data, place, scratch)]
    for place in found:
        data[place : place + 2] = UD2
    library.write_bytes(data)
    return len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command without VNNI in ONNX Runtime.")
    parser.add_argument("--avx2", action="store_true", help="hide AVX-512, too")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    import onnxruntime

    package = Path(str(onnxruntime.__file__)).parent
    with tempfile.TemporaryDirectory(prefix="without-vnni-") as folder:
        copy = Path(folder, "onnxruntime")
        shutil.copytree(package, copy)
        count = sum(patch(path) for path in copy.glob("capi/*pybind11_state*.so"))
        shim = Path(folder, "without_vnni.so")
        gcc = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(shim), str(HERE / "without_vnni.c")]
        subprocess.run([*gcc, "-ldl"], check=True)
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        env = os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": os.pathsep.join(paths)}
        env |= {"NO_AVX512": "1"} if args.avx2 else {}
        proof = subprocess.run([sys.executable, "-c", PROVE], env=env, stdout=subprocess.PIPE)
        told = int(proof.stdout or 0)
        print(f"{count} CPUIDs answered; 64 products: {told} of {EXACT}", file=sys.stderr)
        if told != SATURATED:
            print("Error: the kernels do not saturate: nothing would be shown", file=sys.stderr)
            return 2
        return subprocess.run(args.command, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
