"""Where samples come from: one file, one layout. ``kind: scene`` is ``datasets/scene.py``."""
