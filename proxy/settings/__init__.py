"""Every setting: unit in the name, range, default, and why.

Precedence: command line > `FAIRLEAD_…` environment > file > default. Sections nest with `__`:
`FAIRLEAD_RELAY__BUFFER_BYTES=524288`. Each section has a module; a component receives its own
section, never the whole.
"""

from proxy.settings.root import Settings
from proxy.settings.sources import load

__all__ = ["Settings", "load"]
