"""Certificates: what is in them, and what they are good for."""

import os
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from proxy.trust.authority import CLIENT_NAME, Authority, KeyPair, bundle, is_fresh, server_name, serves

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
HOUR, DAY, YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)
WS1 = "alice-0123456789.homes.fairlead.internal"
WS2 = "bob-0123456789.homes.fairlead.internal"


def authority(label: str = "1") -> Authority:
    return Authority.create(label, NOW, 2 * YEAR, HOUR)


def parsed(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def extension(certificate: x509.Certificate, kind: type) -> x509.Extension:
    return certificate.extensions.get_extension_for_class(kind)


def test_names() -> None:
    assert server_name("alice-0123456789", "homes") == WS1
    for workspace, namespace in [
        ("a.b", "homes"),
        ("a", "b.c"),
        ("", "homes"),
        ("a", ""),
        ("-a", "b"),
        ("A", "b"),
        ("a" * 64, "b"),
        ("a\n", "b"),
        ("*", "b"),
    ]:
        with pytest.raises(ValueError, match="no DNS label"):
            server_name(workspace, namespace)


def test_an_authority_signs_leaves_of_our_names_and_nothing_else() -> None:
    certificate = authority().certificate
    constraints = extension(certificate, x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = extension(certificate, x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    names = extension(certificate, x509.NameConstraints)
    assert names.critical
    assert {name.value for name in names.value.permitted_subtrees or []} == {"fairlead.internal", CLIENT_NAME}
    assert certificate.not_valid_before_utc == NOW - HOUR
    assert certificate.not_valid_after_utc == NOW + 2 * YEAR


def test_two_authorities_have_two_subjects() -> None:
    """A verifier finds the issuer by its subject; two of one name would be tried by chance."""
    assert authority("1").certificate.subject != authority("2").certificate.subject


@pytest.mark.parametrize("kind", ["server", "client"])
def test_a_leaf_has_one_name_and_one_use(kind: str) -> None:
    made = authority()
    if kind == "server":
        certificate = parsed(made.issue_server(WS1, NOW, DAY, HOUR))
        name, use = WS1, ExtendedKeyUsageOID.SERVER_AUTH
    else:
        certificate = parsed(made.issue_client(NOW, DAY, HOUR))
        name, use = CLIENT_NAME, ExtendedKeyUsageOID.CLIENT_AUTH
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [use]
    assert extension(certificate, x509.BasicConstraints).value.ca is False
    assert not extension(certificate, x509.KeyUsage).value.key_cert_sign
    assert made.issued(certificate)
    assert not authority().issued(certificate)
    assert certificate.not_valid_before_utc == NOW - HOUR
    assert certificate.not_valid_after_utc == NOW + DAY


def test_an_independent_verifier_agrees() -> None:
    """`cryptography`'s own path validation, in both roles."""
    made = authority()
    policy = PolicyBuilder().store(Store([made.certificate])).time(NOW)
    server = parsed(made.issue_server(WS1, NOW, DAY, HOUR))
    policy.build_server_verifier(x509.DNSName(WS1)).verify(server, [])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName(WS2)).verify(server, [])
    policy.build_client_verifier().verify(parsed(made.issue_client(NOW, DAY, HOUR)), [])
    with pytest.raises(VerificationError):
        policy.build_client_verifier().verify(server, [])
    foreign = parsed(made.issue_server("host.example.com", NOW, DAY, HOUR))
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("host.example.com")).verify(foreign, [])


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Shake hands in memory. Raises: ssl.SSLCertVerificationError when either side refuses the other."""
    inbox, outbox = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(inbox, outbox, server_hostname=name),
        server.wrap_bio(outbox, inbox, server_side=True),
    ]
    for _ in range(4):  # TLS 1.3 takes three flights
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    for end in ends:
        assert end.version() == "TLSv1.3"


def strict(purpose: ssl.Purpose, roots: bytes, pair: KeyPair, directory: Path) -> ssl.SSLContext:
    """Make a context that verifies as Python 3.13 does by default, on every Python."""
    (file := directory / f"{purpose.shortname}.pem").write_bytes(pair.key + pair.certificate)
    context = ssl.create_default_context(purpose, cadata=roots.decode())
    context.load_cert_chain(file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def test_everything_issued_passes_x509_strict_on_both_sides(tmp_path: Path) -> None:
    """OpenSSL's X509_V_FLAG_X509_STRICT, which Python sets by default since 3.13 (RFC 5280, section 4.2)."""
    now = datetime.now(UTC)
    old, new = (Authority.create(label, now, YEAR, HOUR) for label in ("1", "2"))
    roots = bundle([old, new])
    for signer in (old, new, Authority.load(new.dump())):
        client = strict(ssl.Purpose.SERVER_AUTH, roots, signer.issue_client(now, DAY, HOUR), tmp_path)
        server = strict(ssl.Purpose.CLIENT_AUTH, roots, signer.issue_server(WS1, now, DAY, HOUR), tmp_path)
        shake_hands(client, server, WS1)


@pytest.mark.parametrize("kind", [x509.AuthorityKeyIdentifier, x509.SubjectKeyIdentifier])
def test_x509_strict_is_what_the_handshake_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[x509.ExtensionType]
) -> None:
    """Without one of the extensions that it wants, the same handshake fails: the test above can fail."""
    add = x509.CertificateBuilder.add_extension

    def without(
        builder: x509.CertificateBuilder, extension: x509.ExtensionType, critical: bool
    ) -> x509.CertificateBuilder:
        return builder if isinstance(extension, kind) else add(builder, extension, critical)

    monkeypatch.setattr(x509.CertificateBuilder, "add_extension", without)
    with pytest.raises(ssl.SSLCertVerificationError, match="Missing"):
        test_everything_issued_passes_x509_strict_on_both_sides(tmp_path)


