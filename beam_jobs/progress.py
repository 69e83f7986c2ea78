"""The progress of the job: scans done, scans per second, remaining time.

A warning is printed if no scan is done for some time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import sys
import threading
import time

from beam_jobs.job_folder import JobFolder
from luna_tfds.command_line import progress


@contextlib.contextmanager
def display(
  folder: JobFolder, num_scans: Mapping[str, int], stall_minutes: float = 0.0
) -> Iterator[None]:
  """Displays progress on stderr for the duration of a `with` block.

  Workers record their progress in the job's folder, which works with every runner.

  Args:
    folder: the job's folder.
    num_scans: number of scans of each shard, by fingerprint.
    stall_minutes: a warning is printed when no scan was done for so long; 0 for never.
  """
  total = sum(num_scans.values())
  if not total:  # the article's patches, which take seconds
    yield
    return
  most = 0
  stall_warning = _StallWarning(stall_minutes)

  def done() -> int:
    """Never less than before: a shard that is tried again starts from 0."""
    nonlocal most
    finished = folder.finished_fingerprints()
    num_finished = sum(num_scans.get(fingerprint, 0) for fingerprint in finished)
    most = max(most, min(num_finished + folder.num_scans_in_progress(), total))
    return most

  with progress.displayed('scans', delay_secs=0.0) as report:
    report(done(), total)
    stop = threading.Event()

    def poll() -> None:
      """Reports the progress until `stop` is set."""
      while not stop.wait(folder.progress_poll_secs):
        # If the folder cannot be read, the job fails with a message of its own.
        with contextlib.suppress(OSError):
          report(done(), total)
        # After the last scan, an engine may take time to end the job.
        if stall_minutes and most < total:
          stall_warning.update(most)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
      yield
    finally:
      stop.set()
      thread.join()
    report(done(), total)


class _StallWarning:
  """Prints a warning when no scan was done for some time, once for each such time."""

  def __init__(self, minutes: float):
    self._minutes = minutes
    self._num_done = -1
    self._since = 0.0
    self._is_printed = False

  def update(self, num_done: int) -> None:
    """Compares the number of scans that are done with that of the call before."""
    now = time.monotonic()
    if num_done != self._num_done:
      self._num_done, self._since, self._is_printed = num_done, now, False
    elif not self._is_printed and now - self._since >= 60 * self._minutes:
      self._is_printed = True
      if sys.stderr.isatty():  # there is a bar in the line
        print(file=sys.stderr)
      print(
        f'luna16-extract: warning: no scan was done for {self._minutes:g} min; see '
        'whether the workers run (with --runner, in the logs of the engine). Ctrl-C ends '
        'the job, and the same command continues',
        file=sys.stderr,
        flush=True,
      )
