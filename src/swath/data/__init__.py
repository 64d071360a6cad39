"""From files to microbatches: scenes, stores, splits, order, loading, augmentation.

* What a sample is: chip.py, dataset.py, sensor.py.
* A scene as files lie on disk, for building and for maps: imagery.py on files.py, product.py (ESA's
  folders), nodata.py and plausible.py.
* A store is made: build.py on check.py, census.py, stats.py (by fold.py) and split.py; its parts on
  disk are layout.py and shards.py.
* A store is read: store.py, as settings.py asks and opened.py has it; order.py says which sample
  comes when, loader.py makes microbatches of them, ahead of time, by direct.py where it can and
  from stage.py's copies where asked.
* On the device: resample.py, normalize.py, augment.py.
* Every random draw: draw.py and draw_tensor.py.
* For people: summary.py, picture.py, mosaic.py, palette.py; touch.py says how a score must be read.
"""
