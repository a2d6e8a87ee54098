"""The page: one file, and the policy under which a browser runs it and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Final, NamedTuple, Self

_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


class Page(NamedTuple):
    """What is served at the root.

    Attributes:
        body: The file.
        policy: Its Content-Security-Policy: the script and the style in it, told by their digests,
            and what they ask of this server; no other source, frame or form.
    """

    body: bytes
    policy: str

    @classmethod
    def read(cls) -> Self:
        """Read it; a kilobyte or some, once."""
        body = files("cti_listener.admin").joinpath("page.html").read_bytes()
        policy = (
            f"default-src 'none'; script-src {_digests(_SCRIPT, body)}; "
            f"style-src {_digests(_STYLE, body)}; connect-src 'self'; img-src data:; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        return cls(body, policy)


def _digests(pattern: re.Pattern[bytes], body: bytes) -> str:
    found = (hashlib.sha256(text).digest() for text in pattern.findall(body))
    return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in found)
