"""Python's garbage collection in a thread of its own.

A tf.data iterator that is collected waits until the Python functions that it has called
have returned (`tf.numpy_function`, `tf.data.Dataset.from_generator`). Python collects
garbage in whichever thread happens to create the next object. If that is the thread of
such a function, or fsspec's thread that it waits for, it waits for itself: the process
hangs, or never collects garbage again.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import threading
import time

_YOUNG_OBJECTS_SECS = 1.0
_ALL_OBJECTS_SECS = 60.0
_MAX_SECS_TO_END = 10.0


@functools.cache
def collect_in_own_thread() -> None:
  """From now on, one thread collects the garbage of this process, and no other does.

  Called wherever tf.data calls Python; only the first call has an effect.
  """
  gc.disable()
  stop = threading.Event()
  thread = threading.Thread(target=_collect, args=(stop,), name='garbage', daemon=True)
  thread.start()
  # A thread that Python ends inside of a destructor of TensorFlow ends the process.
  atexit.register(_end, thread, stop)


def _end(thread: threading.Thread, stop: threading.Event) -> None:
  stop.set()
  thread.join(_MAX_SECS_TO_END)


def _collect(stop: threading.Event) -> None:
  last = time.monotonic()
  while not stop.wait(_YOUNG_OBJECTS_SECS):
    gc.disable()  # a library may have enabled it
    if time.monotonic() - last < _ALL_OBJECTS_SECS:
      gc.collect(1)
    else:
      gc.collect()
      last = time.monotonic()


def _collect_as_usual() -> None:
  """A forked process does not have the thread."""
  if collect_in_own_thread.cache_info().currsize:
    collect_in_own_thread.cache_clear()
    gc.enable()


os.register_at_fork(after_in_child=_collect_as_usual)
