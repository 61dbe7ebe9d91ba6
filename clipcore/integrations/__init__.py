"""Clipping in the frameworks people train with: `keras`, `torch`, `optax`, each imported only by its name."""
