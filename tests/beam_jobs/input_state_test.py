import dataclasses

import fake_job

from beam_jobs import input_state
from beam_jobs import plan as plan_lib


def test_a_record_that_names_a_file_twice_differs(one_shard):
  (shard,) = plan_lib.make_plan(one_shard.folder, fake_job.CONFIG).shards
  states = [
    input_state.read_state(task, fingerprint)
    for task, fingerprint in zip(shard.tasks, shard.task_fingerprints, strict=True)
  ]
  assert input_state.modified_file(shard, states) is None
  files = states[0].files
  states[0] = dataclasses.replace(states[0], files=(*files, files[0]))
  assert input_state.modified_file(shard, states) == min(file.name for file in files)
