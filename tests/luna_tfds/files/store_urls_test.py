import pytest

from luna_tfds.errors import UsageError
from luna_tfds.files import store_urls


def test_parts_of_a_url():
  assert store_urls.parse('S3://bucket//a/b.csv/') == ('s3', ('bucket', 'a', 'b.csv'))
  assert store_urls.is_url('S3://bucket')


@pytest.mark.parametrize('path', ['a/b', '/s3/a', 's3:a', 'C:\\a', ''])
def test_a_local_path(path):
  assert store_urls.parse(path) is None
  assert not store_urls.is_url(path)


@pytest.mark.parametrize(
  ('url', 'message'),
  [
    ('https://host/x', 'https:// URLs are not supported'),
    ('file:///x', 'give the path without it'),
    ('s3://key:secret@bucket/x', 'must not contain a user name or a password'),
    ('s3://user@bucket/x', 'must not contain a user name or a password'),
    ('s3://key:a/secret@bucket/x', 'must not contain a user name or a password'),
    ('s3:/bucket/x', 'a URL has two slashes'),
    ('GS:/bucket/x', 'a URL has two slashes'),
    ('cache::s3://key:secret@bucket/x', 'cache::s3://...: not the URL of a store'),
    ('s3://', 'names no bucket'),
    ('s3:///', 'names no bucket'),
  ],
)
def test_other_urls_are_refused(url, message):
  with pytest.raises(UsageError, match=message) as info:
    store_urls.parse(url)
  assert 'secret' not in str(info.value)


@pytest.mark.parametrize(
  'url',
  ['hdfs://host:8020/a@b', 's3://arn:aws:s3:eu-1:1:accesspoint/a/b@c', 'gs://b/a:b@c'],
)
def test_a_url_without_a_password(url):
  scheme, parts = store_urls.parse(url)
  assert f'{scheme}://{"/".join(parts)}' == url
