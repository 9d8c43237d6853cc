"""The exported page in a real browser: it plays, from one file, without network."""

import re
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from proxy.recording.archive import Verdict
from proxy.recording.lines import event_line, header_line
from proxy.recording.page import page
from tests.fakes.recordings import a_shell
from tests.wire.harness import needs


async def lines() -> AsyncIterator[bytes]:
    yield header_line({"version": 2, "width": 60, "height": 12})
    yield event_line(0.1, "o", "\x1b[32mhello\x1b[0m </script> grüße\r\n")
    yield event_line(0.5, "r", "70x14")
    yield event_line(1.0, "m", "a marker")
    yield event_line(1.2, "o", "second line\r\n")
    yield event_line(1.3, "h", "1 hash signature")


@needs("chromium")
async def test_a_browser_plays_it(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    manifest = a_shell("c1-1", has_terminal=True, started_at=now, ended_at=now)
    file = tmp_path / "page.html"
    with file.open("w") as out:
        async for piece in page(manifest, Verdict("intact", "1 block", 1, 9), lines()):
            out.write(piece)
    done = subprocess.run(
        [
            *(
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path}/profile",
            ),
            *("--virtual-time-budget=10000", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    drawn = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
    assert re.search(r">hello </span><span[^>]*>&lt;/script&gt; grüße", drawn), drawn[-2_000:]
    assert "00:01 - a marker" in drawn
