"""When a certificate ends: what is read of it, what is logged, and what stands in the Lease."""

from __future__ import annotations

import base64
import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from extender.app.files import tell_certificates
from extender.web.certificates import end_of
from extender.web.tls import ServerTls
from tests.builders import NOW

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(ends: datetime, name: str = "warmnode") -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(ends)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "tls.key").write_bytes(key)
    return tmp_path / "tls.crt", tmp_path / "tls.key"


@given(st.datetimes(min_value=datetime(2021, 1, 1), max_value=datetime(2099, 1, 1)))  # noqa: DTZ001
def test_end_is_read_whatever_its_form(ends: datetime) -> None:
    """Two digits of the year up to 2049, four from then on; a chain's first certificate is the one that is shown."""
    ends = ends.replace(microsecond=0, tzinfo=UTC)
    chain = b"bag attributes\n" + certificate(ends, "x" * 60) + certificate(datetime(2030, 1, 1, tzinfo=UTC))
    assert end_of(chain.decode()) == ends


@given(st.binary(max_size=200), st.integers(0, 300))
def test_end_of_what_is_no_certificate_is_none(noise: bytes, cut: int) -> None:
    """And no crash: the key and the certificate may lie in the wrong files."""
    good = certificate(NOW).decode().splitlines()
    body = x509.load_pem_x509_certificate(certificate(NOW)).public_bytes(serialization.Encoding.DER)[:cut]
    for der in (noise, body):
        pem = "\n".join((good[0], base64.b64encode(der).decode(), good[-1]))
        assert end_of(pem) in (None, NOW)
    assert end_of(noise.decode("latin-1")) is None


def test_end_of_a_certificate_that_has_no_validity_is_none() -> None:
    """Of the right shape otherwise: a sequence that begins with one of three numbers."""
    three = bytes.fromhex("020107" * 3)
    certificate = bytes([0x30, len(three) + 2, 0x30, len(three)]) + three
    assert end_of(ssl.DER_cert_to_PEM_cert(certificate)) is None


def test_certificate_in_force_says_when_it_ends(files: tuple[Path, Path]) -> None:
    """The new one does after a reload."""
    files[0].write_bytes(certificate(NOW))
    tls = ServerTls(cert_file=files[0], key_file=files[1])
    assert tls.ends == NOW
    files[0].write_bytes(certificate(NOW + timedelta(days=90)) + b"\n")
    assert tls.reload()
    assert tls.ends == NOW + timedelta(days=90)


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [(15, logging.INFO, "is valid"), (13, logging.WARNING, "expires soon"), (-27, logging.ERROR, "has expired")],
)
def test_end_is_logged_loudly_where_it_is_near(
    files: tuple[Path, Path], caplog: pytest.LogCaptureFixture, days: int, level: int, said: str
) -> None:
    """Handshakes fail then, and the scheduler logs nothing."""
    files[0].write_bytes(certificate(NOW + timedelta(days=days)))
    caplog.set_level(logging.INFO, "warmnode")
    tell_certificates([ServerTls(cert_file=files[0], key_file=files[1])], NOW)
    (record,) = caplog.records
    assert (record.levelno, said in record.message) == (level, True)
