"""Signs what a webhook is sent, as Standard Webhooks has it, by the library of that name.

Called by `webhook`. With several keys each signs, so that the receiver may know either while they
are changed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from standardwebhooks import Webhook

from cti_listener.errors import ConfigurationError
from cti_listener.ops.masking import mask_path

_PREFIX: Final = "whsec_"
_SHORTEST: Final = 24
_LONGEST: Final = 64
_SETTING: Final = "webhook_secret_file"


class Keys:
    """The keys that are in force.

    Args:
        keys: Each as it stands in the file.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """Take the keys; none: nothing is signed."""
        self._signers = [Webhook(one) for one in keys]

    def __repr__(self) -> str:
        return f"<Keys {len(self._signers)}>"

    def headers(self, message: str, body: str, now: datetime) -> dict[str, str]:
        """Return the headers of one try (Standard Webhooks, "Webhook Metadata").

        Args:
            message: Its id, the same for every try.
            body: The exact text that is sent.
            now: When this try is made, aware.
        """
        now = now.astimezone(UTC)
        headers = {"webhook-id": message, "webhook-timestamp": str(int(now.timestamp()))}
        if self._signers:
            headers["webhook-signature"] = " ".join(
                one.sign(msg_id=message, timestamp=now, data=body) for one in self._signers
            )
        return headers


def read_keys(path: Path) -> list[str]:
    """Read the keys from a file, one a line; blank lines are passed over.

    Raises:
        ConfigurationError: It cannot be read, holds none, or what is no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise ConfigurationError(
            _SETTING, f"cannot read {mask_path(path)}: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(_SETTING, f"{mask_path(path)} is not UTF-8 text") from None
    if not lines:
        raise ConfigurationError(_SETTING, f"{mask_path(path)} holds no key")
    for number, line in enumerate(lines, 1):
        if (problem := _ailment(line)) is not None:
            advice = f"write {_PREFIX} and 24 to 64 random bytes in base64"
            where = f"key {number} in {mask_path(path)}"
            raise ConfigurationError(_SETTING, f"{where} {problem}; {advice}")
    return lines


def _ailment(key: str) -> str | None:
    """Tell what is wrong with a key, without a word of it."""
    text = key.removeprefix(_PREFIX)
    try:
        length = len(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (binascii.Error, ValueError):
        return "is not base64"
    if not _SHORTEST <= length <= _LONGEST:
        return f"has {length} bytes"
    return None
