"""Measures how the cost of the job grows with the number of scans.

    python benchmarks/scale.py --luna16=METADATA --output=scale.json --plot=scale.png
    python benchmarks/scale.py --luna16=METADATA --engine=flink --scans=10,100,888

Writes sparse stand-ins (`standin.py`) of 10, 100, 888 and 10,000 scans, and extracts each
with one and two local workers, and on an engine of `engines/start.py` if one is named. The
memory is that of the command and of the processes that it starts, as local workers and
Beam's job server for Flink, not that of an engine. A cost that grows linearly has the same
value per scan in each row; few scans show the start-up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import extract_memory
import standin

from luna_tfds.files import atomic_files

_POLL_SECS = 0.2
_PLAN = """
import pathlib, sys, time
from beam_jobs import plan
from luna_tfds import luna16_patches
start = time.perf_counter()
plan.make_plan(pathlib.Path(sys.argv[1]), luna16_patches.CONFIGS[sys.argv[2]])
print(time.perf_counter() - start)
"""


def main() -> None:
  """Measures all sizes; prints a table, and writes the files that are named."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--luna16', type=pathlib.Path, required=True)
  parser.add_argument('--scans', default='10,100,888,10000')
  parser.add_argument('--workers', default='1,2', help="local workers; '' for none")
  parser.add_argument('--config', default='axial_50px')
  parser.add_argument('--engine', help='name of an engine, see engines/start.py')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the results')
  parser.add_argument('--plot', type=pathlib.Path, help='PNG file for a plot')
  options = parser.parse_args()
  rows = []
  print(
    f'{"scans":>7} {"workers":12} {"plan s":>7} {"job s":>8} {"records":>9}', end=''
  )
  print(f' {"written MB":>11} {"read MB":>9} {"memory MB":>10} {"ms/scan":>8}')
  with contextlib.ExitStack() as stack:
    numbers = [number for number in options.workers.split(',') if number]
    runners = {number: [f'--num_workers={number}'] for number in numbers}
    if options.engine:
      runners[options.engine] = _start(options.engine, stack)
    for scans in map(int, options.scans.split(',')):
      with tempfile.TemporaryDirectory() as folder:
        luna_dir = pathlib.Path(folder, 'luna16')
        standin.make(options.luna16, luna_dir, scans)
        plan_secs = _plan_secs(luna_dir, options.config)
        for name, flags in runners.items():
          data_dir = pathlib.Path(folder, f'data_{name}')
          row = _extract(luna_dir, data_dir, options.config, flags)
          row = {'scans': scans, 'workers': name, 'plan_secs': plan_secs, **row}
          rows.append(row)
          _print(row)
  if options.output:
    atomic_files.write_json(options.output, {'config': options.config, 'rows': rows})
  if options.plot:
    _plot(rows, options.plot)


def _start(engine: str, stack: contextlib.ExitStack) -> list[str]:
  """Starts an engine; returns the options of the job."""
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'engines'))
  import start

  folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
  return stack.enter_context(start.ENGINES[engine](folder)).options


def _plan_secs(luna_dir: pathlib.Path, config: str) -> float:
  command = [sys.executable, '-c', _PLAN, str(luna_dir), config]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  return float(done.stdout)


def _extract(
  luna_dir: pathlib.Path, data_dir: pathlib.Path, config: str, flags: list[str]
) -> dict[str, float]:
  """Runs the job; returns its costs."""
  command = [sys.executable, '-m', 'beam_jobs.extract_patches', f'--config={config}']
  command += [f'--luna_dir={luna_dir}', f'--data_dir={data_dir}', *flags]
  start, peak = time.perf_counter(), 0
  job = subprocess.Popen(command, stderr=subprocess.DEVNULL)
  while job.poll() is None:
    peak = max(peak, sum(map(extract_memory.pss_bytes, extract_memory.tree(job.pid))))
    time.sleep(_POLL_SECS)
  secs = time.perf_counter() - start
  if job.returncode:
    raise SystemExit(f'the job failed with exit code {job.returncode}')
  (path,) = data_dir.glob('luna16_patches/*/*/shard_results.json')
  shards = json.loads(path.read_text())
  return {
    'secs': secs,
    'shards': len(shards),
    'records': sum(shard['num_records'] for shard in shards),
    'written_bytes': sum(shard['num_bytes'] for shard in shards),
    'read_bytes': sum(shard['stats']['bytes_read'] for shard in shards),
    'peak_bytes': peak,
  }


def _print(row: dict[str, float]) -> None:
  print(
    f'{row["scans"]:7} {row["workers"]:12} {row["plan_secs"]:7.1f} {row["secs"]:8.1f} '
    f'{row["records"]:9} {row["written_bytes"] / 1e6:11.0f} '
    f'{row["read_bytes"] / 1e6:9.0f} {row["peak_bytes"] / 1e6:10.0f} '
    f'{1000 * row["secs"] / row["scans"]:8.1f}',
    flush=True,
  )


def _plot(rows: list[dict[str, float]], path: pathlib.Path) -> None:
  """Plots time, planning time and memory against the number of scans."""
  from matplotlib import figure

  page = figure.Figure(figsize=(11, 3.8), layout='constrained')
  jobs, planning, memory = page.subplots(1, 3)
  names = list(dict.fromkeys(row['workers'] for row in rows))
  for k, name in enumerate(names):
    marked = {'marker': 'o^sD'[k % 4], 'label': _label(name)}
    jobs.plot(*_series(rows, name, 'secs'), **marked)
    memory.plot(*_series(rows, name, 'peak_bytes', 1e9), **marked)
  planning.plot(*_series(rows, names[0], 'plan_secs'), marker='o', color='black')
  jobs.set(title='Job, with start-up and planning', ylabel='seconds')
  planning.set(title='Planning alone', ylabel='seconds')
  memory.set(title='Memory of the command', ylabel='GB', ylim=(0, None))
  _set_log_seconds(jobs)
  _set_log_seconds(planning)
  ticks = sorted({row['scans'] for row in rows})
  for axes in (jobs, planning, memory):
    axes.set(xscale='log', xlabel='scans')
    axes.set_xticks(ticks, labels=[f'{scans:,}' for scans in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
  jobs.legend()
  page.savefig(path, dpi=100)


def _series(
  rows: list[dict[str, float]], name: str, key: str, unit: float = 1.0
) -> tuple[list[float], list[float]]:
  """Returns the numbers of scans, and a value for each."""
  found = [row for row in rows if row['workers'] == name]
  return [row['scans'] for row in found], [row[key] / unit for row in found]


def _label(name: str) -> str:
  if not name.isdigit():
    return name.capitalize()
  return f'{name} local worker' if name == '1' else f'{name} local workers'


def _set_log_seconds(axes: Any) -> None:
  """Makes the y axis logarithmic, labelled 1, 2, 5, 10, ..., and draws a linear cost."""
  from matplotlib import ticker

  axes.set_yscale('log')
  scans, secs = axes.lines[0].get_data()
  low, high = axes.get_ylim()
  linear = [secs[-1] * number / scans[-1] for number in scans]
  axes.plot(scans, linear, ':', color='gray', label='proportional to scans')
  axes.set_ylim(low, high)
  axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=20))
  axes.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))


if __name__ == '__main__':
  main()