def test_a_leaf_outlives_its_authority_on_neither_side() -> None:
    made = Authority.create("1", NOW, DAY, timedelta(0))
    certificate = parsed(made.issue_client(NOW, YEAR, HOUR))
    assert certificate.not_valid_before_utc == NOW
    assert certificate.not_valid_after_utc == NOW + DAY


def test_freshness_ends_with_two_thirds_of_a_life() -> None:
    certificate = parsed(authority().issue_client(NOW, timedelta(hours=3)))
    assert is_fresh(certificate, NOW)
    assert is_fresh(certificate, NOW + timedelta(minutes=119))
    assert not is_fresh(certificate, NOW + timedelta(minutes=121))
    assert not is_fresh(certificate, NOW - timedelta(seconds=1))


def test_what_a_workspace_has_is_kept_only_while_all_of_it_is_right() -> None:
    made, other = authority("1"), authority("2")
    pair = made.issue_server(WS1, NOW, DAY, HOUR)
    assert serves(pair, WS1, made, NOW)
    assert not serves(pair, WS2, made, NOW)
    assert not serves(pair, WS1, other, NOW)
    assert not serves(pair, WS1, made, NOW + DAY)
    assert not serves(KeyPair(pair.certificate, other.dump().key), WS1, made, NOW)
    assert not serves(KeyPair(b"", b""), WS1, made, NOW)
    assert not serves(KeyPair(pair.certificate, b"-----BEGIN"), WS1, made, NOW)


def test_an_authority_survives_being_written_down() -> None:
    made = authority()
    read = Authority.load(made.dump())
    assert read.pem == made.pem
    assert made.issued(parsed(read.issue_client(NOW, DAY)))
    with pytest.raises(ValueError, match="do not belong"):
        Authority.load(KeyPair(made.pem, authority().dump().key))
    with pytest.raises(ValueError, match="PEM"):
        Authority.load(KeyPair(b"nonsense", made.dump().key))
    small = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(ValueError, match="do not belong"):
        Authority.load(KeyPair(made.pem, small))


def test_bundle_holds_every_root() -> None:
    both = [authority("1"), authority("2")]
    assert [one.subject for one in x509.load_pem_x509_certificates(bundle(both))] == [
        one.certificate.subject for one in both
    ]
    assert os.fsencode("PRIVATE") not in bundle(both)
