"""Situations of workspaces as clusters of known versions told them, and the sentence for each.

`tests/cluster/test_sentences.py` provokes each one for real; with `FAIRLEAD_RECORD=1` it writes the file
anew, below the version of the server that `KUBECONFIG` names.
"""

import json
from datetime import datetime
from pathlib import Path

from proxy.workspaces.kubernetes.diagnosis import Prognosis, Situation

FOLDER = Path(__file__).parent / "fixtures" / "cluster"

EXPECTED = {
    "selector": (
        Prognosis.NEEDS_CAPACITY,
        "no node matches what the blueprint selects: correct its node.selector",
    ),
    "cpu": (Prognosis.NEEDS_CAPACITY, "no node has enough cpu left"),
    "volume-of-another-node": (Prognosis.NEEDS_CAPACITY, "its volume is tied to another node or zone"),
    "anti-affinity": (Prognosis.NEEDS_CAPACITY, "rules about which pods may share a node leave none for it"),
    "topology": (Prognosis.NEEDS_CAPACITY, "rules about how pods are spread leave no node for it"),
    "image-named-timeout": (
        Prognosis.NEEDS_CHANGE,
        r"image 127\.0\.0\.1:\d+/timeout/timeout:1 does not exist",
    ),
    "registry-named-denied": (
        Prognosis.MAY_RECOVER,
        r"the registry of image denied\.invalid/not-found/x:1 does not answer",
    ),
    "image-name": (Prognosis.NEEDS_CHANGE, "'case/UPPER:1' is no valid name of an image"),
    "runtime-class": (
        Prognosis.NEEDS_CAPACITY,
        "node .* has no runtime nohandler: correct node.runtime_class",
    ),
    "out-of-memory": (
        Prognosis.NEEDS_CHANGE,
        "^the workspace ran out of memory while it was starting: raise resources.limits.memory in the "
        "blueprint$",
    ),
    "quota": (Prognosis.NEEDS_CHANGE, r"the quota is used up \(few, requested: pods=1"),
    "limit-range": (Prognosis.NEEDS_CHANGE, "maximum memory usage per Container is 32Mi"),
}
"""By the name of a situation: whether waiting is of use, and what stands in the sentence."""


def save(version: str, name: str, situation: Situation) -> None:
    """Write a situation down as the cluster told it, without the bookkeeping of server-side apply."""
    told = {
        "server": version,
        "stateful_set": situation.stateful_set,
        "pod": situation.pod,
        "claims": dict(situation.claims),
        "events": list(situation.events),
        "now": situation.now.isoformat(),
    }
    folder = FOLDER / version
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(_without_bookkeeping(told), indent=1, sort_keys=True)
    (folder / f"{name}.json").write_text(content + "\n")


def files() -> list[Path]:
    return sorted(FOLDER.glob("*/*.json"))


def load(file: Path) -> Situation:
    told = json.loads(file.read_text())
    now = datetime.fromisoformat(told["now"])
    return Situation(told["stateful_set"], told["pod"], told["claims"], told["events"], now)


def _without_bookkeeping(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_bookkeeping(one) for key, one in value.items() if key != "managedFields"}
    return [_without_bookkeeping(one) for one in value] if isinstance(value, list) else value
