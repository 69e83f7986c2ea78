"""The progress bar of the job: scans done, scans a second, time left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import sys
import threading
import time

from beam_jobs.job_folder import JobFolder

_POLL_SECS = 0.5
_LINE_SECS = 10.0


@contextlib.contextmanager
def watch(folder: JobFolder, scans_of: Mapping[str, int]) -> Iterator[None]:
  """Shows progress on stderr for the time of a `with` block.

  The workers leave their progress in the job's folder, so that the bar is the same
  whatever runs them.

  Args:
    folder: of the job.
    scans_of: scans of each shard, by fingerprint.
  """
  import tqdm

  total = sum(scans_of.values())
  piped = not sys.stderr.isatty()
  bar = tqdm.tqdm(
    total=total,
    unit=' scans',
    file=sys.stderr,
    # In a file or a pipe: a plain line now and then.
    mininterval=_LINE_SECS if piped else 0.1,
    bar_format='{desc}{n_fmt}/{total_fmt} {unit} ({rate_fmt}), {remaining} left\n'
    if piped
    else None,
  )
  stop = threading.Event()

  def update() -> None:
    finished = sum(scans_of.get(name, 0) for name in folder.finished())
    done = min(finished + folder.scans_in_progress(), total)
    bar.update(max(done - bar.n, 0))

  def poll() -> None:
    while not stop.wait(_POLL_SECS):
      update()

  update()
  # What an earlier run did must not count as this run's speed.
  bar.initial = bar.n
  bar.start_t = time.time()
  thread = threading.Thread(target=poll, daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()
    if folder.book.is_dir():
      update()
    bar.close()
