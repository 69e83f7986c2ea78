"""The progress of bootstraps, for commands that compute intervals."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib

from luna_tfds.command_line import progress
from model.metrics import resampling


@contextlib.contextmanager
def displayed() -> Iterator[None]:
  """Displays the progress of each bootstrap in a `with` block on stderr."""
  with (
    progress.displayed('resamples', 'bootstrap') as report,
    resampling.reported_to(report),
  ):
    yield
