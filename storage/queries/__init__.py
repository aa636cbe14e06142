"""Reads and writes, one file a subject. Every function takes an open Session first and never commits."""
