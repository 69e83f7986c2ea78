import hashlib

import pytest

from luna_tfds.files import file_checksums

CONTENT = b'content'
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path):
  path = tmp_path / 'file'
  path.write_bytes(CONTENT)
  return path


def test_sha256_of_a_file(path):
  assert file_checksums.file_sha256(path) == SHA256


def test_contents_of_a_file(path):
  assert file_checksums.has_contents(path, len(CONTENT), SHA256)
  assert not file_checksums.has_contents(path, len(CONTENT) + 1, SHA256)
  assert not file_checksums.has_contents(path, len(CONTENT), SHA256[::-1])


def test_a_file_on_a_disk_has_no_etag(path):
  assert not file_checksums.has_contents(path, len(CONTENT), 'f' * 64, etag='e')


def test_a_missing_file(tmp_path):
  assert not file_checksums.has_contents(tmp_path / 'file', 0, SHA256)
