"""What a run did, for people: one HTML page that needs no network, and tables for the terminal.

page.py puts the page together, of curves.py and charts.py, examples.py, maps.py and images.py,
classes.py, compare.py, speed.py and words.py. seeds.py proves a recipe's claim with several seeds.
"""
