"""The one place that holds spoold's own version."""

__version__ = "0.1.0"
