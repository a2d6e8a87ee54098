"""The admin endpoint: what someone on call, a container's keeper and Prometheus ask over HTTP.

It only reads. `app` opens it for `--admin HOST:PORT`; whoever embeds a `Listener` makes one by
`make_admin`. What it takes (aiohttp, prometheus_client) is imported by that alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cti_listener.errors import ConfigurationError

if TYPE_CHECKING:
    from cti_listener.admin.server import AdminServer
    from cti_listener.listener import Listener

__all__ = ["make_admin"]


def make_admin(listener: Listener, **options: Any) -> AdminServer:
    """Return the endpoint of a listener, for `async with`.

    Args:
        listener: What it tells of; from now on it tracks calls and agents.
        **options: What `AdminServer` takes.

    Raises:
        ConfigurationError: The extra `http` is not installed, or it cannot be done as asked.
    """
    try:
        from cti_listener.admin.server import AdminServer  # noqa: PLC0415 - by this alone
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"aiohttp", "prometheus_client"}:
            raise
        raise ConfigurationError("admin", "needs pip install 'cti-listener[http]'") from None
    return AdminServer(listener, **options)
