import fake_data
import fake_headers
import pytest

from beam_jobs import job_checks
from beam_jobs import plan as plan_lib
from luna_tfds import CONFIGS
from luna_tfds import JobError
from luna_tfds import UsageError

ALL = CONFIGS['axial_50px_all']


@pytest.fixture
def folder(tmp_path):
  return fake_headers.write_five_scans(tmp_path)


def change_header(scan):
  scan.write_text('ElementSpacing = 1 1 2\n' + scan.read_text())


def change_size(scan):
  scan.with_suffix('.raw').write_bytes(b'\0\0\0')


def delete_data_file(scan):
  scan.with_suffix('.raw').unlink()


def test_an_unmodified_download_passes(folder):
  job_checks.check_unchanged(plan_lib.make_plan(folder, ALL), folder, ALL)


@pytest.mark.parametrize('change', [change_header, change_size, delete_data_file])
def test_a_modified_scan_is_named(change, folder):
  plan = plan_lib.make_plan(folder, ALL)
  scan = folder / 'subset1' / 'c.mhd'
  change(scan)
  with pytest.raises(JobError) as error:
    job_checks.check_unchanged(plan, folder, ALL)
  assert str(error.value).startswith(f'{scan}: the scan was modified')


def test_patches_of_the_article_have_no_header(tmp_path):
  config = CONFIGS['article']
  fake_data.write_article(tmp_path)
  plan = plan_lib.make_plan(tmp_path, config)
  for path in tmp_path.rglob('*.jpg'):
    path.write_bytes(b'')
  job_checks.check_unchanged(plan, tmp_path, config)


def test_a_plan_without_records_is_rejected():
  with pytest.raises(UsageError, match='no candidate is in a scan on disk'):
    job_checks.check_not_empty(plan_lib.Plan((), record_bytes=1))
