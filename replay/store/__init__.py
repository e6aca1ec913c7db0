"""Datasets on disk: schema, journal, compaction, writer, reader, metadata."""
