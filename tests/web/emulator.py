"""The emulator of the terminal page, installed by npm as `make run` does."""

import fcntl
import shutil
import subprocess

import pytest

from proxy.web.terminal import assets


def need_emulator() -> None:
    """Install the emulator unless it is there; skip, saying so, without npm."""
    if assets.load() is not None:
        return
    if shutil.which("npm") is None:
        pytest.skip("optional, not found here: npm")
    with (assets.EMULATOR / ".npmrc").open() as lock:  # by one process at a time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if assets.load() is None:
            command = ["npm", "ci", "--prefix", str(assets.EMULATOR)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
    assert assets.load() is not None
