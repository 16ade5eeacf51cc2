"""Overrides whose values are free text: paths and names, taken as typed instead of by Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

KEYS = frozenset(
    (
        *("run_dir", "out", "checkpoint", "report", "name", "env.id", "data.replay_dir", "cluster.address"),
        *("encoder.backbone", "target.features.backbone"),
        *(f"logger.{key}" for key in ("save_dir", "project", "name", "experiment", "tracking_uri", "url", "database")),
        *(f"logger.{key}" for key in ("folder", "space")),
    )
)
"""Keys with free text. `null` stays null, `${…}` is resolved, and a value in quotes is what is between them."""

_OVERRIDE = re.compile(r"(\+{0,2})([\w./@]+)=(.*)", re.DOTALL)
_FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag|extend_list)\(.*\)", re.DOTALL)


def quote_free_text(overrides: Iterable[str], sweep: bool = False) -> list[str]:
    """Return overrides with the values of KEYS in Hydra's quotes; everything else is returned unchanged.

    Args:
        overrides: arguments of a command, of which some may be options of Hydra.
        sweep: several values are separated by commas, as with `-m`.
    """
    return [_quoted(override, sweep) for override in overrides]


def _quoted(override: str, sweep: bool) -> str:
    found = _OVERRIDE.fullmatch(override)
    if found is None or found[2] not in KEYS:
        return override
    plus, key, value = found.groups()
    return f"{plus}{key}={_quoted_value(key, value, sweep)}"


def _quoted_value(key: str, value: str, sweep: bool) -> str:
    if value.lower() == "null" or _is_quoted(value):
        return value
    if key == "encoder.backbone" and value.startswith("{"):  # a configuration instead of a name
        return value
    if key == "checkpoint" and value.startswith("[") and value.endswith("]"):  # several, to compare
        return f"[{','.join(_quoted_value('', part.strip(), False) for part in _split(value[1:-1]))}]"
    if sweep and _FUNCTION.fullmatch(value):
        return value
    parts = _split(value) if sweep else [value]
    if len(parts) > 1:
        return ",".join(_quoted_value("", part, False) for part in parts)
    return with_quotes(value)


def _split(value: str) -> list[str]:
    """Split at the commas outside of quotes and of `${…}`."""
    return [part for part in re.findall(r"""(?:'[^']*'|"[^"]*"|\$\{[^}]*\}|[^,])+""", value)]


def _is_quoted(value: str) -> bool:
    parsed = _parse(f"key={value}") if value[:1] in ("'", '"') else None
    return parsed is not None and isinstance(parsed.value(), str) and _is_one_quoted_string(parsed)


def _is_one_quoted_string(parsed: Override) -> bool:
    return isinstance(parsed._value, QuotedString)


def _parse(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except (HydraException, ValueError):
        return None


def with_quotes(text: str, quote: Quote = Quote.single) -> str:
    """Return a text as a quoted value of Hydra's grammar."""
    return QuotedString(text=text, quote=quote).with_quotes()
