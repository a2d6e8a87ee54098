"""What every test has: the simulator as a fixture, a guard of the event loop, a quiet log."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

from cti_listener.testing import cti_server
from cti_listener.values import china

__all__ = ["cti_server"]

# No property is timed: how long an example takes is the machine's affair.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")

# `make fuzz` asks for it, with --hypothesis-profile; else each property gets a hundred examples.
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "5000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

LONGEST = (
    "test_rabbitmq_durable.py",
    "test_readme.py",
    "test_app_journal.py",
    "test_page.py",
    "test_program.py",
    "test_container.py",
    "test_app_service.py",
)
"""The files that take half a minute and more: first, lest one of them comes last alone."""


@pytest.hookimpl(trylast=True)  # behind pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; all else keeps its order, at random."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


china()  # the time zone is read from disk once, and not in the middle of a test


@pytest.fixture(autouse=True)
def unblocked() -> Iterator[BlockBuster]:
    """Fail a test in which our code blocks the event loop."""
    with blockbuster_ctx("cti_listener") as guard:
        yield guard


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log nowhere; `structlog.testing.capture_logs` sees everything all the same."""
    structlog.configure(
        processors=[],
        wrapper_class=structlog.BoundLogger,
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    yield
    structlog.reset_defaults()
