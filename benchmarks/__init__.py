"""Measurements, a package for each paper or subject: run one as `python -m benchmarks.ide.paper` from the root."""
