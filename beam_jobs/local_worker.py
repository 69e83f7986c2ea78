"""A process of the local runner: Beam's own worker, as quiet as the launcher.

Beam's worker logs its life to stderr at INFO whatever the launcher asked for.
"""

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
