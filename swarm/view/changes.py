"""A change of what an agent keeps, in words: the same ones in transcripts, on the dashboard and in `swarm memory`."""

from collections import Counter
from collections.abc import Iterator, Sequence

from swarm.record.records import ChangeRecord, TestEntry

_COUNTED = {
    "attempts": "attempts",
    "legal": "legal",
    "right": "right",
    "taught": "of them under a directive",
    "explored": "random",
    "explored_right": "of them right",
    "hindsight": "relabelled",
    "predict": "to predict",
    "own": "to imitate",
    "barred": "barred",
    "promoted": "promoted",
    "merged": "merged",
    "conflicts": "contradicted",
    "pruned": "pruned",
}
"""What a change was made from, in the order in which it is told."""

_CAUSES = {
    "learn": "learned",
    "share": "shared",
    "undo": "undone",
    "forget": "forgot",
    "consolidate": "consolidated",
    "swapped": "swapped",
    "random": "made random",
}


def short(version: str) -> str:
    """Return a version or a hash as people read it."""
    return version[:12] or "nothing"


def who(record: ChangeRecord) -> str:
    """Return whose memory changes."""
    return record["agent"] or "the team"


def verdict(record: ChangeRecord) -> str:
    """Return in a word what came of it."""
    if not record["accepted"]:
        return "rejected" if record["result"] else "nothing learned"
    mode, cause = record["settings"].get("mode", ""), record["cause"]  # null controls are told by their mode
    return _CAUSES.get(mode, _CAUSES.get(cause, cause))


def counts(record: ChangeRecord) -> str:
    """Return what it was made from, in words."""
    found = record["evidence"].get("counts", {})
    return ", ".join(f"{found[name]:,} {word}" for name, word in _COUNTED.items() if found.get(name))


def of_test(entry: TestEntry) -> str:
    """Return one part of an acceptance test, such as `probe .955 -> .950`."""
    failed = "" if entry["passed"] else " failed"
    if entry["name"] == "kl":
        return f"kl {entry['after']:.2f} of {entry['limit']:g}{failed}"
    return f"{entry['name']} {figure(entry['before'])} -> {figure(entry['after'])}{failed}"


def of_part(record: ChangeRecord, name: str) -> str:
    """Return one part of its acceptance test without its name, "" where it had none."""
    found = next((entry for entry in record["tests"] if entry["name"] == name), None)
    return of_test(found).removeprefix(f"{name} ") if found else ""


_COLUMNS = "{:>5}  {:<8} {:<15} {:<12}  {:>5} {:<10}  {:<16}  {:>8}"
HEADING = _COLUMNS.format("round", "whose", "what came of it", "now", "probe", "", "kl", "tokens")


def in_columns(record: ChangeRecord) -> str:
    """Return the row of a change under `HEADING`; the bar is the probe's score."""
    probe = next((entry["after"] for entry in record["tests"] if entry["name"] == "probe"), None)
    return _COLUMNS.format(
        str(record["settings"]["round"] + 1) if "round" in record["settings"] else "",
        who(record),
        verdict(record),
        short(record["result"] if record["accepted"] else record["parent"]),
        "" if probe is None else figure(probe),
        "" if probe is None else "█" * round(10 * probe),
        of_part(record, "kl"),
        f"{record['cost'].get('tokens', 0):,}",
    ).rstrip()


def summary(records: Sequence[ChangeRecord]) -> str:
    """Return how many changes were accepted and rejected, what the probe was at first, and what all cost."""
    counted = Counter(map(verdict, records))
    told = [
        f"{len(records)} changes: {', '.join(f'{n} {word}' for word, n in counted.items())}"
        if records
        else "no changes"
    ]
    probe = next((e for record in records for e in record["tests"] if e["name"] == "probe"), None)
    if probe is not None:
        told.append(
            f"probe of the base {figure(probe['before'])}, n = {probe['n']}, at most {probe['limit']:g} below it"
        )
    told.append(f"{sum(record['cost'].get('tokens', 0) for record in records):,} tokens")
    return "; ".join(told)


def figure(number: float) -> str:
    """Return a share or a reward as it is printed, such as .955."""
    text = f"{number:.3f}"
    return text.replace("0.", ".", 1) if abs(number) < 1 else text


def parts(record: ChangeRecord) -> Iterator[str]:
    """Yield all that there is to say of it, in short parts."""
    if record["result"]:
        yield f"{short(record['parent'])} -> {short(record['result'])}"
    if told := counts(record):
        yield told
    yield from map(of_test, record["tests"])
    if record["note"]:
        yield record["note"]
    if record["cost"].get("tokens"):
        yield f"{record['cost']['tokens']:,} tokens"


def in_one_line(record: ChangeRecord) -> str:
    """Return whose memory changed, why, and what came of it."""
    when = f" after round {record['settings']['round'] + 1}" if "round" in record["settings"] else ""
    return f"{who(record)} {verdict(record)}{when} ({record['memory']}): {'; '.join(parts(record))}"
