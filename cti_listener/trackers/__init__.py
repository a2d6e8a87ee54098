"""Trackers fold events into calls and agents: pure, one event at a time, no clock of their own."""
