"""spoold: a daemon that holds agent conversations for many clients at once.

This package is the program: the command line, the composition root and what the real machine gives.
"""

from spoold.version import __version__

__all__ = ["__version__"]
