"""A process that waits ends when its parent is killed, on Linux and elsewhere."""

import os
import subprocess
import sys
import time

import pytest

from luna_tfds.processes import worker_start

# A shell cannot do it: it becomes its last command.
PARENT = """
import subprocess, sys, os
child = subprocess.Popen([sys.executable, '-P', '-c', sys.argv[1], str(os.getpid())])
child.wait()
"""
CHILD = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location('worker_start', {file!r})
worker_start = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker_start)
{change}
worker_start.end_with_launcher(int(sys.argv[1]))
os.write(2, b'ready\\n')
time.sleep(300)
"""
CHANGES = {
  'as here': '',
  'macOS': 'sys.platform = "darwin"',
  'no ctypes': 'sys.modules["ctypes"] = None',
}


@pytest.mark.parametrize('name', CHANGES)
def test_process_ends_with_its_launcher(name):
  child = CHILD.format(file=worker_start.__file__, change=CHANGES[name])
  command = [sys.executable, '-c', PARENT, child]
  with subprocess.Popen(command, stderr=subprocess.PIPE) as parent:
    assert parent.stderr.read(6) == b'ready\n'
    parent.kill()
    start = time.monotonic()
    assert parent.stderr.read() == b''  # the child has closed the pipe
    assert time.monotonic() - start < 20


def test_process_whose_launcher_has_ended_does_not_start():
  child = CHILD.format(file=worker_start.__file__, change='')
  done = subprocess.run(
    [sys.executable, '-c', child, str(os.getppid())],  # not its parent
    capture_output=True,
    timeout=60,
    check=False,
  )
  assert (done.returncode, done.stderr) == (1, b'')
