"""Helpers that the tests share: commands, waiting and timing, small data and specs, training without Ray."""
