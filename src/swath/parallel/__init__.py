"""One run on any number of ranks.

* What is asked for: settings.py. Who is there: world.py (all ranks), mesh.py (their places).
* The model: apply.py spreads it, by tensor.py, context.py (attention.py, kernel.py, runs.py),
  spatial.py, cut.py and pipeline.py (arguments.py), recompute.py and shard.py; fill.py does so with
  models that no rank can hold.
* An update: replica.py has the gradient over all ranks, with flat.py for what is whole on each.
* The job: launch.py starts ranks, meet.py brings them together if they are alike (alike.py),
  watch.py notices who is lost, end.py says why all end.
* What it costs: count.py counts bytes exchanged and live.py those in memory, both on operations.py;
  waits.py the time that exchanges take from computing; dry.py asks without ranks.
"""
