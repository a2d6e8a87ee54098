"""Runs the parsers' properties at length, round after round: `make fuzz`.

    python -m tests.fuzz [--minutes N] [--examples N] [pytest's arguments]

Each round is pytest with hypothesis' profile `fuzz`, other examples each time. The first failure
ends it, with what to do to see it again; hypothesis tries it first the next time.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import count
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parent.parent
PROPERTIES = "tests/test_any_bytes.py"
COUNTED = re.compile(r"^(\S+::\w+).*?:$|(\d+) passing, (\d+) failing", re.MULTILINE)


def run_round(examples: int, arguments: list[str]) -> tuple[int, str]:
    """Run pytest once; return its exit code and what it printed."""
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-profile=fuzz"]
    command += ["--hypothesis-show-statistics", "-o", "timeout=0", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "FUZZ_EXAMPLES": str(examples)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def count_examples(printed: str) -> Counter[str]:
    """Return how many examples each property was tried with."""
    counted: Counter[str] = Counter()
    name = ""
    for match in COUNTED.finditer(printed):
        if match[1]:
            name = match[1].rpartition("::")[2]
        else:
            counted[name] += int(match[2]) + int(match[3])
    return counted


def main() -> int:
    """Run rounds until the time is over; return the last one's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no round after these")
    parser.add_argument("--examples", type=int, default=1000, help="of each property, each round")
    given, arguments = parser.parse_known_args()
    until = monotonic() + given.minutes * 60
    total: Counter[str] = Counter()
    for number in count(1):
        code, printed = run_round(given.examples, arguments or [PROPERTIES])
        total += count_examples(printed)
        if not code and not total:
            sys.exit("hypothesis tells in another form how many examples there were: mend COUNTED")
        if code or monotonic() >= until:
            break
        say(f"{total.total():,} examples in {number} rounds, nothing found")
    if code:
        say(printed)
    for name, times in sorted(total.items()):
        say(f"{times:12,} {name}")
    say(f"{total.total():12,} examples in {number} rounds: {'FAILED' if code else 'nothing found'}")
    return code


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
