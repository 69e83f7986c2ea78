"""Tests of the garbage collection in a thread of its own."""

import pytest

_WITH_ITERATOR = """
import gc, json, sys, threading
import tensorflow as tf
from luna_tfds.processes import garbage_collection

if sys.argv[1] == 'own thread':
  garbage_collection.collect_in_own_thread()
dropped, done = threading.Event(), threading.Event()

def read(number):
  if number == 1:
    dropped.wait()
    gc.set_threshold(*thresholds)
    for _ in range(10_000):  # enough for Python to collect garbage
      cycle = []
      cycle.append(cycle)
    done.set()
  return number

dataset = tf.data.Dataset.range(9).map(
  lambda number: tf.numpy_function(read, [number], tf.int64), num_parallel_calls=2
)
thresholds = gc.get_threshold()
gc.collect()
gc.set_threshold(10**9)  # the iterator stays among the youngest objects
iterator = iter(dataset)
next(iterator)
cycle = [iterator]
cycle.append(cycle)
del iterator, cycle
dropped.set()
print(json.dumps(done.wait(float(sys.argv[2]))), flush=True)
"""


def test_a_function_of_tf_data_does_not_wait_for_itself(fresh_python):
  assert fresh_python(_WITH_ITERATOR, 'own thread', 60.0)


@pytest.mark.slow
def test_python_itself_hangs(fresh_python):
  """If it no longer does, the module is not needed."""
  assert not fresh_python(_WITH_ITERATOR, 'as usual', 5.0)


def test_garbage_is_collected(fresh_python):
  code = """
import gc, json, threading, weakref
from luna_tfds.processes import garbage_collection

class Node:
  pass

garbage_collection.collect_in_own_thread()
threads = threading.active_count()
garbage_collection.collect_in_own_thread()
node, collected = Node(), threading.Event()
node.itself = node
finalizer = weakref.finalize(node, collected.set)
del node
print(json.dumps([threading.active_count() - threads, gc.isenabled(), collected.wait(60)]))
"""
  assert fresh_python(code) == [0, False, True]


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_a_forked_process_collects_as_usual(fresh_python):
  code = """
import gc, json, os
from luna_tfds.processes import garbage_collection

garbage_collection.collect_in_own_thread()
pid = os.fork()
if not pid:
  os._exit(gc.isenabled())
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""
  assert fresh_python(code) == 1
