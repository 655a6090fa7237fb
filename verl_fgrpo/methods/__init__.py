"""One module per method, what they share, the table of estimators, losses, settings: tensors in, tensors out.

Not here: registration with verl and everything that imports it (host/).
"""
