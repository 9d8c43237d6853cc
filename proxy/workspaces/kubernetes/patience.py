"""Patience with obstacles of a pod's start: the limit of waiting for capacity."""

import asyncio
from collections.abc import Iterable

from proxy.workspaces.kubernetes.diagnosis import Diagnosis, Prognosis


class Patience:
    """The time that one start has waited for an obstacle that rarely passes by itself."""

    def __init__(self, patience_s: float) -> None:
        """Grant `patience_s`, 0 or more seconds from the first look, to `Prognosis.NEEDS_CAPACITY`."""
        self._patience_s = patience_s
        self._since: float | None = None

    def exhausted(self, diagnoses: Iterable[Diagnosis]) -> Diagnosis | None:
        """Return the diagnosis for which the start is given up now; None to wait on."""
        diagnoses = tuple(diagnoses)
        if final := next((one for one in diagnoses if one.is_final), None):
            return final
        scarce = next((one for one in diagnoses if one.prognosis is Prognosis.NEEDS_CAPACITY), None)
        if scarce is None:
            self._since = None
            return None
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._since
        return scarce if now - self._since >= self._patience_s else None
