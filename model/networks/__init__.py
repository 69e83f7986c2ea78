"""Keras networks that classify candidates as nodule or non-nodule.

- `model_names`: the names alone; does not load Keras.
- `registry`: builds a network by its name.
- `article_cnn`, `nodule_net`: one network each.
- `layers`: custom layers, which Keras needs to load a saved model.
- `spatial_layers`: Keras's layers for images or for volumes.
"""
