"""Settings of the checks of everything that a proxy depends on."""

from typing import Annotated

from pydantic import Field

from proxy.settings.base import Section


class CheckSettings(Section):
    """Checks of the services that the settings name, by `fairlead check` and by a running proxy."""

    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10
    """One check; all of them run at the same time."""
    repeat_s: Annotated[float, Field(gt=0, le=86_400)] = 30
    """A serving proxy repeats the checks this often while one of them fails."""
