"""Networks that tell nodules from other candidates, and how they are scored.

Knows nothing of the dataset: networks take Hounsfield units, metrics take arrays.
"""
