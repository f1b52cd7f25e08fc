"""What worker processes are given to do in tests: light, as each of them imports it."""

import os
import signal
import threading

from sepcli.errors import SepcliError


def square(n):
    return n * n


def with_pid(n):
    return n, os.getpid()


def refuse_5(n):
    if n == 5:
        raise SepcliError("five: too many; take four")
    return n


def fail(n):
    return 1 / n


def die(n):
    os._exit(3)


def kill_itself_at_3(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def need_too_much(n):
    raise MemoryError


def echo(payload):
    return payload[::-1]


def interrupt_and_wait(n):
    os.kill(os.getppid(), signal.SIGINT)
    threading.Event().wait()
