"""Settings that cannot be used, each with the exact sentence that an operator reads."""

from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.settings import Settings, load
from proxy.settings.sentences import PATTERNS

ENVIRONMENT: list[tuple[dict[str, str], str]] = [
    (
        {"FAIRLEAD_RELAY__BUFFER_BYTES": "many"},
        "FAIRLEAD_RELAY__BUFFER_BYTES: must be a whole number of bytes, not 'many'",
    ),
    (
        {"FAIRLEAD_RELAY__BUFFER_BYTES": "1"},
        "FAIRLEAD_RELAY__BUFFER_BYTES: must be at least 1024 bytes, not '1'",
    ),
    (
        {"FAIRLEAD_PROXY_ID": "Not A"},
        "FAIRLEAD_PROXY_ID: must be 1 to 253 lower-case letters, digits and `-` or `.`, as the "
        "name of a pod, not 'Not A'",
    ),
    (
        {"FAIRLEAD_LOG__LEVEL": "loud"},
        "FAIRLEAD_LOG__LEVEL: must be 'debug', 'info', 'warning' or 'error', not 'loud'",
    ),
    (
        {"FAIRLEAD_WORKSPACE__BACKEND": "docker"},
        "FAIRLEAD_WORKSPACE__BACKEND: must be 'local' or 'kubernetes', not 'docker'",
    ),
    (
        {"FAIRLEAD_LOGIN__TIMEOUT_S": "soon"},
        "FAIRLEAD_LOGIN__TIMEOUT_S: must be a number of seconds, not 'soon'",
    ),
    ({"FAIRLEAD_LOGIN__TIMEOUT_S": "-1"}, "FAIRLEAD_LOGIN__TIMEOUT_S: must be more than 0 seconds, not '-1'"),
    ({"FAIRLEAD_LOGIN__TIMEOUT_S": "10"}, "login: key_exchange_timeout_s must not exceed timeout_s"),
    (
        {"FAIRLEAD_KUBERNETES__NAMESPACE": "My_NS"},
        "FAIRLEAD_KUBERNETES__NAMESPACE: must be 1 to 63 lower-case letters, digits and `-`, no "
        "`-` at either end, not 'My_NS'",
    ),
    (
        {"FAIRLEAD_KUBERNETES__HOME_SIZE": "10 gig"},
        "FAIRLEAD_KUBERNETES__HOME_SIZE: must be a quantity of Kubernetes, such as 10Gi, not '10 gig'",
    ),
    (
        {"FAIRLEAD_EVENTS__URLS": "http://x"},
        "FAIRLEAD_EVENTS__URLS: a URL must be nats://host:port or tls://host:port",
    ),
    (
        {"FAIRLEAD_EVENTS__URLS": "nats://u:p@x"},
        "FAIRLEAD_EVENTS__URLS: a URL must not carry credentials: name a file that holds them",
    ),
    (
        {"FAIRLEAD_PROXY_PROTOCOL__TRUSTED": '["10.0.0.1/8"]'},
        "FAIRLEAD_PROXY_PROTOCOL__TRUSTED: '10.0.0.1/8' has bits behind its prefix; the network "
        "is 10.0.0.0/8",
    ),
    (
        {"FAIRLEAD_PROXY_PROTOCOL__TRUSTED": "10.0.0.0/8"},
        'FAIRLEAD_PROXY_PROTOCOL__TRUSTED: must be a list; in the environment as JSON: ["…"]',
    ),
    (
        {"FAIRLEAD_PROXY_PROTOCOL__TRUSTED": '["lb.example"]'},
        "FAIRLEAD_PROXY_PROTOCOL__TRUSTED: 'lb.example' is neither an address nor a network such "
        "as 10.0.0.0/8",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"ldap"}]'},
        "front_door.providers.0.kind: must be one of 'github', 'gitlab', 'oidc', 'dev', not 'ldap'",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"oidc","issuer":"http://x.example","client_id":"a"}]'},
        "front_door.providers.0.issuer: 'http://x.example' must be https (http is for loopback only)",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"github"}]'},
        "front_door.providers.0.client_id: is needed",
    ),
    ({"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"name":"x"}]'}, "front_door.providers.0.kind: is needed"),
    (
        {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"github","client_id":"a","name":"My Hub"}]'},
        "front_door.providers.0.name: must be 1 to 31 lower-case letters, digits and `-`, the "
        "first no `-`, not 'My Hub'",
    ),
    (
        {"FAIRLEAD_RECORDING__S3__PREFIX": "no-slash"},
        "FAIRLEAD_RECORDING__S3__PREFIX: must be empty, or names that each end with `/`, such as "
        "fairlead/, not 'no-slash'",
    ),
    ({"FAIRLEAD_RECORDING__STORE": "s3"}, "recording: s3.bucket is needed for store: s3"),
    (
        {"FAIRLEAD_RECORDING__RULES": '[{"record":["video"]}]'},
        "recording.rules.0.record.0: must be 'shell', 'exec', 'sftp' or 'forward', not 'video'",
    ),
    ({"FAIRLEAD_BLUEPRINT__SOURCE": "git"}, "blueprint: source git needs git.url"),
    (
        {"FAIRLEAD_BLUEPRINT__GIT__URL": "host/x"},
        "blueprint.git: url must be https://…, ssh://…, user@host:path or file://…",
    ),
    (
        {"FAIRLEAD_IDENTITY__INSTALLATION": "x"},
        "FAIRLEAD_IDENTITY__INSTALLATION: must be an installation id, as `fairlead database show` "
        "prints it, not 'x'",
    ),
    (
        {"FAIRLEAD_EVENTS__PREFIX": "a b"},
        "FAIRLEAD_EVENTS__PREFIX: must be words of letters, digits, `-` and `_`, with `.` between "
        "them, not 'a b'",
    ),
    (
        {"FAIRLEAD_TRUST__MODE": "cert-manager"},
        "trust: cert-manager needs issuer_name, client_cert_file, client_key_file and client_ca_file",
    ),
    (
        {"FAIRLEAD_SSH__VERSION": "a-b"},
        "FAIRLEAD_SSH__VERSION: must be printable ASCII of at most 200 characters: a version "
        "without `-` and perhaps a comment behind a blank, as in `OpenSSH_9.9 Fairlead`",
    ),
    ({"FAIRLEAD_LISTEN": "22"}, "FAIRLEAD_LISTEN: '22' is not host:port (an IPv6 address goes in brackets)"),
    ({"FAIRLEAD_IDENTITY__FIRST_UID": "0"}, "FAIRLEAD_IDENTITY__FIRST_UID: must be at least 1, not '0'"),
    (
        {"FAIRLEAD_IDENTITY__MAX_VANISHED_SHARE": "1"},
        "FAIRLEAD_IDENTITY__MAX_VANISHED_SHARE: must be less than 1, not '1'",
    ),
    ({"FAIRLEAD_RELAY": "x"}, "FAIRLEAD_RELAY: must be a section of settings"),
    (
        {"FAIRLEAD_SSH__CIPHERS": "aes"},
        'FAIRLEAD_SSH__CIPHERS: must be a list; in the environment as JSON: ["…"]',
    ),
    (
        {"FAIRLEAD_SSH__PREFER_AES_GCM": "perhaps"},
        "FAIRLEAD_SSH__PREFER_AES_GCM: must be true or false, not 'perhaps'",
    ),
    (
        {"FAIRLEAD_HEALTH__LISTEN": "8080"},
        "health.listen: '8080' is not host:port (an IPv6 address goes in brackets)",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__ONBOARDING__RULES": '[{"name":"a"}]'},
        "front_door.onboarding.rules.0.action: is needed",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__ONBOARDING__RULES": '[{"name":"a","action":"ban"}]'},
        "front_door.onboarding.rules.0.action: must be 'allow', 'refuse' or 'waitlist', not 'ban'",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__CONFIRM__PUBLIC_URL": "http://127.0.0.1:1"},
        "FAIRLEAD_FRONT_DOOR__CONFIRM__PUBLIC_URL: 'http://127.0.0.1:1' shares its cookies with "
        "every port of this machine; use a name of its own, such as login.localhost",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__CONFIRM__PEER_URL": "x"},
        "FAIRLEAD_FRONT_DOOR__CONFIRM__PEER_URL: 'x' is not http://host:port or https://host:port",
    ),
    ({"FAIRLEAD_KUBERNETES__INJECT": '[{"namespace":"a"}]'}, "kubernetes.inject.0.groups: is needed"),
    (
        {"FAIRLEAD_KUBERNETES__INJECT": '[{"namespace":"a","groups":[]}]'},
        "kubernetes.inject.0.groups: needs at least 1 of them",
    ),
    ({"FAIRLEAD_RELAY__NO": "1"}, "FAIRLEAD_RELAY__NO: there is no such setting"),
    (
        {"FAIRLEAD_BLUEPRINT__REPOSITORY__STORAGE_SIZE": "x"},
        "FAIRLEAD_BLUEPRINT__REPOSITORY__STORAGE_SIZE: must be a size, such as 10Gi, not 'x'",
    ),
    (
        {"FAIRLEAD_IDENTITY__REVOKED_KEYS": "/x"},
        'FAIRLEAD_IDENTITY__REVOKED_KEYS: must be a list; in the environment as JSON: ["…"]',
    ),
    (
        {"FAIRLEAD_SHUTDOWN__DEADLINE_S": "1"},
        "shutdown.deadline_s: health.drain_s and what closes afterwards take 38 s of it, so it "
        "must be more than that",
    ),
    (
        {"FAIRLEAD_SESSIONS__LOST_AFTER_S": "1"},
        "sessions: lost_after_s must be three times write_every_s or more",
    ),
    (
        {"FAIRLEAD_LOGIN__MAX_ATTEMPTS": "2.5"},
        "FAIRLEAD_LOGIN__MAX_ATTEMPTS: must be a whole number, not '2.5'",
    ),
    ({"FAIRLEAD_EVENTS__USER": "x"}, "events: user and password_file go together"),
    (
        {"FAIRLEAD_KUBERNETES__IMAGE_PULL_POLICY": "Sometimes"},
        "FAIRLEAD_KUBERNETES__IMAGE_PULL_POLICY: must be 'Always', 'IfNotPresent' or 'Never', not "
        "'Sometimes'",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"dev","port":70000}]'},
        "front_door.providers.0.port: must be at most 65535, not 70000",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__PROVIDERS": "github"},
        'FAIRLEAD_FRONT_DOOR__PROVIDERS: must be a list; in the environment as JSON: ["…"]',
    ),
    (
        {"FAIRLEAD_BLUEPRINT__METADATA": "x"},
        'FAIRLEAD_BLUEPRINT__METADATA: must be a mapping; in the environment as JSON: {"…": …}',
    ),
    (
        {"FAIRLEAD_CONNECTION__MAX_COMMAND_BYTES": "1000000"},
        "FAIRLEAD_CONNECTION__MAX_COMMAND_BYTES: must be at most 131071 bytes, not '1000000'",
    ),
    (
        {
            "FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"github","client_id":"a"},'
            '{"kind":"github","client_id":"b"}]'
        },
        "front_door: two providers have the same name; give each a name of its own",
    ),
    ({"FAIRLEAD_LISTEN": '["x"]'}, "FAIRLEAD_LISTEN: must be text, not a list"),
    ({"FAIRLEAD_EVENTS__URLS": "[1]"}, "events.urls.0: must be text, not 1"),
    (
        {"FAIRLEAD_FRONT_DOOR__ONBOARDING__RULES": '[{"name":"","action":"allow"}]'},
        "front_door.onboarding.rules.0.name: must not be empty",
    ),
    (
        {"FAIRLEAD_KUBERNETES__PROXIES__POD_LABELS": '["a"]'},
        'FAIRLEAD_KUBERNETES__PROXIES__POD_LABELS: must be a mapping; in the environment as JSON: {"…": …}',
    ),
    ({"FAIRLEAD_SSH__HOST_KEY_DIR": "[1]"}, "FAIRLEAD_SSH__HOST_KEY_DIR: must be a path, not a list"),
    (
        {"FAIRLEAD_TRUST__SECRET_NAMESPACE": "A_B"},
        "FAIRLEAD_TRUST__SECRET_NAMESPACE: must be 1 to 253 lower-case letters, digits and `-` or "
        "`.`, letters or digits at both ends, not 'A_B'",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__CONFIRM__LISTEN": "8022"},
        "front_door.confirm.listen: '8022' is not host:port (an IPv6 address goes in brackets)",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '["github"]'},
        "front_door.providers.0: must be a section of settings",
    ),
    (
        {"FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"github","client_id":"a","url":"hub.example"}]'},
        "front_door.providers.0.url: 'hub.example' is not a plain absolute URL",
    ),
    (
        {
            "FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"oidc","issuer":"https://x.example","client_id":"a","scopes":["profile"]}]'
        },
        "front_door.providers.0: scopes must hold openid",
    ),
    (
        {
            "FAIRLEAD_FRONT_DOOR__PROVIDERS": '[{"kind":"oidc","issuer":"https://x.example","client_id":"a","approval":"device"}]'
        },
        "front_door.providers.0: approval: device needs mapping.keys, since a device code proves "
        "no key; without a claim that lists keys use approval: confirm",
    ),
    (
        {"FAIRLEAD_TRUST__ANNOUNCE_S": "10"},
        "trust: announce_s must exceed refresh_s, or a proxy could miss a successor",
    ),
    ({"FAIRLEAD_RECORDING__BLOCK_BYTES": "8000000"}, "recording: block_bytes must not exceed buffer_bytes"),
    (
        {"FAIRLEAD_PROTECTION__STARTUPS_BEGIN": "5000"},
        "protection: startups_begin must not exceed startups_full",
    ),
    (
        {"FAIRLEAD_KUBERNETES__TERMINATION_GRACE_S": "60"},
        "kubernetes: termination_grace_s must be below stop_timeout_s",
    ),
    (
        {"FAIRLEAD_RECORDING__S3__ACCESS_KEY_ID": "x"},
        "recording.s3: access_key_id and secret_access_key_file go together",
    ),
    ({"FAIRLEAD_EVENTS__TLS_CERT_FILE": "x"}, "events: tls_cert_file and tls_key_file go together"),
    (
        {"FAIRLEAD_EVENTS__URLS": "nats://a,tls://b"},
        "FAIRLEAD_EVENTS__URLS: either all URLs are tls:// or none is",
    ),
    (
        {"FAIRLEAD_EVENTS": "nats://user:hunter2@nats.example"},
        "FAIRLEAD_EVENTS: must be a section of settings",
    ),
    ({"FAIRLEAD_EVENTS__PASSWORD": "hunter2"}, "FAIRLEAD_EVENTS__PASSWORD: there is no such setting"),
    ({"FAIRLEAD_HOME": "x", "FAIRLEAD_HOME__SUB": "y"}, "FAIRLEAD_HOME__SUB: home is a value, not a section"),
    (
        {"FAIRLEAD_IDENTITY__FIRST_UID": "50000", "FAIRLEAD_IDENTITY__LAST_UID": "40000"},
        "identity: first_uid must not exceed last_uid",
    ),
    (
        {"FAIRLEAD_LISTEN": "x", "FAIRLEAD_LOG__LEVEL": "loud"},
        "FAIRLEAD_LISTEN: 'x' is not host:port (an IPv6 address goes in brackets); "
        "FAIRLEAD_LOG__LEVEL: must be 'debug', 'info', 'warning' or 'error', not 'loud'",
    ),
]
"""By what stands in the environment; of a list or a mapping in JSON the path inside is named."""

