"""Networks that classify candidates as nodule or non-nodule, and their metrics.

`model.networks` builds the networks, `model.metrics` measures predictions. Neither knows
the dataset: networks take images in Hounsfield units, metrics take arrays.
"""
