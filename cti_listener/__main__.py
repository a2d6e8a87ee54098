"""`python -m cti_listener` is `cti-listen`: some answers at once, all others by `cli`."""

import sys

from cti_listener import quick


def main() -> int:
    """Run the process's command line; return its exit code."""
    tokens = sys.argv[1:]
    answered = quick.answer(tokens)
    if answered is not None:
        return answered
    from cti_listener import cli  # noqa: PLC0415 - what the answers above do without

    return cli.main(tokens)


if __name__ == "__main__":
    sys.exit(main())
