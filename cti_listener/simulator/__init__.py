"""A simulated contact centre behind a real server for both wires; never on an event's way.

`scenarios` says what happens, `centre` when and to whom, `faults` what goes wrong, `server` tells
it to whoever connects. `twin` has several servers tell of one centre.
"""

from cti_listener.simulator.centre import Centre
from cti_listener.simulator.faults import Faults
from cti_listener.simulator.records import Ledger, Life, Sent, Stats, uncovered
from cti_listener.simulator.scenarios import SCENARIOS
from cti_listener.simulator.server import SimulatorServer, serve_forever
from cti_listener.simulator.sessions import Session
from cti_listener.simulator.twin import Twin

__all__ = [
    "SCENARIOS",
    "Centre",
    "Faults",
    "Ledger",
    "Life",
    "Sent",
    "Session",
    "SimulatorServer",
    "Stats",
    "Twin",
    "serve_forever",
    "uncovered",
]
