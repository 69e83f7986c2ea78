"""The files of one input of a reader: a dict from file name to bytes.

One input can be several files, e.g. a header and its data file. It is stored as one file:
a line of JSON with the names and the sizes, then the contents.
"""

import json
import shutil


def pack(files):
  """Returns the bytes of an input."""
  sizes = {name: len(content) for name, content in files.items()}
  return json.dumps(sizes).encode() + b'\n' + b''.join(files.values())


def unpack(packed):
  """Inverse of `pack`.

  Raises:
    ValueError: the bytes are not a packed input.
  """
  line, _, contents = packed.partition(b'\n')
  files, start = {}, 0
  for name, size in json.loads(line).items():
    files[name] = contents[start : start + size]
    start += size
  return files


def write(files, folder):
  """Writes the files of an input to a folder, which holds nothing else afterwards."""
  if folder.exists():
    shutil.rmtree(folder)
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def read(folder):
  """Returns the files of a folder, also of folders in it."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }
