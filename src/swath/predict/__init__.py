"""A map of a whole scene by a trained model, and how right it is.

map.py is the way in. tiles.py says where windows lie, mapping.py takes them through the model by
forward.py, blend.py adds up their answers, layers.py turns these into classes and probabilities,
files.py writes them with ledger.py, and together.py holds several ranks together. origin.py is
what a map says of itself; evaluate.py and accuracy.py compare it with the ground.
"""
