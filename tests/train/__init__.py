"""Tests of swath.train."""
