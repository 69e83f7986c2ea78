import csv
import json

from trainer.report import evaluation_files


def test_all_files_are_written(
  evaluate_folders, trained, tmp_path, no_network_pictures
):
  evaluation = evaluate_folders(trained, rule='0.3')
  report = evaluation_files.write(evaluation, tmp_path)
  assert report == tmp_path / 'report.html'
  assert report.read_text().endswith('</html>\n')
  metrics = json.loads((tmp_path / 'metrics.json').read_text())
  assert metrics['threshold'] == 0.3
  assert metrics['pr_auc'] == evaluation.result.split_metrics.classification.pr_auc
  with (tmp_path / 'predictions.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  found = [f'{row["seriesuid"]}/{row["candidate_id"]}' for row in rows]
  assert found == evaluation.scored.records.keys
  assert (tmp_path / 'plots' / 'roc.png').read_bytes().startswith(b'\x89PNG')


def test_undefined_metrics_are_null(
  evaluate_folders, trained, tmp_path, no_network_pictures
):
  evaluation_files.write(evaluate_folders(trained, split='test[:1]'), tmp_path)
  text = (tmp_path / 'metrics.json').read_text()
  assert 'NaN' not in text
  assert json.loads(text)['pr_auc'] is None
