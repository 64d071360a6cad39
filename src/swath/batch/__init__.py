"""How many samples make an update, and how fast to learn from them.

size.py cuts an update into microbatches, which do not depend on the number of ranks; schedule.py
says the learning rate after any number of samples.
"""
