"""Texts as token ids: documents, corpora, streams, recall sequences."""
