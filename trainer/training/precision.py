"""Which precision a network computes in."""

from __future__ import annotations

import pathlib
import re

import tensorflow as tf

_CPUINFO = pathlib.Path('/proc/cpuinfo')
# The extension of x86 processors that multiplies matrices of bfloat16. With avx512_bf16
# alone, a training step of either network takes 1.3 times the CPU time of float32.
_BFLOAT16_FLAG = re.compile(r'\bamx_bf16\b')


def resolve_precision(precision: str, cpuinfo: pathlib.Path = _CPUINFO) -> str:
  """Returns a Keras dtype policy for 'auto'; any other name as it is.

  bfloat16 doubles the speed of convolutions on CPUs with matrix units for it (AMX), and
  on GPUs of compute capability 8 and above; on others it is slower than float32, also
  where the CPU has vector instructions for it.

  Args:
    precision: a Keras dtype policy, or 'auto'.
    cpuinfo: where Linux lists what the processor can do.
  """
  if precision != 'auto':
    return precision
  gpus = tf.config.list_physical_devices('GPU')
  if gpus:
    details = tf.config.experimental.get_device_details(gpus[0])
    capable = details.get('compute_capability', (0, 0)) >= (8, 0)
  else:
    flags = cpuinfo.read_text() if cpuinfo.exists() else ''
    capable = bool(_BFLOAT16_FLAG.search(flags))
  return 'mixed_bfloat16' if capable else 'float32'
