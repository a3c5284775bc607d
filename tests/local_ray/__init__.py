"""Tests of stages on one local Ray."""
