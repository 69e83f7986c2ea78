"""Builds and fits networks."""
