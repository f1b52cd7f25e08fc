"""A real shell in which `sepcli` starts in milliseconds: a server that has torch loaded forks it.

The script `sepcli` that the shell finds hands its descriptors, arguments and folder over a socket
to the server, which runs the command line in a child with exactly these.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

SHIM = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
about = dict(args=sys.argv[1:], cwd=os.getcwd(), env=dict(os.environ))
socket.send_fds(server, [b"%08d" % len(data := json.dumps(about).encode())], [0, 1, 2])
server.sendall(data)
sys.exit(int(server.recv(8)))
"""


def fewer(args):
    """The arguments of a command, for less work of the same kind: 3 samples, 2 steps."""
    args = list(args)
    for i, word in enumerate(args[:-1]):
        if word in ("-n", "--count", "--items") and args[i + 1].isdigit():
            args[i + 1] = str(min(3, int(args[i + 1])))
    if args[:1] == ["quantize"]:
        args += ["--calib-minutes", "0.05", "--items", "1", "--no-onnx"]
    if args[:1] == ["train"]:
        small = ("train.steps=2", "train.validate_every=2", "train.batch=1")
        small += ("data.train.items=4", "data.valid.items=1")
        args += [word for setting in small for word in ("--set", setting)]
    return args


def _serve(listener):
    """Run the command line for whoever connects, each in a child of its own."""
    import onnxruntime  # noqa: F401
    import torch  # noqa: F401

    from sepcli.cli import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
    while True:
        client, _ = listener.accept()
        if os.fork():
            client.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, fds, *_ = socket.recv_fds(client, 8, 3)
        data = b""
        while len(data) < int(size):
            data += client.recv(65536)
        about = json.loads(data)
        for own, given in enumerate(fds):
            os.dup2(given, own)
            os.close(given)
        os.chdir(about["cwd"])
        os.environ.update(about["env"])
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(fd, mode) for fd, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        code = 1
        try:
            main(fewer(about["args"]), prog_name="sepcli")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        finally:
            try:
                sys.stdout.flush()
            finally:
                client.sendall(b"%d" % code)
                os._exit(0)


class Shell:
    """`run(script)` in `folder`; leave it as a context to stop the server."""

    def __init__(self, folder, programs):
        """programs: {name: shell script}, what stands for programs that may not be installed."""
        self.folder, bin_folder = Path(folder), Path(folder) / ".bin"
        bin_folder.mkdir()
        address = str(bin_folder / "socket")
        programs = {name: f"#!/bin/sh\n{text}\n" for name, text in programs.items()}
        programs["sepcli"] = SHIM.format(python=sys.executable, socket=address)
        for name, text in programs.items():
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod(0o755)
        self._path = f"{bin_folder}:{os.environ['PATH']}"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen()
        code = "import sys, socket; from tests.shell import _serve; "
        code += f"_serve(socket.socket(fileno={listener.fileno()}))"
        self._server = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[listener.fileno()],
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.kill()
        self._server.wait()

    def run(self, script):
        """Run a bash script that stops at the first failure; (exit code, all that it printed)."""
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=os.environ | {"PATH": self._path, "HOME": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        return result.returncode, result.stdout.decode(errors="replace")
