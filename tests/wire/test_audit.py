"""What ssh-audit says of the algorithms that are offered: by a policy, and warning by warning."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire.harness import Fairlead

POLICY = Path(__file__).parents[2] / "deploy" / "ssh-audit.policy"
SSH_AUDIT = Path(sys.executable).with_name("ssh-audit")

NIST = "no weakness of the NIST curves is known, and clients without Curve25519 have nothing better"
CLASSIC = "clients from before 2022 have no post-quantum exchange; those that have one are offered it first"
ACCEPTED = {
    "mlkem768nistp256-sha256": NIST,
    "mlkem1024nistp384-sha384": NIST,
    "curve25519-sha256": CLASSIC,
    "curve25519-sha256@libssh.org": CLASSIC,
    "ecdh-sha2-nistp256": f"{NIST}; {CLASSIC}",
    "ecdh-sha2-nistp384": f"{NIST}; {CLASSIC}",
    "ecdh-sha2-nistp521": f"{NIST}; {CLASSIC}",
    "diffie-hellman-group16-sha512": CLASSIC,
    "diffie-hellman-group18-sha512": CLASSIC,
    "diffie-hellman-group14-sha256": "RFC 9142 requires it, and 112 bits are enough; the last one offered",
    "ecdsa-sha2-nistp256": f"{NIST}; its nonces come from OpenSSL",
}
"""Each algorithm of which ssh-audit warns, and why it stays."""


@pytest.fixture(scope="module", params=["aes-gcm preferred", "every cipher"])
def audited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fairlead]:
    """Run a proxy that offers its ciphers to ssh-audit as to OpenSSH, and one that offers all to all."""
    server = Fairlead(tmp_path_factory.mktemp("audited"))
    if request.param == "every cipher":
        server.extra_env["FAIRLEAD_SSH__PREFER_AES_GCM"] = "false"
    server.prepare()
    try:
        server.start()
        yield server
    finally:
        server.close()


def audit(server: Fairlead, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SSH_AUDIT, "--skip-rate-test", "-n", "-t", "60", "-p", str(server.port), *options, "127.0.0.1"],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
    )


def warnings(report: dict[str, Any]) -> dict[str, list[str]]:
    """Return what ssh-audit has against each algorithm of a JSON report."""
    found: dict[str, list[str]] = {}
    for kind in ("kex", "key", "enc", "mac"):
        assert report[kind], f"ssh-audit saw no {kind}"
        for entry in report[kind]:
            notes = entry["notes"]
            if said := [*notes.get("fail", []), *notes.get("warn", [])]:
                found[entry["algorithm"]] = said
    return found


def test_ssh_audit_finds_what_its_policy_says(audited: Fairlead) -> None:
    done = audit(audited, "-P", str(POLICY))
    assert done.returncode == 0, done.stdout


def test_every_warning_of_ssh_audit_has_a_reason_to_stay(audited: Fairlead) -> None:
    done = audit(audited, "-j")
    report = json.loads(done.stdout)
    found = warnings(report)
    assert found.keys() == ACCEPTED.keys(), found
    assert not report["cves"]


def test_the_policy_refuses_a_server_that_offers_encrypt_and_mac(tmp_path: Path) -> None:
    server = Fairlead(tmp_path)
    server.extra_env["FAIRLEAD_SSH__MACS"] = '["hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"]'
    server.prepare()
    try:
        server.start()
        refused = audit(server, "-P", str(POLICY))
        assert refused.returncode == 3, refused.stdout
        assert "hmac-sha2-256" in refused.stdout
        # An operator who adds it reaches the old client that needs it.
        old = server.ssh("echo in", "-c", "aes128-ctr", "-o", "MACs=hmac-sha2-256")
        assert old.stdout == b"in\n", old.stderr
    finally:
        server.close()
