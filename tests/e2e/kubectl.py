"""The program kubectl, and the age of the cluster that it reaches."""

import json
import re
import subprocess

FOR_OLD = "components/kubernetes-1.20"
"""Below deploy/kubernetes: what a cluster of 1.20 needs."""


def kubectl(*words: str, data: str = "", check: bool = True) -> str:
    """Run a command of kubectl; give its output."""
    done = subprocess.run(["kubectl", *words], input=data, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, f"kubectl {' '.join(words)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def is_old() -> bool:
    """Tell whether the cluster is of a release before 1.21; one built without its tag says v0.0.0."""
    version = json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    minor = re.match(r"v1\.(\d+)", version)
    return minor is None or int(minor[1]) < 21
