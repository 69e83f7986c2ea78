"""The Beam job that extracts the dataset: `job.prepare`, or its parts.

`plan.make_plan` and `transforms.WriteShards` can be used in other pipelines.
"""
