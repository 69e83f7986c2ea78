"""Files in object stores: paths, requests, and what lets TFDS read them."""
