"""The files of one input of a reader: a dict from file name to bytes.

One input can be several files, e.g. a header and its data file. It is stored as one file:
a line of JSON with the names and the sizes, then the contents.
"""

import json
import os


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
  """Writes the files of an input to a folder, which holds nothing else afterwards.

  Folders that are needed again are kept, as removing one takes longer than most readers.
  """
  needed = {folder}
  for name in files:
    needed.update((folder / name).parents)
  for parent, folders, names in os.walk(folder, topdown=False):
    for name in names:
      os.unlink(os.path.join(parent, name))
    for path in (folder.joinpath(parent, name) for name in folders):
      if path.is_symlink():
        path.unlink()
      elif path not in needed:
        path.rmdir()
  for path in sorted(needed):
    if not path.is_dir():
      path.mkdir()
  for name, content in files.items():
    with open(folder / name, 'wb') as file:
      file.write(content)


def read(folder):
  """Returns the files of a folder, also of folders in it."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }
