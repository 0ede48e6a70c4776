"""Scores of restored video: metrics, test sets, the published protocol, tables and pictures."""