FILES: list[tuple[str, str]] = [
    ("relay: {no_such: 1}", "relay.no_such: there is no such setting"),
    ("login: {timeout_s: 1 h}", "login.timeout_s: must be a number of seconds, not '1 h'"),
    ("login: {timeout_s: null}", "login.timeout_s: must be a number of seconds, not nothing"),
    ("relay:", "relay: must be a section of settings"),
    ("relay: 7", "relay: must be a section of settings"),
    (
        "front_door: {providers: [{kind: github, client_id: a, mapping: {nickname: x}}]}",
        "front_door.providers.0.mapping.nickname: there is no such setting",
    ),
    (
        "front_door: {onboarding: {rules: [{name: a, action: allow, group: x}]}}",
        "front_door.onboarding.rules.0.group: there is no such setting",
    ),
    (
        "workspace: {namespaces: no}",
        "workspace.namespaces: must be 'auto', 'bwrap', 'unshare' or 'none', not False",
    ),
    ("listen: 2222", "listen: must be text, not 2222"),
    (
        "proxy_protocol: {trusted: 10.0.0.0/8}",
        'proxy_protocol.trusted: must be a list; in the environment as JSON: ["…"]',
    ),
    ("sessions: {limits: [{idle_s: -5}]}", "sessions.limits.0.idle_s: must be at least 0 seconds, not -5"),
    ("recording: {retention_days: 0.5}", "recording.retention_days: must be a whole number of days, not 0.5"),
    (
        "kubernetes: {proxies: {cidrs: {a: b}}}",
        'kubernetes.proxies.cidrs: must be a list; in the environment as JSON: ["…"]',
    ),
]
"""By what stands in a file; the path in it is named."""

