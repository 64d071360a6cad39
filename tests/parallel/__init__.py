"""Tests of swath.parallel."""
