"""Explanations of messages of Kubernetes to the user: the fault, and its remedy.

Its messages are kept where they hold the facts (which resource, which image) and left to the operator's
log where they do not. Pure.
"""

import re

_MOST_CHARACTERS = 300

FAILED_WEBHOOK = "failed calling webhook"
_LOG_LINE = '{"ts": '
"""Begins each line of shelld's log."""
_NO_SUCH_IMAGE = ("not found", "manifest unknown", "does not exist", "no such image")
_NO_ACCESS = ("unauthorized", "authentication required", "denied", "forbidden", "no basic auth credentials")
_NO_REGISTRY = (
    "no such host",
    "timeout",
    "connection refused",
    "deadline exceeded",
    "tls:",
    "x509",
    "reset by",
)


def image_problem(image: str, reason: str, message: str) -> tuple[str, bool]:
    """Return the reason for which an image cannot be pulled, and whether retrying is of no use."""
    said = _without_names(message, image).lower()
    correct = "correct the image of the blueprint, or ask its keeper to"
    if reason == "InvalidImageName":
        return f"{image!r} is no valid name of an image: {correct}", True
    if reason == "ErrImageNeverPull":
        return f"image {image} is not on the node, and may not be pulled: {correct}", True
    if _holds(said, _NO_REGISTRY):
        return f"the registry of image {image} does not answer: its operator can see why in the log", False
    if _holds(said, _NO_ACCESS) and _holds(said, _NO_SUCH_IMAGE):
        return f"image {image} does not exist, or the cluster may not pull it: {correct}", True
    if _holds(said, _NO_ACCESS):
        return f"the cluster may not pull image {image}: ask an operator for a pull secret", True
    if _holds(said, _NO_SUCH_IMAGE):
        return f"image {image} does not exist: {correct}", True
    return f"image {image} cannot be pulled: {brief(message) or reason}", False


def config_problem(message: str) -> str:
    """Return the reason for which a container cannot be made from the references of its pod."""
    if found := re.search(r'(secret|configmap|serviceaccount) "?([^" ]+)"? not found', message):
        return f"the {found[1]} {found[2]} that it needs does not exist: ask an operator to create it"
    if found := re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) (\S+)", message):
        return f"the {found[2].lower()} {found[3]} has no key {found[1]}: ask an operator to add it"
    if "runAsNonRoot" in message:
        return "its image runs as root, which this cluster forbids: set security.run_as_user in the blueprint"
    return f"its container cannot be made: {brief(message)}"


def scheduling_problem(message: str) -> str:
    """Return the reason for which no node takes the pod, in the scheduler's words about scarce resources."""
    if re.search(r'persistentvolumeclaim "?[^" ]+"? not found', message):
        name = re.search(r'persistentvolumeclaim "?([^" ]+)"? not found', message)
        return f"the volume claim {name[1] if name else ''} does not exist: ask an operator to create it"
    if "unbound" in message and "PersistentVolumeClaim" in message:
        return "its volume is not there yet: the cluster has none to give; ask an operator"
    if short := sorted(set(re.findall(r"[Ii]nsufficient ([\w./-]*\w)", message))):
        what = " and ".join(short)
        return f"no node has enough {what} left: stop another workspace, or ask for less in the blueprint"
    if re.search(r"volume node affinity conflict|volume node conflict|no available volume zone", message):
        return "its volume is tied to another node or zone, which takes no pod: ask an operator"
    if re.search(r"pod (anti-)?affinity|existing pods anti-affinity", message):
        return (
            f"rules about which pods may share a node leave none for it: ask an operator ({brief(message)})"
        )
    if "topology spread" in message:
        return f"rules about how pods are spread leave no node for it: ask an operator ({brief(message)})"
    if re.search(r"didn't match (Pod's )?node (affinity|selector)", message):
        return "no node matches what the blueprint selects: correct its node.selector, or ask its keeper to"
    if "taint" in message:
        return f"every node keeps workspaces away by a taint ({brief(message)}): ask an operator"
    if "volume" in message:
        return f"no node can use its volume: {brief(message)}"
    return f"no node takes it: {brief(message)}"


def claim_problem(claim: str, message: str) -> str:
    """Return the reason for which a claim has no volume. An operator may make one, even of no known class."""
    if found := re.search(r'storageclass[.\w]* "?([^" ]+)"? not found', message):
        return f"storage class {found[1]} does not exist: correct the storage of the blueprint"
    if "no storage class is set" in message:
        return f"no volume is left for {claim}, and the cluster makes none by itself: ask an operator"
    return f"its volume {claim} cannot be made: {brief(message)}"


