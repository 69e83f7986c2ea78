"""A worker process of the local runner: Beam's own worker with our log level.

Beam's worker logs to stderr at level INFO, regardless of the level of the launcher.
"""

from __future__ import annotations

import logging
import sys


def main() -> None:
  """Runs Beam's worker; the first argument is the log level."""
  handler = logging.StreamHandler()
  handler.setLevel(sys.argv[1])
  logging.getLogger().addHandler(handler)
  from apache_beam.runners.worker import sdk_worker_main

  sdk_worker_main.main(sys.argv[:1])


if __name__ == '__main__':
  main()
