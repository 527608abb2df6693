"""JSON over HTTP to one server: time limits, no redirects, no proxies, errors in its own words."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from modelpack.errors import InputError, WorkerError, first_line

# Seconds that one request may take, however slowly its bytes come.
TIME_LIMIT = 60.0

_CHUNK = 1 << 16
_LONGEST_MESSAGE = 300


class Client:
    """One connection to a server, opened again when the server has closed it.

    A connection serves one thread at a time.

    Args:
        address: ``http://host:port`` or ``https://host:port``; a path behind it is kept apart.
        time_limit: seconds of one request.

    Attributes:
        host: of the address, with its port if it has one.
        path: of the address, without a ``/`` at its end.

    Raises:
        InputError: the address cannot be used.
    """

    def __init__(self, address: str, time_limit: float = TIME_LIMIT) -> None:
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError as error:
            raise InputError(f"'{address}' is no address: {error}") from None
        if not parts.hostname or parts.scheme not in {"http", "https"}:
            raise InputError(f"'{address}' is no address of a server")
        if parts.username is not None or parts.query or parts.fragment:
            raise InputError(
                f"the address of '{parts.hostname}' has more than host, port and path",
                hint="leave out names, passwords, ? and #",
            )
        self.host = parts.netloc
        self.path = parts.path.rstrip("/")
        self._limit = time_limit
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname, port, timeout=time_limit)

    def get(self, path: str) -> Any:
        """GET a JSON document.

        Raises:
            InputError: the server cannot be reached, refuses, or answers with no JSON.
            WorkerError: it takes too long.
        """
        return self._json("GET", path, None)

    def post(self, path: str, document: Any) -> Any:
        """POST a JSON document and return the JSON answer; errors as `get`.

        Floats are written with all digits of their float64 value, which give back the same
        float32; NaN and infinity as the words that JavaScript has for them.
        """
        return self._json("POST", path, json.dumps(document).encode())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _json(self, method: str, path: str, body: bytes | None) -> Any:
        deed = f"{method} {path}"
        try:
            status, headers, content = self._exchange(method, path, body)
        except TimeoutError:
            self.close()
            raise WorkerError(
                f"{self.host} did not answer {deed} within {self._limit:g} s",
                hint="look at the server's log; a server may be up while its model hangs",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise InputError(
                f"cannot speak HTTP with {self.host}: {_reason(error)}",
                hint="is the server running, and is this its HTTP port?",
            ) from None
        if status >= 300:
            raise self._refusal(deed, status, headers, content)
        if headers.get("Inference-Header-Content-Length"):
            raise InputError(f"{self.host} answers {deed} in binary, not in JSON")
        try:
            return json.loads(content)
        except ValueError:
            raise InputError(
                f"{self.host} answers {deed} with no JSON: {_shortened(content)}"
            ) from None

    def _exchange(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        used = self._connection.sock is not None
        try:
            return self._once(method, path, body)
        except (ConnectionError, http.client.RemoteDisconnected):
            if not used:
                raise
            self.close()  # the server ended a connection that was kept; a new one may do
            return self._once(method, path, body)

    def _once(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        end = time.monotonic() + self._limit
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        parts = []
        while part := response.read1(_CHUNK):
            parts.append(part)
            if time.monotonic() > end:
                raise TimeoutError
        response.read()  # nothing is left, which only this notes
        return response.status, response.headers, b"".join(parts)

    def _refusal(
        self, deed: str, status: int, headers: http.client.HTTPMessage, content: bytes
    ) -> InputError:
        if status < 400:
            where = headers.get("Location", "elsewhere")
            return InputError(
                f"{self.host} redirects {deed} to {where}, which is not followed",
                hint="give the address that it redirects to",
            )
        return InputError(f"{self.host} answers {deed} with {status}: {_message(content)}")


def _message(content: bytes) -> str:
    """The server's own words, where the usual members of its JSON have them."""
    try:
        document = json.loads(content)
    except ValueError:
        return _shortened(content)
    for name in ("error", "detail", "message"):
        if isinstance(document, dict) and document.get(name):
            return _shortened(str(document[name]).encode())
    return _shortened(content)


def _shortened(content: bytes) -> str:
    text = " ".join(content.decode(errors="replace").split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or first_line(error)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__} {first_line(error)}"
