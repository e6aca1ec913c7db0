"""Renderers: a report in, text out. Nothing here prints or writes; the caller does."""
