import pytest
import tensorflow as tf

from trainer.training.precision import resolve_precision


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind=None: [])


@pytest.mark.parametrize(
  ('flags', 'expected'),
  [
    ('fpu sse2 avx2 avx512f', 'float32'),
    # Measured: slower than float32.
    ('fpu avx512f avx512_bf16', 'float32'),
    ('fpu avx512f avx512_bf16 amx_bf16 amx_tile', 'mixed_bfloat16'),
  ],
)
def test_auto_on_a_cpu_takes_bfloat16_if_the_cpu_multiplies_matrices_in_it(
  tmp_path, flags, expected
):
  cpuinfo = tmp_path / 'cpuinfo'
  cpuinfo.write_text(f'processor\t: 0\nmodel name\t: A\nflags\t\t: {flags}\n')
  assert resolve_precision('auto', cpuinfo) == expected


def test_auto_is_float32_where_nothing_is_known_of_the_cpu(tmp_path):
  assert resolve_precision('auto', tmp_path / 'missing') == 'float32'


@pytest.mark.parametrize(
  ('details', 'expected'),
  [
    ({'compute_capability': (7, 5)}, 'float32'),
    ({'compute_capability': (8, 0)}, 'mixed_bfloat16'),
    ({'compute_capability': (12, 0)}, 'mixed_bfloat16'),
    ({}, 'float32'),
  ],
)
def test_auto_on_a_gpu_takes_bfloat16_from_compute_capability_8_on(
  tmp_path, monkeypatch, details, expected
):
  cpuinfo = tmp_path / 'cpuinfo'
  # What the CPU can do is of no matter.
  cpuinfo.write_text('flags : avx512_bf16 amx_bf16\n')
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: ['fake'])
  monkeypatch.setattr(
    tf.config.experimental, 'get_device_details', lambda device: details
  )
  assert resolve_precision('auto', cpuinfo) == expected


@pytest.mark.parametrize('name', ['float32', 'mixed_bfloat16', 'mixed_float16'])
def test_a_named_precision_is_taken(name, tmp_path):
  assert resolve_precision(name, tmp_path / 'missing') == name
