"""`python -m service.healthcheck`: whether the server of these MBUNET_* variables is ready, as exit status."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from service import settings

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
TIMEOUT_S = 3.0


def is_ready(environment: Mapping[str, str]) -> bool:
    """Whether /readyz answers 200 there, by HTTPS where a certificate is set: whose it is does not matter here."""
    chosen = settings.load(environment)
    host = EVERYWHERE.get(chosen.host, chosen.host)
    if chosen.tls_certificate:
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connection: HTTPConnection = HTTPSConnection(host, chosen.port, timeout=TIMEOUT_S, context=trusting)
    else:
        connection = HTTPConnection(host, chosen.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_ready(os.environ))
