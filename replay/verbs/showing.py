"""`replay show`: one exchange out of a capture and its runs, ready to be laid out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from replay.config import parse_target
from replay.diff.answers import Answer, Comparer, CompareSettings
from replay.diff.lift import Lifted, lift
from replay.diff.paths import Trail, render, steps
from replay.errors import InputError, UsageError
from replay.model import Exchange, Header, Result
from replay.report.exchange import Answered, Asked, Line, Shown, curl
from replay.store.reader import Dataset, to_rows
from replay.store.remote import is_remote, readable
from replay.store.tables import split_head


def show(
    exchange_id: str,
    runs: Sequence[Path],
    *,
    settings: CompareSettings | None = None,
    capture: Path | None = None,
    lap: int = 0,
    target: str | None = None,
) -> Shown:
    """One exchange in each of `runs`; the first is what the others are compared with.

    `target` is where the curl line goes (a build that a gate had started is elsewhere now).

    `exchange_id` may be shortened to a beginning that is unique. `capture` says where the request is, if not
    where the run had it from. `UsageError` where no run holds the exchange, or several could be meant.
    """
    if not runs:
        raise UsageError("name at least one run (a directory with a run.json) to look in")
    datasets = [Dataset.open(path) for path in runs]
    captures = [dataset for dataset in datasets if dataset.kind == "capture"]
    datasets = [dataset for dataset in datasets if dataset.kind == "run"]
    found = [_result(dataset, exchange_id, lap) for dataset in datasets]
    results = [result for result in found if result is not None]
    exchange = _captured(exchange_id, capture, captures, datasets)
    if not results and exchange is None:
        raise UsageError(f"no exchange {exchange_id} (lap {lap}) in {', '.join(map(str, runs))}")
    full_id = results[0].exchange_id if results else exchange.exchange_id if exchange else exchange_id
    if exchange is not None and exchange.exchange_id != full_id:
        raise UsageError(f"{exchange_id} is the beginning of several exchanges: write it in full")
    each = [asked_of(exchange, [result] if result else []) for result in found]
    asked = next((one for one, result in zip(each, found, strict=True) if result is not None), None)
    asked = asked or asked_of(exchange, results)
    answers = _answers(runs, datasets, found, exchange, Comparer(settings or CompareSettings()))
    return Shown(
        exchange_id=full_id,
        endpoint=results[0].endpoint if results else exchange.endpoint if exchange else "",
        asked=asked,
        answers=answers,
        curls=tuple(_curls(asked, each, datasets, target)) if asked else (),
        otherwise=tuple(
            (str(dataset.path), one)
            for dataset, one, result in zip(datasets, each, found, strict=True)
            if one is not None and result is not None and asked and _sent(one) != _sent(asked)
        ),
    )


def _sent(asked: Asked) -> tuple[Any, ...]:
    return asked.head, asked.body


def _curls(
    asked: Asked, each: Sequence[Asked | None], runs: Sequence[Dataset], target: str | None
) -> Iterator[tuple[str, str]]:
    """A line for each target, named by the first run that went there, with what it sent there; or for the target that
    is given."""
    if target is not None:
        parse_target(target)
        yield target, curl(asked, target if "//" in target else f"http://{target}")
        return
    told = set()
    for run, own in zip(runs, each, strict=True):
        target = str(run.meta["source"].get("target") or "")
        if target and target not in told:
            told.add(target)
            yield str(run.path), curl(own or asked, target if "//" in target else f"http://{target}")


def _matching(dataset: Dataset, exchange_id: str) -> Iterator[Any]:
    if not exchange_id or not exchange_id.replace("-", "").isalnum():
        raise UsageError(f"{exchange_id!r} is no exchange id: reports and `replay diff` name them")
    field = ds.field("exchange_id")
    # A range instead of a test of the beginning: ranges use the statistics of row groups.
    where = (field >= exchange_id) & (field <= exchange_id + "~")
    noun = Exchange if dataset.kind == "capture" else Result
    for batch in dataset.files().to_batches(filter=where):
        yield from (noun(*values) for values in to_rows(batch))


def _only(dataset: Dataset, exchange_id: str, rows: Sequence[Any]) -> Any:
    if len({row.exchange_id for row in rows}) > 1:
        raise UsageError(
            f"{exchange_id} is the beginning of several exchanges in {dataset.path}: write more of it"
        )
    return rows[0] if rows else None


def _result(dataset: Dataset, exchange_id: str, lap: int) -> Result | None:
    rows = [row for row in _matching(dataset, exchange_id) if row.lap == lap]
    found: Result | None = _only(dataset, exchange_id, rows)
    return found


def _captured(
    exchange_id: str, capture: Path | None, captures: Sequence[Dataset], runs: Sequence[Dataset]
) -> Exchange | None:
    """The recorded exchange, from where the user says, or from where the runs had it."""
    if capture is not None:
        captures = [Dataset.open(capture, "capture")]
    for dataset in captures or map(captured_from, runs):
        if dataset is not None:
            rows = list(_matching(dataset, exchange_id))
            found: Exchange | None = _only(dataset, exchange_id, rows)
            if found is not None:
                return found
    return None


def captured_from(run: Dataset) -> Dataset | None:
    """The capture that a run was made from, if it is still there: as named, or beside the run."""
    named = run.meta["source"].get("capture")
    if not isinstance(named, str):
        return None
    if is_remote(named):
        return Dataset.open(readable(named), "capture")
    for path in (Path(named), run.path / named, run.path.parent / Path(named).name):
        try:
            return Dataset.open(path, "capture")
        except InputError:
            continue
    return None


def asked_of(exchange: Exchange | None, results: Sequence[Result]) -> Asked | None:
    """The request as it was sent, or else as it was captured; `None` where neither is at hand."""
    sent = next((result for result in results if result.sent_head is not None), None)
    if sent is not None and sent.sent_head is not None:
        return _from_wire("as sent, which is not quite as captured", sent.sent_head, sent.sent_body, exchange)
    if exchange is None:
        return None
    line = f"{exchange.method} {exchange.target} {exchange.http_version}"
    return _request(
        "as captured", line, exchange.method, exchange.target, exchange.request_headers, exchange.request_body
    )


def _from_wire(origin: str, head: bytes, body: bytes | None, exchange: Exchange | None) -> Asked:
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    method, _, rest = line.partition(" ")
    if body is None and exchange is not None:
        body = exchange.request_body
    return _request(origin, line, method, rest.rpartition(" ")[0], tuple(split_head(head)), body)


def _request(
    origin: str, line: str, method: str, target: str, headers: tuple[Header, ...], body: bytes | None
) -> Asked:
    head = (line, *(f"{name}: {value}" for name, value in headers))
    lines = lines_of(lift(body, headers)) if body else ()
    return Asked(origin, method, target, head, headers, body or b"", lines)


def _answers(
    runs: Sequence[Path],
    datasets: Sequence[Dataset],
    results: Sequence[Result | None],
    exchange: Exchange | None,
    comparer: Comparer,
) -> tuple[Answered, ...]:
    if not datasets:
        return (_production(exchange),) if exchange is not None else ()
    first = next((result for result in results if result is not None), None)
    shown = []
    for dataset, result in zip(datasets, results, strict=True):
        if result is None:
            shown.append(Answered(str(dataset.path), "has no such exchange", (), (), (), ()))
            continue
        same = first is None or result is first
        found = () if same else tuple(comparer.differences(_answer(first), _answer(result)))
        shown.append(shown_answer(result, str(dataset.path), found))
    return tuple(shown)


def _answer(result: Result | None) -> Answer:
    return Answer._make(getattr(result, name) for name in Answer._fields)


def shown_answer(result: Result | Exchange, name: str = "", differences: tuple[Any, ...] = ()) -> Answered:
    """What a run got, or production answered, its body as lines."""
    if isinstance(result, Exchange):
        return _production(result)
    body, notes = _body(result.response_body, result.response_size, result.response_headers, result.truncated)
    if result.unbound:
        notes = (*notes, f"its request lacked a live value: {result.unbound}")
    return Answered(name, _outcome(result), result.response_headers, body, notes, differences)


def _production(exchange: Exchange) -> Answered:
    body, notes = _body(
        exchange.response_body, exchange.response_size, exchange.response_headers, exchange.truncated
    )
    outcome = f"failed: {exchange.error}" if exchange.status is None else f"{exchange.status}"
    return Answered("production", outcome, exchange.response_headers, body, notes, ())


def _outcome(result: Result) -> str:
    if result.skipped is not None:
        return f"not sent: {result.skipped}"
    time = f" in {result.duration_ns / 1e6:.3g} ms" if result.duration_ns is not None else ""
    if result.status is None:
        return f"failed: {result.error}{time}"
    return f"{result.status}{time}" + (f", then failed: {result.error}" if result.error else "")


def _body(
    body: bytes | None, size: int, headers: tuple[Header, ...], truncated: bool
) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    if body is None:
        return (Line(f"(the body was not stored: {size:,} bytes)", "$"),) if size else (), ()
    lifted = lift(body, headers, truncated)
    return lines_of(lifted), lifted.notes


def lines_of(lifted: Lifted) -> tuple[Line, ...]:
    """A body as lines that know their path: JSON indented, text as it is, anything else outlined."""
    if lifted.form == "empty":
        return ()
    if lifted.form == "text" and isinstance(lifted.tree, list):
        return tuple(Line(str(line), render([number])) for number, line in enumerate(lifted.tree))
    if lifted.form == "binary":
        return (Line(str(lifted.tree), "$"),)
    return tuple(_tree(lifted.tree, None, "", ""))


def _tree(value: Any, trail: Trail, label: str, after: str) -> Iterator[Line]:
    path = render(steps(trail))
    indent = "  " * len(steps(trail))
    if isinstance(value, dict) and value:
        yield from _container(value.items(), "{}", trail, indent, label, after)
    elif isinstance(value, list | tuple) and value:
        yield from _container(enumerate(value), "[]", trail, indent, label, after)
    else:
        yield Line(f"{indent}{label}{_leaf(value)}{after}", path)


def _container(
    items: Any, brackets: str, trail: Trail, indent: str, label: str, after: str
) -> Iterator[Line]:
    path = render(steps(trail))
    entries = list(items)
    # Brackets stand for no place of their own: what differs is marked where it stands.
    yield Line(f"{indent}{label}{brackets[0]}", f"{path} {brackets[0]}")
    for number, (key, child) in enumerate(entries, 1):
        name = f"{json.dumps(key, ensure_ascii=False)}: " if isinstance(key, str) else ""
        yield from _tree(child, (trail, key), name, "," if number < len(entries) else "")
    yield Line(f"{indent}{brackets[1]}{after}", f"{path} {brackets[1]}")


def _leaf(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        return repr(value)
