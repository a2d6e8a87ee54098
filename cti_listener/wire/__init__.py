"""Bytes into wire events: `base` is the plug, the others speak it and never import each other."""
