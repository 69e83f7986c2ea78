"""Metrics of a scored split."""
