"""Which precision a network computes in."""

from __future__ import annotations

import pathlib
import re

import tensorflow as tf

_CPUINFO = pathlib.Path('/proc/cpuinfo')
# Extensions of x86 processors that multiply in bfloat16.
_BFLOAT16_FLAGS = re.compile(r'avx512_bf16|amx_bf16')


def resolve_precision(precision: str, cpuinfo: pathlib.Path = _CPUINFO) -> str:
  """Returns a Keras dtype policy for 'auto'; any other name as it is.

  bfloat16 doubles the speed of convolutions on CPUs that compute in it, and on GPUs of
  compute capability 8 and above; on others it is emulated, and slow.

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
    capable = bool(_BFLOAT16_FLAGS.search(flags))
  return 'mixed_bfloat16' if capable else 'float32'
