"""LUNA16's ten-fold cross-validation."""
