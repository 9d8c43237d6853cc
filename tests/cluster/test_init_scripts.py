"""Init scripts that fail in a pod: told to the person and shown; a required one keeps it from being ready."""

import asyncio
import re

import pytest

from proxy.errors.workspaces import WorkspaceUnstartable
from proxy.model import ExitStatus, ProgramSpec, Shell
from proxy.settings.upstream import UpstreamSettings
from proxy.upstream.client import Links
from proxy.upstream.frames import Notice
from proxy.workspaces.backend import WorkspacePhase
from proxy.workspaces.kubernetes.endpoints import is_ready
from proxy.workspaces.reported import as_reported
from tests.cluster.cluster import Cluster, request, silent, visit

NAME = request().name
SCRIPT = "{name: setup, script: 'echo no space left; exit 3', when: every}"
REQUIRED = SCRIPT.replace("}", ", required: true}")


async def test_a_failed_init_script_is_told_to_the_person_and_shown(kube: Cluster) -> None:
    failed = "init script setup ended with status 3 and said: no space left"
    links = Links(UpstreamSettings(), "p1", kube.keeper)
    async with kube.proxy() as backend:
        endpoint = await backend.ensure(request(f"init: [{SCRIPT}]"), silent)
        try:
            async with links.use(endpoint) as link:
                program = await link.run(ProgramSpec(Shell()), visit("alice"), "program")
                async with program:
                    await program.write_eof()
                    told = []
                    while not isinstance(frame := await program.read(), ExitStatus):
                        told += [frame.text] if isinstance(frame, Notice) else []
            assert told == [failed]
            async with asyncio.timeout(60):
                while (record := await backend.find(NAME)) is None or record.phase is WorkspacePhase.STARTING:
                    await asyncio.sleep(0.1)
            shown = await as_reported(record, backend, links)
            assert (shown.phase, shown.detail) == (WorkspacePhase.RUNNING, failed)
        finally:
            await links.close()


async def test_a_required_init_script_that_fails_keeps_the_workspace_from_being_ready(kube: Cluster) -> None:
    failed = "init script setup, which the workspace requires, ended with status 3 and said: no space left"
    async with kube.proxy() as backend:
        with pytest.raises(WorkspaceUnstartable) as caught:
            await backend.ensure(request(f"init: [{REQUIRED}]"), silent)
        assert caught.value.user_message == failed
        record = await backend.find(NAME)
        assert record is not None
        assert (record.phase, record.detail) == (WorkspacePhase.FAILED, failed)
        assert not is_ready(await kube.pod(NAME))
        assert await backend.locate(NAME) is None
        corrected = re.sub("exit 3", "exit 0", REQUIRED)
        endpoint = await backend.ensure(request(f"init: [{corrected}]"), silent)
        assert await kube.run(endpoint, "echo in") == "in\n"
