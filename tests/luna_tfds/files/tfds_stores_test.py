import fake_data
import fake_store
import pytest

import luna_tfds
from luna_tfds.errors import UsageError


def test_epath_must_not_use_tensorflow(monkeypatch):
  monkeypatch.delenv('EPATH_USE_TF', raising=False)
  with pytest.raises(
    UsageError, match='set the environment variable EPATH_USE_TF=false'
  ):
    luna_tfds.read_stores_with_tfds()


_READ = """
import hashlib, json, sys
import luna_tfds
import tensorflow_datasets as tfds

root, folder, luna_dir, new = sys.argv[1:]
luna_tfds.read_stores_with_tfds()

def digest(dataset):
  keys = [r['image'].tobytes() + r['seriesuid'] for r in tfds.as_numpy(dataset)]
  return hashlib.sha256(b''.join(keys)).hexdigest()

found = [
  digest(tfds.load('luna16_patches/axial_50px_all', split=split, data_dir=root))
  for split in ('train', 'train[10%:60%]', 'train[0shard:1shard]+validation')
]
found.append(digest(tfds.builder_from_directory(folder).as_dataset(split='train')))
builder = tfds.builder('luna16_patches/axial_50px_all', data_dir=new)
config = tfds.download.DownloadConfig(manual_dir=luna_dir)
builder.download_and_prepare(download_config=config)
found.append(digest(builder.as_dataset(split='train')))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_tfds_reads_and_prepares_a_dataset_in_a_store(
  store, extract, fresh_python, tmp_path
):
  scans = [fake_data.make_scan(seed, seed) for seed in (0, 1, 8)]
  fake_data.write_download(tmp_path / 'luna16', scans)
  local = tmp_path / 'data'
  assert extract(tmp_path / 'luna16', local, '--config=axial_50px_all') == 0
  fake_store.upload_folder(tmp_path, store.path())

  def read(root):
    folder = root / 'data' / 'luna16_patches' / 'axial_50px_all' / '1.0.0'
    arguments = (root / 'data', folder, root / 'luna16', root / 'new')
    return fresh_python(_READ, *arguments, EPATH_USE_TF='false')

  assert read(store.path()) == read(tmp_path)
