"""Sections of a checkpoint's report, one file each. No section imports another."""
