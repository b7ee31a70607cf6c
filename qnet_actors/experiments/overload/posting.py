"""POST over kept connections, as cheaply as it goes: a generator must not be what is overloaded."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple
from urllib.parse import urlsplit

ANSWER_TIMEOUT_SECONDS: Final = 60.0


class Answer(NamedTuple):
    """An HTTP response whose length is declared, which a gateway's always is."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Poster:
    """Any number of requests at a time, each on a connection of its own that is used again."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self._host: Final = parts.hostname or ""
        self._port: Final = parts.port or 80
        self._head: Final = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Content-Type: application/msgpack\r\nContent-Length: "
        )
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> Answer:
        """Raises OSError, EOFError, ValueError or TimeoutError where no answer comes."""
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        whole = False
        try:
            writer.write(f"{self._head}{len(body)}\r\n\r\n".encode())
            writer.write(body)
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {}
                for line in head[1:-2]:
                    name, _, value = line.partition(":")
                    headers[name.strip().lower()] = value.strip()
                answer = await reader.readexactly(int(headers.get("content-length", "0")))
            whole = headers.get("connection", "").lower() != "close"
            return Answer(int(head[0].split(" ")[1]), headers, answer)
        finally:
            # One whose answer was not read to its end would give it to the next request.
            if whole:
                self._idle.append((reader, writer))
            else:
                writer.close()

    def close(self) -> None:
        """Closes what is idle."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()
