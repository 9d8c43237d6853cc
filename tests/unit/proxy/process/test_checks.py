"""The runner of checks, and the checks that need nothing but files."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
import structlog.testing

from proxy.errors.stores import StoreError
from proxy.process.checks import Check, Finding, Status, Verdict, ok, run
from proxy.process.checks.everything import StandingChecks, check_all
from proxy.process.checks.files import writable
from proxy.settings import load
from tests.unit.proxy.commandline import Run


async def found(tmp_path: Path, **environ: str) -> dict[str, Finding]:
    settings = load({"FAIRLEAD_HOME": str(tmp_path / "home"), **environ})
    return {finding.name: finding for finding in await check_all(settings)}


async def hang() -> Verdict:
    await asyncio.Event().wait()
    raise AssertionError


async def refuse() -> Verdict:
    raise StoreError("the database db.example/x failed: refused")


async def break_down() -> Verdict:
    raise ZeroDivisionError("secret detail")


async def pass_() -> Verdict:
    return ok("fine")


async def test_checks_run_at_once_and_each_has_a_deadline() -> None:
    checks = [Check(f"hangs {number}", hang) for number in range(50)] + [Check("passes", pass_)]
    began = time.monotonic()
    findings = await run(checks, 0.5)
    assert time.monotonic() - began < 20  # one after the other takes 25
    assert [finding.name for finding in findings] == [check.name for check in checks]
    assert findings[0] == Finding("hangs 0", Status.ERROR, "no answer within 0.5 s (checks.timeout_s)")
    assert findings[-1].status is Status.OK


async def test_a_failure_and_a_bug_are_findings_and_cost_no_other_check() -> None:
    with structlog.testing.capture_logs() as logs:
        found = await run([Check("a", refuse), Check("b", break_down), Check("c", pass_)], 10)
    assert [str(one) for one in found] == [
        "error: a: the database db.example/x failed: refused",
        "error: b: internal error (ZeroDivisionError); the log has the details",
        "ok: c: fine",
    ]
    assert [entry["check"] for entry in logs] == ["b"]


async def test_a_new_installation_has_no_error_but_for_its_blueprints(tmp_path: Path) -> None:
    findings = await found(tmp_path)
    assert {name for name, one in findings.items() if one.status is not Status.OK} == {"blueprints"}
    directory = tmp_path / "home" / "blueprints"
    assert findings["blueprints"].says == f"blueprint.directory: {directory}: there is no such directory"
    assert not (tmp_path / "home").exists(), "a check made something"


async def test_blueprints_that_the_settings_name_must_be_there(tmp_path: Path) -> None:
    directory = tmp_path / "blueprints"
    directory.mkdir()
    (directory / "data.yaml").write_text("{}")
    given = {"FAIRLEAD_BLUEPRINT__DIRECTORY": str(directory)}
    findings = await found(tmp_path, FAIRLEAD_BLUEPRINT__REPOSITORY__BASE="repo", **given)
    assert findings["blueprints"].says == (
        "blueprint.default: 'dev'; blueprint.repository.base: 'repo': "
        f"there is no such blueprint in {directory} (blueprints: data)"
    )
    findings = await found(tmp_path, FAIRLEAD_BLUEPRINT__DEFAULT="data", **given)
    assert findings["blueprints"] == Finding("blueprints", Status.OK, f"blueprints: data from {directory}")
    (directory / "data.yaml").write_text("no_such_field: 1")
    findings = await found(tmp_path, FAIRLEAD_BLUEPRINT__DEFAULT="data", **given)
    assert findings["blueprints"].status is Status.ERROR
    assert "data.yaml:1: no_such_field" in findings["blueprints"].says


async def test_files_that_settings_name_are_read(tmp_path: Path) -> None:
    keys, grants = tmp_path / "keys", tmp_path / "grants"
    keys.mkdir()
    (keys / "ssh_host_ed25519_key").write_text("no key")
    grants.write_text("c2hvcnQ=\n")
    findings = await found(
        tmp_path,
        FAIRLEAD_SSH__HOST_KEY_DIR=str(keys),
        FAIRLEAD_GROUPS__KEY_FILE=str(grants),
        FAIRLEAD_IDENTITY__REVOKED_KEYS=f'["{tmp_path}/no-krl"]',
        FAIRLEAD_IDENTITY__TRUSTED_USER_CA_KEYS=f'["{tmp_path}/no-ca"]',
        FAIRLEAD_RECORDING__SIGNING_KEY_FILE=str(grants),
    )
    says = {name: one.says for name, one in findings.items() if one.status is Status.ERROR}
    assert says["host keys"].startswith(f"ssh.host_key_dir: host keys in {keys}: ")
    assert says["refresh token key"].startswith(f"groups.key_file {grants}: key 1 is not 32 bytes in base64")
    assert says["revoked keys"] == f"identity.revoked_keys: {tmp_path}/no-krl: No such file or directory"
    assert f"identity.trusted_user_ca_keys: {tmp_path}/no-ca" in says["user certificate authorities"]
    assert says["recording key"].startswith(f"recording.signing_key_file {grants}: not an Ed25519 key")


def test_a_place_that_cannot_be_written_is_named_with_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert writable(file, "home").says == f"home: {file}: is not a directory"
    inside = writable(file / "deeper", "home")
    assert inside.says == f"home: {file}/deeper: does not exist and cannot be made in {file}"
    assert writable(Path("/proc/none"), "home").status is (
        Status.OK if os.access("/proc", os.W_OK) else Status.ERROR
    )
    assert writable(tmp_path, "home").says == f"{tmp_path} can be written"
    assert list(tmp_path.iterdir()) == [file]


async def test_a_serving_proxy_repeats_what_failed_until_it_passes(tmp_path: Path) -> None:
    settings = load({"FAIRLEAD_HOME": str(tmp_path / "home"), "FAIRLEAD_CHECKS__REPEAT_S": "0.05"})
    checks = StandingChecks(settings)
    with structlog.testing.capture_logs() as logs:
        checks.start()
        try:
            async with asyncio.timeout(60):
                while not checks.problem:
                    await asyncio.sleep(0.01)
                assert checks.problem.startswith("error: blueprints: blueprint.directory: ")
                (tmp_path / "home" / "blueprints").mkdir(parents=True)
                (tmp_path / "home" / "blueprints" / "dev.yaml").write_text("{}")
                while checks.problem:
                    await asyncio.sleep(0.01)
        finally:
            await checks.close()
    assert [(entry["event"], entry["check"]) for entry in logs if entry["log_level"] != "debug"][:1] == [
        ("check failed", "blueprints")
    ]
    assert [entry["check"] for entry in logs if entry["event"] == "check passed"] == ["blueprints"]


def test_the_command_prints_a_line_a_check_and_exits_1_on_an_error(fairlead: Run, tmp_path: Path) -> None:
    done = fairlead("check")
    assert done.returncode == 1
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["ok", "database", "there is none yet; a proxy that starts makes it"] in lines
    assert [line[:2] for line in lines if line[0] == "error"] == [["error", "blueprints"]]
    directory = tmp_path / "home" / "blueprints"
    directory.mkdir(parents=True)
    (directory / "dev.yaml").write_text("{}")
    done = fairlead("check", "--json")
    assert done.returncode == 0, done.stdout
    rows = json.loads(done.stdout)
    assert {row["status"] for row in rows} == {"ok"}
    assert {"status", "check", "says"} == set(rows[0])


def test_settings_that_cannot_be_used_end_the_command_as_they_end_a_start(fairlead: Run) -> None:
    done = fairlead("check", FAIRLEAD_LISTEN="nonsense")
    assert done.returncode == 78
    assert "FAIRLEAD_LISTEN" in done.stderr


@pytest.mark.parametrize("name", ["bwrap", "unshare"])
async def test_a_separation_that_does_not_work_here_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.workspaces.local.namespaces.shutil.which", lambda *_, **__: None)
    findings = await found(tmp_path, FAIRLEAD_WORKSPACE__NAMESPACES=name)
    says = f"workspace.namespaces: {name} does not work here: {name} is not installed"
    assert findings["workspace namespaces"] == Finding("workspace namespaces", Status.ERROR, says)
