"""Processes of this machine: workers and usable cores."""
