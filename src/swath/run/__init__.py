"""What each verb does with a run's settings, the same from the command line and from a notebook.

* How a verb starts: start.py. The scene that a run has, and its map: scene.py.
* The store: store.py. A model is made: training.py; is judged: scores.py; is asked for its
  features: features.py.

Verbs import what computes when they are called.
"""

# ruff: noqa: F401 (names for who imports them from here)

from swath.run.features import anomalies, embed, embed_scene, probe, similar
from swath.run.scene import predict
from swath.run.scores import baseline, compared, comparison, evaluate, report
from swath.run.start import load
from swath.run.store import build, built_once, fetch, find, pictures, statistics
from swath.run.training import after_training, dry_run, export, export_for, prepare, train
from swath.settings import Run
