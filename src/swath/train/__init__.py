"""A run: the loop, what survives of it, and what it leaves behind.

* Settings: job.py has all that make a model; settings.py those of the loop.
* The loop: trainer.py, one update in step.py, held-out figures in evaluate.py, on state.py with
  ema.py and precision.py; describe.py says what it makes, assemble.py puts the parts together and
  setup.py lets them run, score.py asks the result,
  interrupt.py hears signals.
* Checkpoints: checkpoint.py on division.py (who writes what) and tensors.py.
* Afterwards: export.py writes the model, heldout.py says what it may be scored on, unfinished.py
  looks at a run on its way.
* For people: progress.py, record.py; usage.py, cost.py and memory.py say how well the machine was
  used, profile.py and trace.py where the time went.
"""
