"""Tasks for the workers of a cluster, which find them here."""

import os
import signal
import time
from pathlib import Path

from sepcli import files
from sepcli.errors import SepcliError


class Written:
    """Writes a file for each task, and notes every start; done twice, it is as done once."""

    def __init__(self, folder, *, fatal=(), always=False, seconds=0.0):
        """fatal: tasks that kill their worker, the first time or `always`."""
        self.folder, self.fatal, self.always, self.seconds = Path(folder), fatal, always, seconds

    def __call__(self, number):
        with open(self.folder / "starts", "a") as starts:
            starts.write(f"{number}\n")
        if number in self.fatal and (self.always or self._is_first(number)):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        files.save(self.folder / f"{number}.out", f"{number * number}")
        return number * number

    def _is_first(self, number):
        try:
            (self.folder / f"{number}.met").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Failing:
    """Fails at task 3 the first time, and at task 5 every time."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, number):
        attempts = self.folder / f"{number}.attempts"
        with attempts.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if number == 5 or (number == 3 and attempts.read_text().count("\n") == 1):
            return {"error": "it did not work"}
        if number == 7:
            raise SepcliError("7.wav: broken")
        return {"number": number}