def creation_problem(message: str) -> str:
    """Return the reason for which no pod may be made: a quota, an admission rule, or a reference of it."""
    said = _without_preamble(message)
    if "exceeded quota" in said:
        used = _after(said, "exceeded quota:")
        return f"the quota is used up ({used}): stop another workspace, or ask an operator for more"
    if "failed quota" in said or "must specify" in said:
        return f"the quota wants limits that the blueprint does not give ({_after(said, ':')}): add resources"
    if "PodSecurity" in said or "PodSecurityPolicy" in said or "pod security policy" in said.lower():
        fields = _fields(said) or "security"
        return f"the cluster's security rules refuse it ({brief(said)}): correct {fields} of the blueprint"
    if FAILED_WEBHOOK in said:
        return "a service that must approve of it does not answer: its operator can see why in the log"
    if "admission webhook" in said:
        fields = _fields(said)
        hint = f": correct {fields} of the blueprint" if fields else ""
        return f"a rule of the cluster refuses it: {_after(said, 'denied the request:')}{hint}"
    if re.search(r"serviceaccount|service account", said) and "not found" in said:
        return f"{brief(said)}: ask an operator to create it"
    return f"the cluster refuses it: {brief(said)}"


_FIELDS = (
    ("allowPrivilegeEscalation", "sudo and security.allow_privilege_escalation"),
    ("capabilities", "security.drop_capabilities"),
    ("runAsNonRoot|runAsUser", "security.run_as_user"),
    ("seccomp", "security.seccomp_profile"),
    ("readOnlyRootFilesystem", "security.read_only_root"),
)
"""What Kubernetes calls a field of a pod, and the fields of a blueprint that decide it."""


def _fields(message: str) -> str:
    """Name the fields of a blueprint that a refusal is about; empty for none."""
    return ", ".join(ours for theirs, ours in _FIELDS if re.search(theirs, message))


def mount_problem(message: str) -> str:
    """Return the reason for which a volume cannot be mounted."""
    if re.search(r'(secret|configmap) "?[^" ]+"? not found', message):
        return config_problem(message)
    if "Multi-Attach" in message:
        return "its volume is still attached to another node: wait, or ask an operator to detach it"
    volume = re.search(r'for volume "([^"]+)"', message)
    what = f"volume {volume[1]}" if volume else "a volume"
    return f"{what} cannot be mounted: {brief(message.rpartition(' : ')[2])}"


def sandbox_problem(node: str, message: str) -> tuple[str, bool]:
    """Return the reason for which a pod's sandbox cannot be made, and whether only an operator can help."""
    handler = re.search(
        r'RuntimeHandler "([^"]+)" not supported|no runtime for "([^"]+)" is configured', message
    )
    if handler:
        return (
            f"node {node} has no runtime {handler[1] or handler[2]}: correct node.runtime_class of the "
            "blueprint, or ask an operator to install it",
            True,
        )
    if re.search(r"network|cni", message, re.IGNORECASE):
        return f"the network of its pod cannot be set up on node {node}: {brief(_cause(message))}", False
    return f"its pod cannot be set up on node {node}: {brief(_cause(message))}", False


def _cause(message: str) -> str:
    return message.removeprefix("Failed to create pod sandbox: ")


def advice(reason: str) -> str:
    """Return the remedy for the end of a container; empty where none is known."""
    return "raise resources.limits.memory in the blueprint" if reason == "OOMKilled" else ""


def ending(exit_code: int, signal: int, reason: str) -> str:
    """Describe the end of a container."""
    if reason == "OOMKilled":
        return "ran out of memory"
    if reason == "ContainerCannotRun" or exit_code in {126, 127}:
        return f"cannot be run (status {exit_code})"
    if signal or exit_code > 128:
        return f"was ended by signal {signal or exit_code - 128}"
    return f"ended with status {exit_code}"


def last_line(text: str) -> str:
    """Take the last line that says something, but for shelld's log, which is the operator's."""
    lines = (line for line in reversed(text.splitlines()) if line.strip() and not line.startswith(_LOG_LINE))
    return brief(next(lines, ""))


def brief(message: str) -> str:
    """Return one line, of bounded length, without the layers around the original error."""
    one_line = " ".join(message.split())
    one_line = re.sub(r"rpc error: code = \w+ desc = ", "", one_line)
    one_line = one_line.removeprefix("Error response from daemon: ").rstrip(". ")
    return one_line if len(one_line) <= _MOST_CHARACTERS else one_line[: _MOST_CHARACTERS - 1] + "…"


def _without_names(message: str, image: str) -> str:
    """Cut off names of the image or its registry: a name may hold any of the searched words."""
    repository = re.escape(image.partition("@")[0].rpartition("/")[2].partition(":")[0])
    names = rf'"[^"]*"|https?://\S+|\blookup \S+|\b(for|image|reference|repository) \S*{repository}\S*'
    return re.sub(names, " ", message)


def _holds(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def _after(text: str, mark: str) -> str:
    _, found, rest = text.partition(mark)
    return brief(rest if found else text)


def _without_preamble(message: str) -> str:
    """Cut `create Pod x-0 in StatefulSet x failed error: pods "x-0" is forbidden: ` off."""
    return re.sub(r'^.*?(?:failed error: )?(?:\w+ "[^"]+" is forbidden: )', "", message, count=1)
