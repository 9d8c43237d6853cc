import pytest

from proxy.errors import SettingsError
from proxy.settings import load


def test_nothing_is_served_until_an_address_is_given() -> None:
    web = load({}).web
    assert web.listen == ""
    assert (web.scheme, web.port(8022), web.apps_domain) == ("http", 8022, "localhost")


def test_browsers_use_what_the_edge_speaks() -> None:
    behind = load({"FAIRLEAD_WEB__PUBLIC_SCHEME": "https"}).web
    assert (behind.scheme, behind.port(8022), behind.scheme_spoken) == ("https", 443, "http")
    own = load({"FAIRLEAD_WEB__TLS__CERT": "/c", "FAIRLEAD_WEB__TLS__KEY": "/k"}).web
    assert (own.scheme, own.port(8443), own.scheme_spoken) == ("https", 8443, "https")
    assert load({"FAIRLEAD_WEB__PUBLIC_PORT": "9"}).web.port(8022) == 9


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("LISTEN", "8022", "is not host:port"),
        ("APPS_DOMAIN", "Apps.example.com", "FAIRLEAD_WEB__APPS_DOMAIN"),
        ("APPS_DOMAIN", ".localhost", "FAIRLEAD_WEB__APPS_DOMAIN"),
        ("TRUSTED_PROXIES", '["10.0.0.1/8"]', "has bits behind its prefix"),
        ("PROXY_PROTOCOL", '["nonsense"]', "nonsense"),
        ("MAX_TARGET_BYTES", "65536", "max_target_bytes must be less than max_head_bytes"),
        ("TLS__CERT", "/x", "cert and key go together"),
        ("PUBLIC_SCHEME", "ftp", "FAIRLEAD_WEB__PUBLIC_SCHEME"),
        ("HEAD_S", "0", "FAIRLEAD_WEB__HEAD_S"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({f"FAIRLEAD_WEB__{name}": value})
    assert sentence in str(caught.value)
