"""Processes of this machine: workers, usable cores, locks, temporary folders."""
