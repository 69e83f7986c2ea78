"""The names of the networks, for commands that must not load Keras to list them."""

from __future__ import annotations

# In the order of `registry.BUILDERS`.
MODELS = ('article_cnn', 'nodule_net')
