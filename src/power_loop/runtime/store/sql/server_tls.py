"""Makes from a DSN how a connection is encrypted."""

from __future__ import annotations

import ssl

from power_loop.contracts.errors import InvalidDsnError
from power_loop.runtime.store.server_dsn import ServerDsn


def tls_context(dsn: ServerDsn) -> ssl.SSLContext | None:
    """Return the context of an encrypted connection; None where there is to be none. Raises `store.invalid_dsn`.

    As in libpq, `require` with a root certificate checks it, and without one takes whoever answers.
    """
    if dsn.sslmode == "disable" or dsn.socket is not None:
        return None
    try:
        context = ssl.create_default_context(cafile=dsn.sslrootcert)
    except (OSError, ValueError) as error:
        raise InvalidDsnError(f"sslrootcert={dsn.sslrootcert!r} in dsn cannot be read: {error}") from error
    is_checked = dsn.sslmode.startswith("verify") or (dsn.sslmode == "require" and dsn.sslrootcert is not None)
    context.check_hostname = dsn.sslmode == "verify-full"
    if not is_checked:
        context.verify_mode = ssl.CERT_NONE
    if dsn.sslcert is not None:
        try:
            context.load_cert_chain(dsn.sslcert, dsn.sslkey, password=_no_password)
        except (OSError, ValueError) as error:
            raise InvalidDsnError(f"sslcert={dsn.sslcert!r} in dsn cannot be read with its key: {error}") from error
    return context


def _no_password() -> str:
    # Without this, a key that is encrypted has the process ask its terminal.
    raise ValueError("the key is encrypted")
