"""Metrics for Prometheus. Counters are here; gauges that are computed on request are in `health`.

Names and labels follow https://prometheus.io/docs/practices/naming/. No label ever holds a name, an address
or any other value that clients choose: their number would have no bound.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

LOGINS = Counter(
    "fairlead_logins",
    "Connections that logged in, or ended without; reason is the first one of docs/events.md.",
    ("outcome", "reason"),
    registry=REGISTRY,
)

UNTRUSTED_HEADERS = Counter(
    "fairlead_proxy_headers_untrusted",
    "Connections that began with a PROXY header and came from no address of proxy_protocol.trusted.",
    registry=REGISTRY,
)

PROGRAMS = Counter(
    "fairlead_programs",
    "Shells, commands and subsystems that were asked for.",
    ("kind", "outcome"),
    registry=REGISTRY,
)

STARTS = Histogram(
    "fairlead_workspace_start_seconds",
    "From wanting a workspace that does not answer to its answer or to a failure; outcome is its code.",
    ("outcome",),
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
    registry=REGISTRY,
)

RECHECKS = Counter(
    "fairlead_rechecks",
    "Comparisons of live connections with the directory; in_doubt says nothing about some, failed about any.",
    ("outcome",),
    registry=REGISTRY,
)

RECORDINGS = Counter(
    "fairlead_recordings",
    "Recordings begun.",
    ("kind",),
    registry=REGISTRY,
)

RECORDINGS_ENDED = Counter(
    "fairlead_recordings_ended",
    "Recordings ended; incomplete has a gap, or was not stored to the end.",
    ("outcome",),
    registry=REGISTRY,
)

RECORDING_OUTAGES = Counter(
    "fairlead_recording_outages",
    "Times that a recording found its storage down.",
    registry=REGISTRY,
)

RECORDING_LOST_BYTES = Counter(
    "fairlead_recording_lost_bytes",
    "Bytes that recordings left out while storage was down.",
    registry=REGISTRY,
)

WEB_REQUESTS = Counter(
    "fairlead_web_requests",
    "Requests of the web half by the class of their answer; upgraded ones are WebSockets.",
    ("outcome",),
    registry=REGISTRY,
)
