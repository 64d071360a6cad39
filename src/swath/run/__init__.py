"""What each verb does with a run's settings, the same from the command line and from a notebook.

* How a verb starts: start.py. The scene that a run has, and its map: scene.py.
* The store: store.py. A model is made: training.py; is judged: scores.py; is asked for its
  features: features.py.

Verbs import what computes when they are called.
"""

from swath.run.features import anomalies, embed, embed_scene, probe, similar
from swath.run.scene import predict
from swath.run.scores import baseline, compared, comparison, evaluate, report
from swath.run.start import load
from swath.run.store import build, built_once, fetch, find, pictures, statistics
from swath.run.training import after_training, dry_run, export, export_for, train
from swath.settings import Run

__all__ = [
    "Run",
    "after_training",
    "anomalies",
    "baseline",
    "build",
    "built_once",
    "compared",
    "comparison",
    "dry_run",
    "embed",
    "embed_scene",
    "evaluate",
    "export",
    "export_for",
    "fetch",
    "find",
    "load",
    "pictures",
    "predict",
    "probe",
    "report",
    "similar",
    "statistics",
    "train",
]
