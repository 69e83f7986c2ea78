"""The Beam job that cuts LUNA16 into patches.

Public PTransforms and the plan they carry out, for pipelines of your own.
"""
