"""Nothing that opens a door is ever written down: not by us, not by a library, not in a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRILL = Path(__file__).parent / "secrecy_drill.py"
ROOT = DRILL.parent.parent.parent


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_token_code_or_cookie_reaches_a_log_or_an_error(form: str) -> None:
    command = [sys.executable, "-m", "tests.contract.secrecy_drill", form]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    told = json.loads(done.stdout)
    secrets = [secret for secret in told["secrets"] if len(secret) >= 8]
    assert len(secrets) > 30, "the drill had secrets to keep"
    assert "onboarded" in done.stderr, "the drill was logged"
    assert "planted" in done.stderr, "and so were the bugs"
    assert len(told["errors"]) >= 8
    written = done.stderr + "\n".join(told["errors"])
    assert [secret for secret in secrets if secret in written] == []
