"""Networks in plain torch, which know of no ranks, files or settings.

Whole ones are vit.py, residual.py, unet.py and conv3d.py; what they are made of is in patch.py,
position.py, attention.py, block.py, norm.py and resize.py. Random draws come from random.py.
What ``parallel/`` has to know of a network stands in the network, as hints: ``unit``, ``split``,
``trunk``, ``spatial``, and ``chain()`` (chain.py).
"""
