"""Modules shared by several signals."""
