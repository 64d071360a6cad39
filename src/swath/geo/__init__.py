"""Rasters and their grids; nothing here knows of samples or models.

raster.py opens files with errors that say what is wrong, window.py cuts them, warp.py brings them
onto one grid, channel.py reads one channel on any grid from any thread, tiles.py keeps what is read
again and again, and cog.py writes Cloud-Optimised GeoTIFFs window by window.
"""