UNREADABLE: list[tuple[bytes, str]] = [
    (b"- 1", ": must hold a mapping of settings, not list"),
    (b"text", ": must hold a mapping of settings, not str"),
    (b"relay: [", ":1: is not YAML: expected the node content, but found '<stream end>'"),
    (b"relay:\n\tx: 1", ":2: is not YAML: found character '\\t' that cannot start any token"),
    (b"listen: \xff", ": is not UTF-8 text at byte 8"),
    (b"home: a\x00b", ": is not YAML: unacceptable character"),
]
"""Files that are none of settings; the sentence begins with the file's name."""


def sentence(environ: dict[str, str], file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ, file)
    return str(caught.value)


def test_there_are_forty_of_them() -> None:
    assert len({str(row) for row in (*ENVIRONMENT, *FILES, *UNREADABLE)}) >= 40


@pytest.mark.parametrize(("environ", "said"), ENVIRONMENT, ids=[said[:60] for _, said in ENVIRONMENT])
def test_a_bad_setting_of_the_environment_gets_its_sentence(environ: dict[str, str], said: str) -> None:
    assert sentence(environ) == said


@pytest.mark.parametrize(("text", "said"), FILES, ids=[said[:60] for _, said in FILES])
def test_a_bad_setting_of_a_file_gets_its_sentence(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "fairlead.yaml"
    file.write_text(text)
    assert sentence({}, file) == said


@pytest.mark.parametrize(("content", "said"), UNREADABLE)
def test_a_file_that_cannot_be_read_gets_a_sentence_with_its_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "fairlead.yaml"
    file.write_bytes(content)
    assert sentence({}, file).startswith(f"{file}{said}")
    assert "\n" not in sentence({}, file)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    assert sentence({"FAIRLEAD_CONFIG": f"{tmp_path}/none"}) == f"{tmp_path}/none: No such file or directory"


def test_no_sentence_holds_a_regular_expression_a_secret_or_words_of_pydantic() -> None:
    for said in (said for _, said in (*ENVIRONMENT, *FILES)):
        assert not any(word in said for word in ("Input should", "String should", "[a-z", "hunter2", "\n")), (
            said
        )
        assert "discriminator" not in said


def test_every_pattern_of_a_setting_has_words() -> None:
    def patterns(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["pattern"]} if isinstance(node.get("pattern"), str) else set()
            return own.union(*map(patterns, node.values()))
        return set().union(*map(patterns, node)) if isinstance(node, list) else set()

    assert patterns(Settings.model_json_schema()) == set(PATTERNS)


POD = "fairlead-proxy-7d9c5b6f4d-x2x9q"
"""As a Deployment names its pods."""


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("local", "local"),
        (POD, POD),
        ("a" * 31, "a" * 31),
        ("fairlead.example-0", "fairlead-example-0-36615732e8"),
        ("x" * 253, "x" * 20 + "-1329e1bd71"),
        (f"{'y' * 19}.{'z' * 40}", "y" * 19 + "-8b4c4f3c70"),
    ],
)
def test_proxy_id_takes_the_name_of_any_pod_and_sockets_stay_short(given: str, used: str) -> None:
    settings = load({"FAIRLEAD_PROXY_ID": given})
    assert settings.proxy_id == used
    assert len(settings.proxy_id) <= 31


def test_two_long_names_of_pods_are_told_apart() -> None:
    names = [f"{'fairlead-proxy-of-a-region' * 3}-{number}" for number in range(100)]
    assert len({load({"FAIRLEAD_PROXY_ID": name}).proxy_id for name in names}) == len(names)
