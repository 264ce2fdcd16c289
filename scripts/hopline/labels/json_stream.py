"""JSON too large for memory, one value at a time."""

from collections.abc import Iterator
from typing import IO, Any

from hopline.labels.candidates import Broken

NESTING = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}
MAX_EVENTS = 1 << 21
"""Values and brackets in one frame: that of 50,000 atoms; what is longer is no frame."""


def values(stream: IO[bytes], *, depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what a JSON object holds ``depth`` keys down, one at a time, with its keys.

    What is no object is yielded with the fewer keys that lead to it.

    Raises
    ------
    Broken
        If this is no JSON object, ends early, or holds one value that is too long for a frame.
    """
    import ijson

    keys: list[str] = []
    builder, length, nested = None, 0, 0
    try:
        for event, value in ijson.basic_parse(stream, use_float=True):
            if builder is None:
                if event == "map_key":
                    keys[-1] = value
                    continue
                if event == "start_map" and len(keys) < depth:
                    keys.append("")
                    continue
                if event == "end_map":
                    keys.pop()
                    continue
                if not keys:
                    raise Broken("no JSON object")
                builder, length = ijson.ObjectBuilder(), 0
            builder.event(event, value)
            length += 1
            nested += NESTING.get(event, 0)
            if length > MAX_EVENTS:
                raise Broken(f"{'/'.join(keys)[:80]!r} holds more than {MAX_EVENTS} values: that is no frame")
            if nested == 0:
                yield tuple(keys), builder.value
                builder = None
    except ijson.JSONError as error:
        raise not_json(error) from error


def not_json(error: Exception) -> Broken:
    """Return what to tell a person of an error of the JSON parser."""
    what = str(error).partition("\n")[0].strip()
    return Broken(
        "cut off: the JSON ends early" if "premature EOF" in what else f"the JSON is damaged: {what}"
    )
