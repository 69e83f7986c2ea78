"""Plots and pictures of networks."""
