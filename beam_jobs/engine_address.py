"""Where an engine is: checked before a job starts, as each runner fails in its own way.

Some runners wait for a minute, or print pages, if nobody listens at the address.
"""

from __future__ import annotations

from collections.abc import Mapping
import socket
from typing import Any
import urllib.parse
import urllib.request

from luna_tfds.errors import JobError
from luna_tfds.errors import UsageError

# Flags with an address that the launcher connects to.
_ADDRESSES = ('dask_client_address', 'flink_master', 'job_endpoint', 'spark_rest_url')
# Where Beam stores them, if under another name than the flag's.
_OPTION_NAMES = {'dask_client_address': 'address'}
_DEFAULT_PORTS = {'http': 80, 'https': 443, 'tcp': 8786, 'tls': 8786}
_TIMEOUT_SECS = 10.0


def check_reachable(options: Mapping[str, Any]) -> None:
  """Checks that somebody listens at the address of the engine.

  Args:
    options: all options of Beam, by the names under which Beam stores them.

  Raises:
    JobError: nobody does.
    UsageError: it is no address.
  """
  # A job service at `job_endpoint` connects to the engine itself.
  names = ('job_endpoint',) if options.get('job_endpoint') else _ADDRESSES
  for name in names:
    value = options.get(_OPTION_NAMES.get(name, name))
    if not value:
      continue
    try:
      address = _address(value)
    except ValueError as error:
      raise UsageError(f'--{name}={value}: {error}; give HOST:PORT') from error
    if address is None:
      continue
    try:
      socket.create_connection(address, _TIMEOUT_SECS).close()
    except OSError as error:
      raise JobError(
        f'--{name}={value}: cannot be reached: {error.strerror or error}; start the '
        'engine or correct the address'
      ) from error


def _address(value: str) -> tuple[str, int] | None:
  """Returns (host, port); None if it is not that of one machine, as `[local]`.

  Raises:
    ValueError: the port is not a number from 0 to 65535.
  """
  if value.startswith('[') or ',' in value:
    return None
  parts = urllib.parse.urlsplit(value if '://' in value else f'//{value}')
  port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
  if not parts.hostname or not port:
    return None
  has_proxy = parts.scheme in urllib.request.getproxies()
  if has_proxy and not urllib.request.proxy_bypass(parts.hostname):
    return None
  return parts.hostname, port
