"""Compares the peak memory of the job on a small and a large download.

    python benchmarks/standin.py --luna16=METADATA --output_dir=/tmp/small --scans=88
    python benchmarks/standin.py --luna16=METADATA --output_dir=/tmp/large
    python benchmarks/extract_memory.py --small=/tmp/small --large=/tmp/large

Adds the memory of all processes of the job, counting shared pages once (Linux's PSS), and
prints the ratio of the peaks.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

from luna_tfds.files import atomic_files

_POLL_SECS = 0.2


def main() -> None:
  """Runs the job on both downloads and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--small', required=True)
  parser.add_argument('--large', required=True)
  parser.add_argument('--config', default='axial_50px')
  parser.add_argument('--num_workers', type=int, default=2)
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the results')
  options = parser.parse_args()
  peaks = {name: _peak(getattr(options, name), options) for name in ('small', 'large')}
  result = {
    'config': options.config,
    'num_workers': options.num_workers,
    'peak_mb': peaks,
    'ratio': peaks['large']['mb'] / peaks['small']['mb'],
  }
  for name, peak in peaks.items():
    print(f'{name:6}{peak["mb"]:8.0f} MB peak {peak["secs"]:8.1f} s')
  print(f'large / small: {result["ratio"]:.3f}')
  if options.output:
    atomic_files.write_json(options.output, result)


def _peak(luna_dir: str, options: argparse.Namespace) -> dict[str, float]:
  with tempfile.TemporaryDirectory() as data_dir:
    command = [sys.executable, '-m', 'beam_jobs.extract_patches']
    command += [f'--luna_dir={luna_dir}', f'--data_dir={data_dir}']
    command += [f'--config={options.config}', f'--num_workers={options.num_workers}']
    start, peak = time.perf_counter(), 0
    job = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while job.poll() is None:
      peak = max(peak, sum(map(pss_bytes, tree(job.pid))))
      time.sleep(_POLL_SECS)
    if job.returncode:
      raise SystemExit(f'the job failed with exit code {job.returncode}')
    return {'mb': peak / 1e6, 'secs': time.perf_counter() - start}


def tree(pid: int) -> list[int]:
  """Returns the ids of a process and of all its descendants."""
  found = [pid]
  for task in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
    try:
      children = task.read_text().split()
    except OSError:  # the process has just ended
      continue
    for child in children:
      found += tree(int(child))
  return found


def pss_bytes(pid: int) -> int:
  """Returns the memory of a process, with its part of shared pages; 0 if it ended."""
  try:
    rollup = pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text()
  except OSError:  # the process has just ended
    return 0
  lines = [line for line in rollup.splitlines() if line.startswith('Pss:')]
  return 1024 * int(lines[0].split()[1]) if lines else 0


if __name__ == '__main__':
  main()
