"""Plain generators, one layer after another, rebuilt from the state dict alone.

A state dict says what the layers are and how many units they have, but not the strides, paddings, activations and
latents. Batch norms do: each keeps the mean and variance of what reached it in training, which the right network on the
right latents reproduces and others do not (see `search`). `layers` reads them, `plan` says what a network is,
`network` builds it, `code` writes it as Python.
"""
