"""Which certificates a PEM file has, and when one ends: Python's `ssl` tells the end of peers' only."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0x17, 0x18
_FORMATS = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_BLOCKS = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END", re.DOTALL)


def certificates_in(pem: str) -> frozenset[str]:
    """Give each certificate of the file, in base64. Order, line ends and what stands between them do not matter.

    `SSLContext.get_ca_certs` leaves out those that are no CA, and one that is an anchor all the same can be withdrawn.
    """
    return frozenset("".join(block.split()) for block in _BLOCKS.findall(pem))


def end_of(pem: str) -> datetime | None:
    """Say when the first certificate ends, which is the one that is shown. None where it cannot be read.

    RFC 5280, 4.1: a Certificate is a sequence of tbsCertificate and more; in that, after up to four fields (version,
    serialNumber, signature, issuer), stands validity, a sequence of two times.
    """
    begin = pem.find(_BEGIN)
    end = pem.find(_END, begin)
    if begin < 0 or end < 0:
        return None
    try:
        certificate = ssl.PEM_cert_to_DER_cert(pem[begin : end + len(_END)])
        fields = _inside(_inside(_inside(certificate)[0][1])[0][1])
        for tag, content in fields[2:5]:
            times = _inside(content) if tag == _SEQUENCE else []
            if len(times) == 2 and all(kind in _FORMATS for kind, _ in times):
                kind, text = times[1]
                return datetime.strptime(text.decode(), _FORMATS[kind]).replace(tzinfo=UTC)
    except (ValueError, IndexError):
        pass
    return None


def _inside(der: bytes) -> list[tuple[int, bytes]]:
    """Take apart what follows one another: tag and content of each. Raises IndexError or ValueError."""
    found = []
    while der:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[2:start])
        if start + length > len(der):
            raise ValueError("cut off")
        found.append((tag, der[start : start + length]))
        der = der[start + length :]
    return found
