"""Processes: a supervisor, its workers on one listening socket, and the exporter of metrics."""
