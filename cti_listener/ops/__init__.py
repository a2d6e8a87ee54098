"""What surrounds a run: output, logs, health. Nothing here decides about an event."""
