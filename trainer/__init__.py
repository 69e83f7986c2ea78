"""Trains, evaluates and applies a nodule classifier on `luna16_patches`."""
