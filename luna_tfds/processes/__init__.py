"""Processes of this machine: workers, usable cores, garbage collection."""
