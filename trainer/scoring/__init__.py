"""Probabilities of records and scans, and the operating point."""
