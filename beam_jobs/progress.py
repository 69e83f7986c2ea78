"""The progress of the job: scans done, scans per second, remaining time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import threading

from beam_jobs.job_folder import JobFolder
from luna_tfds import progress


@contextlib.contextmanager
def display(folder: JobFolder, num_scans: Mapping[str, int]) -> Iterator[None]:
  """Displays progress on stderr for the duration of a `with` block.

  Workers record their progress in the job's folder, which works with every runner.

  Args:
    folder: the job's folder.
    num_scans: number of scans of each shard, by fingerprint.
  """
  total = sum(num_scans.values())
  if not total:  # the article's patches, which take seconds
    yield
    return
  most = 0

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
      while not stop.wait(folder.progress_poll_secs):
        # If the folder cannot be read, the job fails with a message of its own.
        with contextlib.suppress(OSError):
          report(done(), total)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
      yield
    finally:
      stop.set()
      thread.join()
    report(done(), total)
