"""Where the texts of a corpus come from, and what is left out of them."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from swarm.config.section import Section
from swarm.files import path_in
from ulm.data.cleaning import Cleaning
from ulm.data.documents import CorpusSource

HUB_SAMPLES = 10_000


class SourceConfig(Section):
    """Where documents come from: a hub dataset by name, or local files."""

    hub: str | None = None
    """Name of a dataset of the hub, read as a stream; null for local files."""

    config: str | None = None
    """Configuration of the hub dataset; null takes its only one."""

    split: str = "train"
    """Split of the hub dataset."""

    files: tuple[str, ...] = ()
    """Text, JSONL or Parquet files, folders of them, or patterns such as `books/*.txt`, relative to the YAML file. All
    but Parquet may be gzipped."""

    column: str = "text"
    """Text column of hub datasets, JSONL and Parquet."""

    samples: int | None = Field(None, ge=2)
    """Documents that are read at most; null takes all of local files and 10,000 of a hub dataset."""

    separator: str | None = None
    """Regular expression between the documents of a text file; null takes each file as one document."""

    body: tuple[str, str] | None = None
    """Regular expressions of what stands before and after the text proper of a text file, for licences and such; null
    takes all."""

    shortest: int = Field(1, ge=1)
    """Characters that a document must have; shorter ones are left out."""

    name: str | None = None
    """What results call the source; null takes the name of the dataset or of the first file."""

    by_file: bool = False
    """Hold out whole files, where one file gives several documents."""

    val_share: float | None = Field(None, gt=0, lt=1)
    """Share of its documents that is held out; null takes that of all sources."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.hub is None) == (not self.files):
            raise ValueError("give either `hub` (the name of a dataset) or `files` (local paths)")
        return self

    def source(self, beside: Path) -> CorpusSource:
        """Return the source; paths are relative to a folder."""
        files = tuple(str(path_in(beside, name)) for name in self.files)
        samples = HUB_SAMPLES if self.hub is not None and self.samples is None else self.samples
        fields = self.model_dump(include=set(SourceConfig.model_fields))
        return CorpusSource(**fields | {"files": files, "samples": samples})


class CleaningSection(Section):
    """What is left out of a corpus.

    How many documents each rule left out is printed, and kept in the result. Exact duplicates are always left out.
    """

    length: tuple[int, int] | None = None
    """Characters that a document must have, from and to; null for any number."""

    repeated_lines: float | None = Field(None, ge=0, lt=1)
    """Largest share of a document's lines that may stand in it before; null for no such rule."""

    language: str | None = Field(None, pattern="^[a-z]{2,3}$")
    """Code of the only language that is kept, such as `en`; null for any. Needs the extra `data`; of texts of a few
    words it is a guess."""

    near_duplicates: bool = False
    """Leave out what resembles a document before it, from any source with this rule."""

    def rules(self) -> Cleaning:
        """Return the rules as the reader of corpora takes them."""
        return Cleaning(**self.model_dump())
